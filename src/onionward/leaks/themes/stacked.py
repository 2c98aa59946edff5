"""Devices stacked on the uplink, the groups the kernel reports, copies of local packets."""

from __future__ import annotations

import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Vector
from onionward.leaks.settings import device, foreign_table, ip_batch, run, sysctl
from onionward.leaks.sights import SEES_UDP
from onionward.leaks.themes import guests
from onionward.leaks.themes.link import ip_datagram
from onionward.leaks.tools import send_frame

_SECONDS_OF_KERNEL = 1.3
_CROSSING_SECONDS = 0.05
_CROSSINGS = 4


def _groups(join: Callable[[socket.socket, int], None], family: int) -> Probe:
    """The kernel reports groups by itself once an application joins one."""

    def probe(attempt: Attempt) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            join(sock, socket.if_nametoindex(attempt.targets.device))
            time.sleep(_SECONDS_OF_KERNEL)

    return probe


def _join4(sock: socket.socket, index: int) -> None:
    group = socket.inet_aton("239.77.7.7")
    request = struct.pack("=4s4si", group, b"", index)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)


def _join6(sock: socket.socket, index: int) -> None:
    group = socket.inet_pton(socket.AF_INET6, "ff05::7:7")
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=i", index))


def _macvlan_up(attempt: Attempt) -> None:
    """A second hardware address comes up: the kernel looks for routers and reports groups."""
    name = attempt.device
    uplink = attempt.targets.device
    with device(
        name,
        f"link add {name} link {uplink} address {attempt.hardware} type macvlan mode bridge",
        f"link set {name} up",
    ):
        time.sleep(_SECONDS_OF_KERNEL)


def _macvlan_sends(attempt: Attempt) -> None:
    name = attempt.device
    with device(
        name,
        f"link add {name} link {attempt.targets.device} address {attempt.hardware} type macvlan",
        f"link set {name} up",
    ):
        inner = ip_datagram(attempt)
        send_frame(
            packets.ethernet(attempt.hardware, attempt.targets.far_mac, packets.ETH_IP4, inner),
            name,
        )


def _macvtap_sends(attempt: Attempt) -> None:
    """As a virtual machine sends: through the character device of a macvtap."""
    name = attempt.device
    with device(
        name,
        f"link add {name} link {attempt.targets.device} address {attempt.hardware} type macvtap",
        f"link set {name} up",
    ):
        inner = ip_datagram(attempt)
        data = packets.ethernet(attempt.hardware, attempt.targets.far_mac, packets.ETH_IP4, inner)
        node = Path(f"/sys/class/net/{name}/macvtap").iterdir()
        number = next(node).joinpath("dev").read_text().strip()
        major, minor = number.split(":")
        tap = Path(tempfile.mkdtemp()) / name
        run("mknod", str(tap), "c", major, minor)
        try:
            with tap.open("wb", buffering=0) as file:
                file.write(bytes(10) + data)
        finally:
            tap.unlink()
            tap.parent.rmdir()


def _bridge_member(attempt: Attempt) -> None:
    """The uplink and somebody's device are ports of one bridge."""
    name, inside, outside = attempt.device, f"{attempt.device}i", f"{attempt.device}o"
    with (
        device(
            inside,
            f"link add {inside} address {attempt.hardware} type veth peer name {outside}",
            *(f"link set {link} up" for link in (inside, outside)),
        ),
        device(
            name,
            f"link add {name} type bridge",
            f"link set {name} up",
            f"link set {outside} master {name}",
            f"link set {attempt.targets.device} master {name}",
        ),
    ):
        try:
            for port in (outside, attempt.targets.device):
                guests.wait_until_forwarding(port)
            inner = ip_datagram(attempt)
            data = packets.ethernet(
                attempt.hardware, attempt.targets.far_mac, packets.ETH_IP4, inner
            )
            for _ in range(_CROSSINGS):
                send_frame(data, inside)
                # a veth's frames cross the bridge when the kernel has time for them
                time.sleep(_CROSSING_SECONDS)
        finally:
            ip_batch(f"link set {attempt.targets.device} nomaster")


