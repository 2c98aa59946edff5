"""Below IP: frames that programs put on the wire themselves."""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Vector
from onionward.leaks.settings import owned_by
from onionward.leaks.sights import SEES_UDP
from onionward.leaks.themes.xdp import transmit
from onionward.leaks.tools import SOL_PACKET, Build, ask, bound, frame, send_frame, tcp, udp

_EVERYBODY = "ff:ff:ff:ff:ff:ff"


def ip_datagram(attempt: Attempt, to: str = "stranger4") -> bytes:
    """A UDP datagram inside IP, from the attempt's own port."""
    there = attempt.address(to)
    here = attempt.targets.host6 if ":" in there else attempt.targets.host4
    datagram = packets.udp(here, there, attempt.number, 4433, attempt.payload)
    return packets.ip(here, there, packets.UDP, datagram)


def _routed(to: str, prefix: bytes = b"", kind: int | None = None) -> Build:
    """A frame to the router that holds a datagram, behind a prefix such as a VLAN tag."""

    def build(attempt: Attempt) -> bytes:
        inner = ip_datagram(attempt, to)
        own = packets.ETH_IP6 if inner[0] >> 4 == 6 else packets.ETH_IP4
        return packets.ethernet(
            attempt.targets.device_mac,
            attempt.targets.far_mac,
            own if kind is None else kind,
            prefix + inner,
        )

    return build


def _plain(kind: int, *, to: str = _EVERYBODY, source: str = "", head: bytes = b"") -> Build:
    """A frame of that ethertype; the number follows the head."""

    def build(attempt: Attempt) -> bytes:
        own = source or attempt.targets.device_mac
        return packets.ethernet(own, to, kind, head + attempt.payload)

    return build


def _dhcp(attempt: Attempt) -> bytes:
    message = packets.dhcp_discover(attempt.targets.device_mac, attempt.payload)
    here, there = packets.UNSPECIFIED4, "255.255.255.255"
    datagram = packets.udp(here, there, 68, 67, message)
    packet = packets.ip4(here, there, packets.UDP, datagram, ttl=7)
    return packets.ethernet(attempt.targets.device_mac, _EVERYBODY, packets.ETH_IP4, packet)


def _dhcp_unicast(attempt: Attempt) -> bytes:
    here, there = attempt.targets.host4, attempt.targets.stranger4
    datagram = packets.udp(here, there, 68, 67, attempt.payload)
    packet = packets.ip4(here, there, packets.UDP, datagram)
    return packets.ethernet(
        attempt.targets.device_mac, attempt.targets.far_mac, packets.ETH_IP4, packet
    )


def _unprivileged(build: Build) -> Probe:
    """A frame of an ordinary account, whose program has been given CAP_NET_RAW."""

    def probe(attempt: Attempt) -> None:
        with owned_by(attempt.targets.user_account):
            send_frame(build(attempt), attempt.targets.device)

    return probe


