"""A gateway between an uplink and a LAN, in namespaces of the tests' own; no Tor, no rules.

router eth0 ── eth0 gateway eth1 ── eth0 client
                        eth1.5 ── eth0 other
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from onionward.lan import dhcp, dhcp_server
from onionward.paths import Paths
from onionward.system import System
from tests.kernel import namespaces
from tests.support import addr, net

T = TypeVar("T")

GATEWAY4, GATEWAY6 = "198.18.8.1", "2001:db8:8::1"
UPLINK4, ROUTER4, ROUTER6 = "198.18.0.4", "198.18.0.1", "2001:db8::1"
ETH1 = dhcp.Segment(
    "eth1",
    (addr(GATEWAY4), addr(GATEWAY6), addr("fe80::1")),
    (net("198.18.8.0/24"), net("2001:db8:8::/64"), net("fe80::/64")),
    (addr("198.18.8.100"), addr("198.18.8.199")),
)


@dataclass
class Node:
    """A machine with nothing but a network."""

    namespace: int

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net={namespaces.path(self.namespace)}", "--", *argv],
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def ip(self, words: str) -> str:
        return self.run("ip", *words.split()).stdout

    def sysctl(self, name: str, value: str) -> None:
        self.run("sysctl", "-q", "-w", f"{name}={value}")

    def inside(self, action: Callable[[], T]) -> T:
        return namespaces.inside(self.namespace, action)

    def read(self, name: str) -> str:
        return self.inside(lambda: (Path("/proc/sys") / name).read_text().strip())

    def settings(self) -> dict[str, str]:
        """Every setting of every interface."""

        def read() -> dict[str, str]:
            return {
                str(path): path.read_text()
                for family in ("ipv4", "ipv6")
                for path in Path(f"/proc/sys/net/{family}/conf").rglob("*")
                if path.is_file() and path.name != "stable_secret"
            }

        return self.inside(read)

    def default6(self) -> str:
        return self.ip("-6 route show default")


@dataclass
class LanNetwork:
    """The four machines, and where the server of the gateway keeps its files."""

    directory: Path
    router: Node
    gateway: Node
    client: Node
    other: Node
    paths: Paths = field(init=False)

    def __post_init__(self) -> None:
        self.paths = Paths(state=self.directory / "state", runtime=self.directory / "run")
        self.paths.state.mkdir()

    @property
    def config(self) -> Path:
        return dhcp_server.config_path(self.paths)

    def serve(self, *segments: dhcp.Segment) -> tuple[int, ...]:
        """Have the gateway serve clients; returns the process ids of its server."""
        account = dhcp_server.choose_account(0)
        text = dhcp_server.render(segments or [ETH1], account, self.paths)
        saved = dhcp_server.survey(self.paths)
        self.gateway.inside(lambda: dhcp_server.apply(System(), saved, text, self.paths))
        return dhcp_server.running(self.config)

    def stop(self) -> None:
        dhcp_server.restore(System(), dhcp_server.survey(self.paths))

    def lease(self, node: Node, seconds: int = 20) -> dict[str, str]:
        """What a DHCP client is told; see `lease`."""
        directory = self.directory / f"dhclient-{time.monotonic_ns()}"
        directory.mkdir()
        return lease(node, directory, seconds)


def lease(node: Node, directory: Path, seconds: int = 20) -> dict[str, str]:
    """What a DHCP client is told, and does nothing with; empty when there is no lease."""
    told, script, pid = directory / "told", directory / "script", directory / "pid"
    script.write_text(f'#!/bin/sh\n[ "$reason" != BOUND ] || env > {told}\n')
    script.chmod(0o755)
    config = directory / "config"
    config.write_text(
        'send host-name "client-name";\n'
        "request subnet-mask, broadcast-address, routers, domain-name-servers, domain-name,\n"
        "  domain-search, host-name, ntp-servers, time-servers, netbios-name-servers,\n"
        "  interface-mtu, root-path, tftp-server-name, log-servers;\n"
    )
    argv = ["timeout", str(seconds), "dhclient", "-4", "-1", "-sf", str(script)]
    argv += ["-cf", str(config), "-pf", str(pid), "-lf", str(directory / "leases"), "eth0"]
    done = node.run(*argv, check=False)
    if done.returncode == 0:
        # it has gone to the background, and writes this when it is there
        deadline = time.monotonic() + 5
        while not (pid.exists() and pid.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run(["kill", pid.read_text().strip()], check=True, timeout=10)
    lines = told.read_text().splitlines() if told.exists() else []
    pairs = (line.partition("=") for line in lines if line.startswith("new_"))
    return {name.removeprefix("new_"): value for name, _, value in pairs}


@contextmanager
def lan_network(directory: Path) -> Iterator[LanNetwork]:
    """Build it; afterwards nothing of it is left."""
    network = LanNetwork(directory, *(Node(namespaces.create()) for _ in range(4)))
    nodes = (network.router, network.gateway, network.client, network.other)
    try:
        for node in nodes:
            for interface in ("all", "default"):
                # no waiting for duplicates, nor before asking for a router
                node.sysctl(f"net/ipv6/conf/{interface}/accept_dad", "0")
                node.sysctl(f"net/ipv6/conf/{interface}/router_solicitation_delay", "0")
            node.ip("link set lo up")
        for interface, peer in (
            ("eth0", network.router),
            ("eth1", network.client),
            ("eth1.5", network.other),
        ):
            connect(network.gateway, interface, peer)
        network.router.ip(f"address add {ROUTER4}/24 dev eth0")
        network.router.ip(f"address add {ROUTER6}/64 dev eth0 nodad")
        network.gateway.ip(f"address add {UPLINK4}/24 dev eth0")
        address_lan(network.gateway)
        yield network
    finally:
        network.stop()
        for node in nodes:
            close(node)


def connect(gateway: Node, interface: str, peer: Node) -> None:
    """A wire from an interface of the gateway to eth0 of a peer."""
    far = namespaces.path(peer.namespace)
    gateway.ip(f"link add {interface} type veth peer name eth0 netns {far}")
    gateway.ip(f"link set {interface} up")
    peer.ip("link set eth0 up")


def address_lan(gateway: Node) -> None:
    gateway.ip(f"address add {GATEWAY4}/24 dev eth1")
    gateway.ip(f"address add {GATEWAY6}/64 dev eth1 nodad")


def close(node: Node) -> None:
    """The namespace ends with its last descriptor."""
    os.close(node.namespace)


def until(what: str, reached: Callable[[], bool], patience: float = 15.0) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + patience
    while not reached():
        assert time.monotonic() < deadline, f"not in {patience:g} s: {what}"
        time.sleep(0.05)


def announcement(node: Node) -> bytes:
    """The router advertisement (RFC 4861, 4.2) that answers a solicitation from here."""

    def ask() -> bytes:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            index = socket.if_nametoindex("eth0")
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.settimeout(1)
            for _ in range(15):
                raw.sendto(b"\x85" + bytes(7), ("ff02::2", 0, 0, index))
                deadline = time.monotonic() + 1
                while time.monotonic() < deadline:
                    try:
                        packet = raw.recv(2000)
                    except TimeoutError:
                        break
                    if packet[0] == 134:
                        return packet
        raise AssertionError("no router announces itself")

    return node.inside(ask)


def options(packet: bytes) -> dict[int, bytes]:
    """Options of a router advertisement by type."""
    found, rest = {}, packet[16:]
    while rest:
        found[rest[0]] = rest[: rest[1] * 8]
        rest = rest[rest[1] * 8 :]
    return found


def answers_arp(node: Node, target: str) -> bool:
    """Whether somebody on the wire of eth0 says that this address is his (RFC 826)."""

    def ask() -> bool:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
            wire.bind(("eth0", 0))
            wire.settimeout(0.5)
            own: bytes = wire.getsockname()[4]
            sender = socket.inet_aton("198.18.8.11")
            wanted = socket.inet_aton(target)
            head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
            request = head + own + sender + bytes(6) + wanted
            wire.send(b"\xff" * 6 + own + b"\x08\x06" + request)
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                try:
                    frame = wire.recv(100)
                except TimeoutError:
                    return False
                if frame[20:22] == b"\0\x02" and frame[28:32] == wanted:
                    return True
        return False

    return node.inside(ask)


def reaches(sender: Node, receiver: Node, address: str) -> bool:
    """Whether a datagram arrives."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def bound() -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((address, 4444))
        made.settimeout(1)
        return made

    with receiver.inside(bound) as there, sender.inside(lambda: _datagram(family)) as here:
        for _ in range(2):
            here.sendto(b"x", (address, 4444))
            try:
                there.recv(1)
            except TimeoutError:
                continue
            return True
    return False


def _datagram(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_DGRAM)


def received_icmp(node: Node, kind: int, provoke: Sequence[str]) -> bool:
    """Whether an ICMP message of this type arrives after datagrams to these addresses."""

    def listen() -> bool:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw,
            _datagram(socket.AF_INET) as sender,
        ):
            raw.settimeout(1)
            for address in provoke:
                sender.sendto(b"x", (address, 4444))
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                try:
                    packet = raw.recv(2000)
                except TimeoutError:
                    return False
                if packet[20] == kind:
                    return True
        return False

    return node.inside(listen)