def _spanning_tree(attempt: Attempt) -> None:
    name = attempt.device
    with device(
        name,
        f"link add {name} address {attempt.hardware} type bridge stp_state 1 hello_time 100",
        f"link set {name} up",
        f"link set {attempt.targets.device} master {name}",
    ):
        time.sleep(_SECONDS_OF_KERNEL)
        run("ip", "link", "set", attempt.targets.device, "nomaster")


def _new_address(attempt: Attempt) -> None:
    address = f"2001:db8:0:0:aaaa::{attempt.number:x}/64"
    run("ip", "address", "add", address, "dev", attempt.targets.device)
    try:
        time.sleep(_SECONDS_OF_KERNEL)
    finally:
        run("ip", "address", "delete", address, "dev", attempt.targets.device)


def _becomes_router(attempt: Attempt) -> None:
    name = f"net/ipv6/conf/{attempt.targets.device}/forwarding"
    with sysctl(name, "1"):
        time.sleep(_SECONDS_OF_KERNEL)


def _mirrored(attempt: Attempt) -> None:
    """Traffic control copies a loopback packet to the uplink."""
    uplink = attempt.targets.device
    match = ["u32", "match", "ip", "dport", str(attempt.number), "0xffff"]
    action = ["action", "mirred", "egress", "mirror", "dev", uplink]
    run("tc", "qdisc", "add", "dev", "lo", "clsact")
    try:
        where = ["dev", "lo", "egress", "protocol", "ip"]
        run("tc", "filter", "add", *where, *match, *action)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(attempt.payload, ("127.0.0.1", attempt.number))
    finally:
        run("tc", "qdisc", "delete", "dev", "lo", "clsact")


def _duplicated(verb: str) -> Probe:
    """Somebody's nftables rule hands loopback packets to the uplink below IP."""

    def probe(attempt: Attempt) -> None:
        rules = (
            'chain c { type filter hook ingress device "lo" priority 0; policy accept;'
            f' udp dport {attempt.number} {verb} to "{attempt.targets.device}"; }}'
        )
        with (
            foreign_table("netdev", attempt.device, rules),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto(attempt.payload, ("127.0.0.1", attempt.number))

    return probe


def _sees_report(group: str) -> str:
    """An MLDv2 report that names a group, by its last four bytes, in one of its first records."""
    records = " or ".join(f"ip6[{72 + 20 * index}:4] = {group}" for index in range(4))
    return f"ip6[6] = 0 and ip6[48] = 143 and ({records})"


_OTHERS: tuple[tuple[str, str, str, str, Probe], ...] = (
    ("group.igmp", "L1", "joining an IPv4 group (IGMP)", "igmp",
     _groups(_join4, socket.AF_INET)),
    ("group.mld", "L1", "joining an IPv6 group (MLD)",
     _sees_report("0x00070007"), _groups(_join6, socket.AF_INET6)),
    ("group.new-address", "L1", "a new IPv6 address: the kernel reports its group",
     _sees_report("4278190080 + {n}"), _new_address),
    ("group.router", "L1", "forwarding switched on: the kernel joins the routers' groups",
     _sees_report("2"), _becomes_router),
    ("stacked.macvlan-kernel", "L2", "a macvlan comes up: groups, routers",
     "ether src {hardware} and ip6 and not (ip6[6] = 58 and ip6[40] = 135)", _macvlan_up),
    ("stacked.macvlan", "L2", "a macvlan sends", SEES_UDP, _macvlan_sends),
    ("stacked.macvtap", "L2", "a virtual machine on a macvtap sends", SEES_UDP, _macvtap_sends),
    ("stacked.bridge", "L2", "a bridged machine sends", SEES_UDP, _bridge_member),
    ("stacked.stp", "L2", "a bridge speaks spanning tree through the uplink", "stp",
     _spanning_tree),
    ("copy.dup-netdev", "X5", "somebody's rule copies loopback traffic to the uplink",
     "udp and dst port {n}", _duplicated("dup")),
    ("copy.fwd-netdev", "X5", "somebody's rule sends loopback traffic to the uplink",
     "udp and dst port {n}", _duplicated("fwd")),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(name, family, title, sees, probe, Account.ROOT)
        for name, family, title, sees, probe in _OTHERS
    ),
    *guests.VECTORS,
    Vector(
        "copy.mirrored",
        "L3",
        "traffic control copies loopback traffic to the uplink",
        "udp and dst port {n}",
        _mirrored,
        Account.ROOT,
        limit=True,
    ),
)