def _dhcp_socket_of_another(attempt: Attempt) -> None:
    with (
        owned_by(attempt.targets.user_account),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        bound(sock, attempt)
        sock.bind(("", 68))
        sock.sendto(attempt.payload, ("255.255.255.255", 67))


def _arp_stuffed(attempt: Attempt) -> bytes:
    hardware = attempt.targets.device_mac
    request = packets.arp_request(hardware, attempt.targets.host4, attempt.targets.neighbour4)
    return packets.ethernet(hardware, _EVERYBODY, packets.ETH_ARP, request + attempt.payload * 20)


def _cooked(attempt: Attempt) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        there = packets.mac(attempt.targets.far_mac)
        where = (attempt.targets.device, packets.ETH_IP4, 0, 0, there)
        sock.sendto(ip_datagram(attempt), where)


def _sock_packet(attempt: Attempt) -> None:
    # the interface of Linux 2.0, still there; Python cannot write its addresses
    sock_packet = 10
    data = _routed("stranger4")(attempt)
    where = struct.pack("=H14sH", socket.AF_PACKET, attempt.targets.device.encode(), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_PACKET, sock_packet, 0) as sock:
        if libc.sendto(sock.fileno(), data, len(data), 0, where, len(where)) < 0:
            raise OSError(ctypes.get_errno(), "sendto")


def _ring(attempt: Attempt) -> None:
    """A frame through a shared transmit ring (PACKET_TX_RING)."""
    tx_ring, version, block, size = 13, 10, 4096, 2048
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(SOL_PACKET, version, 1)
        sock.setsockopt(SOL_PACKET, tx_ring, struct.pack("IIII", block, 1, size, 2))
        sock.bind((attempt.targets.device, 0))
        data = _routed("stranger4")(attempt)
        with mmap.mmap(sock.fileno(), block) as ring:
            # tpacket2_hdr: status, len, snaplen, …; data begins where sockaddr_ll would
            ring[32 : 32 + len(data)] = data
            ring[4:8] = struct.pack("I", len(data))
            ring[0:4] = struct.pack("I", 1)
            sock.send(b"")


def _xdp(attempt: Attempt) -> None:
    transmit(attempt.targets.device, _routed("stranger4")(attempt))


_VLAN = struct.pack("!HH", 7, packets.ETH_IP4)
_FRAMES: tuple[tuple[str, str, str, Probe], ...] = (
    ("udp4", "a datagram in a frame", SEES_UDP, frame(_routed("stranger4"))),
    ("udp6", "an IPv6 datagram in a frame", SEES_UDP, frame(_routed("stranger6"))),
    ("bypass4", "past the queues (QDISC_BYPASS)", SEES_UDP,
     frame(_routed("stranger4"), bypass=True)),
    ("bypass6", "IPv6 past the queues (QDISC_BYPASS)",
     SEES_UDP, frame(_routed("stranger6"), bypass=True)),
    ("cooked", "without a link header", SEES_UDP, _cooked),
    ("old", "through SOCK_PACKET", SEES_UDP, _sock_packet),
    ("ring", "through a shared ring", SEES_UDP, _ring),
    ("marked", "with a packet mark", SEES_UDP, frame(_routed("stranger4"), mark=0x5EC0DE01)),
    ("vlan", "with a VLAN tag", "vlan and udp and src port {n}",
     frame(_routed("stranger4", _VLAN, 0x8100))),
    ("qinq", "with a provider's VLAN tag", "ether[12:2] = 0x88a8 and ether[38:2] = {n}",
     frame(_routed("stranger4", _VLAN, 0x88A8))),
    ("pppoe", "PPPoE", "ether[12:2] = 0x8864 and ether[20:2] = {n}",
     frame(_plain(0x8864, head=struct.pack("!BBHH", 0x11, 0, 1, 40)))),
    ("mpls", "with an MPLS label", "ether[12:2] = 0x8847 and ether[38:2] = {n}",
     frame(_routed("stranger4", struct.pack("!I", 0x00010140), 0x8847))),
    ("lldp", "LLDP", "ether proto 0x88cc and ether[14:2] = {n}",
     frame(_plain(0x88CC, to="01:80:c2:00:00:0e"))),
    ("experiment", "an ethertype nobody uses", "ether proto 0x88b5 and ether[14:2] = {n}",
     frame(_plain(0x88B5))),
    ("experiment-bypass", "an ethertype nobody uses, past the queues",
     "ether proto 0x88b5 and ether[14:2] = {n}", frame(_plain(0x88B5), bypass=True)),
    ("eapol", "as if it were 802.1X, to a host", "ether proto 0x888e and ether[14:2] = {n}",
     _unprivileged(_plain(0x888E, to="02:00:00:00:00:77"))),
    ("preauth", "as if it were 802.11 pre-authentication",
     "ether proto 0x88c7 and ether[14:2] = {n}", _unprivileged(_plain(0x88C7))),
    ("lacp", "as if it were link aggregation", "ether proto 0x8809 and ether[14:2] = {n}",
     _unprivileged(_plain(0x8809, to="02:00:00:00:00:77"))),
    ("rarp", "reverse ARP", "ether proto 0x8035 and ether[14:2] = {n}", frame(_plain(0x8035))),
    ("loop", "loopback test frames", "ether proto 0x9000 and ether[14:2] = {n}",
     frame(_plain(0x9000))),
    ("llc", "802.3 with LLC", "ether[12:2] <= 1500 and ether[17:2] = {n}",
     frame(_plain(40, head=b"\x42\x42\x03"))),
    ("snap", "802.3 with SNAP", "ether[12:2] <= 1500 and ether[22:2] = {n}",
     frame(_plain(45, head=b"\xaa\xaa\x03\0\0\0\x08\0"))),
    ("other-mac", "from a hardware address that is not the host's",
     "ether src 02:00:00:00:00:99 and ether[14:2] = {n}",
     frame(_plain(0x88B6, source="02:00:00:00:00:99"))),
    ("arp-stuffed", "ARP with a letter inside", "arp and greater 400", _unprivileged(_arp_stuffed)),
    ("dhcp-stranger", "as if it were DHCP, to a host far away",
     "udp and src port 68 and udp[8:2] = {n}", frame(_dhcp_unicast)),
)  # fmt: skip


def _asks4(last: int) -> str:
    return f"arp[6:2] = 1 and arp[24:4] = {0xC6120000 + last:#x}"


def _asks6(last: int) -> str:
    return f"icmp6 and ip6[40] = 135 and ip6[60:4] = {last:#x}"


# a program that tries an address of the link makes the kernel ask everybody for it
_ASKING = tuple(
    Vector(f"asking.{name}", "L1", f"the kernel asks the link for an address: {title}", sees, probe)
    for name, title, sees, probe in (
        ("tcp4", "TCP", _asks4(71), tcp("198.18.0.71", 80)),
        ("udp4", "UDP", _asks4(72), udp("198.18.0.72", 4433)),
        ("bound4", "TCP tied to the uplink", _asks4(73), tcp("198.18.0.73", 80, bound)),
        ("dns4", "DNS", _asks4(74), ask("198.18.0.74")),
        ("tcp6", "TCP over IPv6", _asks6(0x71), tcp("2001:db8::71", 80)),
        ("udp6", "UDP over IPv6", _asks6(0x72), udp("2001:db8::72", 4433)),
    )
)

VECTORS: tuple[Vector, ...] = (
    *_ASKING,
    *(
        Vector(f"frame.{name}", "L2", f"a frame by AF_PACKET: {title}", sees, probe, Account.ROOT)
        for name, title, sees, probe in _FRAMES
    ),
    Vector(
        "dhcp.other-frame",
        "L2",
        "a DHCP-shaped frame by an account that is no DHCP client",
        "udp and src port 68 and udp[253:2] = {n}",
        _unprivileged(_dhcp),
        Account.ROOT,
    ),
    Vector(
        "dhcp.other-socket",
        "L1",
        "DHCP-shaped UDP by an ordinary account",
        "udp and src port 68 and udp[8:2] = {n}",
        _dhcp_socket_of_another,
        Account.ROOT,
    ),
    Vector("frame.xdp", "L3", "a frame by AF_XDP", SEES_UDP, _xdp, Account.ROOT, limit=True),
)
