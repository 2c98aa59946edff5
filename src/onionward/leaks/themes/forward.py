"""What others send through the host: containers, virtual machines, tunnels of the kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Vector
from onionward.leaks.settings import device, foreign_table, ip_batch, new_network, sysctl
from onionward.leaks.sights import SEES_PING4, SEES_PING6, SEES_TCP, SEES_UDP
from onionward.leaks.tools import ask, hops, ping, tcp, udp

_INSIDE4, _OUTSIDE4 = "198.19.7.2", "198.19.7.1"
_INSIDE6, _OUTSIDE6 = "2001:db8:7::2", "2001:db8:7::1"
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001


def _in_child(attempt: Attempt, inside: Probe, lines: list[str], go: int, ready: int) -> None:
    """The container: a process with a network of its own, configured when the parent says so."""
    status = 1
    try:
        new_network()
        os.write(ready, b".")
        os.read(go, 1)
        ip_batch(*lines)
        with contextlib.suppress(ConnectionError):
            inside(attempt)
        status = 0
    except BaseException:  # noqa: BLE001  a forked child must not return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(status)


@contextlib.contextmanager
def _forwarding() -> Iterator[None]:
    with sysctl("net/ipv4/ip_forward", "1"), sysctl("net/ipv6/conf/all/forwarding", "1"):
        yield


def _behind(inside: Probe) -> Probe:
    """Run a probe in a container that the host routes for."""

    def probe(attempt: Attempt) -> None:
        name, peer = f"{attempt.device}r", attempt.device
        lines = [
            "link set lo up",
            f"address add {_INSIDE4}/24 dev {peer}",
            f"address add {_INSIDE6}/64 dev {peer} nodad",
            f"link set {peer} up",
            # known from the start: to ask for them takes time, and only once
            f"neighbour add {_OUTSIDE4} lladdr {attempt.hardware} dev {peer}",
            f"neighbour add {_OUTSIDE6} lladdr {attempt.hardware} dev {peer}",
            f"route add default via {_OUTSIDE4}",
            f"route add ::/0 via {_OUTSIDE6}",
        ]
        go_read, go = os.pipe()
        ready, ready_write = os.pipe()
        child = os.fork()
        if not child:
            _in_child(attempt, inside, lines, go_read, ready_write)
        try:
            os.read(ready, 1)
            with (
                _forwarding(),
                device(
                    name,
                    f"link add {name} address {attempt.hardware} type veth"
                    f" peer name {peer} netns {child}",
                    f"address add {_OUTSIDE4}/24 dev {name}",
                    f"address add {_OUTSIDE6}/64 dev {name} nodad",
                    f"link set {name} up",
                ),
            ):
                os.write(go, b".")
                _, status = os.waitpid(child, 0)
                child = 0
            if status:
                raise RuntimeError("the container failed")
        finally:
            if child:
                os.close(go)
                os.waitpid(child, 0)
            for end in (go_read, ready, ready_write):
                os.close(end)

    return probe


def _masqueraded(inside: Probe) -> Probe:
    """The same with somebody's NAT, as container engines load it."""

    def probe(attempt: Attempt) -> None:
        rules = (
            "chain c { type nat hook postrouting priority 100; policy accept;"
            f" ip saddr {_INSIDE4} masquerade; }}\n"
            "chain f { type filter hook forward priority -200; policy accept; }"
        )
        with foreign_table("inet", attempt.device, rules):
            _behind(inside)(attempt)

    return probe


def _tunnelled(attempt: Attempt) -> None:
    """A packet that a program writes into its tunnel device is routed on."""
    name = attempt.device
    source, target = "198.19.8.2", attempt.targets.stranger4
    packet = packets.ip4(
        source,
        target,
        packets.UDP,
        packets.udp(source, target, attempt.number, 4433, attempt.payload),
    )
    with Path("/dev/net/tun").open("r+b", buffering=0) as tun, _forwarding():
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
        ip_batch(f"address add 198.19.8.1/24 dev {name}", f"link set {name} up")
        tun.write(packet)


def _vxlan(attempt: Attempt) -> None:
    """A VPN inside the kernel: no program owns its outer packets."""
    name, targets = attempt.device, attempt.targets
    with (
        device(
            name,
            f"link add {name} type vxlan id {attempt.number} dev {targets.device}"
            f" remote {targets.stranger4} dstport {attempt.number}",
            f"address add 198.19.9.1/24 dev {name}",
            f"link set {name} up",
            f"neighbour add 198.19.9.2 lladdr 02:00:00:00:09:02 dev {name}",
        ),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        with contextlib.suppress(PermissionError, ConnectionError):
            sock.sendto(attempt.payload, ("198.19.9.2", 4433))
        time.sleep(0.3)


def _vxlan6(attempt: Attempt) -> None:
    name, targets = attempt.device, attempt.targets
    with device(
        name,
        f"link add {name} type vxlan id {attempt.number} dev {targets.device}"
        f" remote {targets.stranger6} dstport {attempt.number}",
        f"link set {name} up",
    ):
        time.sleep(0.3)


_INNER: tuple[tuple[str, str, str, Probe], ...] = (
    ("tcp4", "TCP", SEES_TCP, tcp("web4", 80)),
    ("tcp6", "TCP over IPv6", SEES_TCP, tcp("web6", 80)),
    ("udp4", "UDP", SEES_UDP, udp("web4", 4433)),
    ("udp6", "UDP over IPv6", SEES_UDP, udp("web6", 4433)),
    ("dns4", "DNS", SEES_UDP, ask("dns4")),
    ("dns6", "DNS over IPv6", SEES_UDP, ask("dns6")),
    ("ping4", "ping", SEES_PING4, ping("stranger4")),
    ("ping6", "ping over IPv6", SEES_PING6, ping("stranger6")),
    ("neighbour4", "UDP to the LAN", SEES_UDP, udp("neighbour4", 9)),
    ("ttl", "traceroute", SEES_UDP, udp("stranger4", 33434, hops(2))),
)

_NATTED: tuple[tuple[str, str, str, Probe], ...] = (
    ("tcp4", "TCP", SEES_TCP, tcp("web4", 80)),
    ("udp4", "UDP", SEES_UDP, udp("web4", 4433)),
    ("dns4", "DNS", SEES_UDP, ask("dns4")),
)

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(f"forward.{name}", "F1", f"a container behind the host: {title}", sees,
               _behind(inside), Account.ROOT)
        for name, title, sees, inside in _INNER
    ),
    *(
        Vector(f"forward.nat-{name}", "F1", f"a container behind somebody's NAT: {title}", sees,
               _masqueraded(inside), Account.ROOT)
        for name, title, sees, inside in _NATTED
    ),
    Vector("forward.tun", "F1", "a program's tunnel device: its packets are routed on", SEES_UDP,
           _tunnelled, Account.ROOT),
    Vector("tunnel.vxlan4", "U1", "a tunnel of the kernel: outer packets", "udp and dst port {n}",
           _vxlan, Account.ROOT),
    Vector("tunnel.vxlan6", "V6", "a tunnel of the kernel over IPv6: outer packets",
     "udp and dst port {n}", _vxlan6,
           Account.ROOT),
)  # fmt: skip
