"""Packets that root writes by hand: protocols without sockets, forged sources, odd segments."""

from __future__ import annotations

import socket
import struct

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Needs, Probe, Vector
from onionward.leaks.sights import SEES_PING4, SEES_TCP, SEES_UDP, sees_payload4, sees_payload6
from onionward.leaks.tools import Build, abort, open_socket, raw

_FORGED4 = "198.18.99.9"
_FORGED6 = "2001:db8:99::9"
_TCP_REPAIR = 19


def _protocol4(protocol: int, *, to: str = "stranger4") -> Build:
    def build(attempt: Attempt) -> bytes:
        return packets.ip4(
            attempt.targets.host4, attempt.address(to), protocol, attempt.payload, ttl=5
        )

    return build


def _protocol6(protocol: int) -> Build:
    def build(attempt: Attempt) -> bytes:
        return packets.ip6(
            attempt.targets.host6, attempt.targets.stranger6, protocol, attempt.payload
        )

    return build


def _segment(flags: int, *, to: str = "web4", source: str = "", payload: bool = False) -> Build:
    def build(attempt: Attempt) -> bytes:
        there = attempt.address(to)
        here = source or (attempt.targets.host6 if ":" in there else attempt.targets.host4)
        port = attempt.targets.relay[1] if to == "relay" else 80
        data = attempt.payload if payload else b""
        segment = packets.tcp(here, there, attempt.number, port, flags, acknowledge=7, payload=data)
        return packets.ip(here, there, packets.TCP, segment)

    return build


def _datagram(*, to: str = "web4", source: str = "", port: int = 4433) -> Build:
    def build(attempt: Attempt) -> bytes:
        there = attempt.address(to)
        own = attempt.targets.host6 if ":" in there else attempt.targets.host4
        here = attempt.address(source) if source else own
        datagram = packets.udp(here, there, attempt.number, port, attempt.payload)
        return packets.ip(here, there, packets.UDP, datagram)

    return build


def _icmp(kind: int, code: int = 0, *, source: str = "", about: Build | None = None) -> Build:
    def build(attempt: Attempt) -> bytes:
        here, there = source or attempt.targets.host4, attempt.targets.stranger4
        inner = about(attempt) if about else attempt.payload
        word = 0 if about else attempt.number << 16
        return packets.ip4(here, there, packets.ICMP, packets.icmp(kind, code, word, inner))

    return build


def _fragment4(offset: int, *, more: bool) -> Build:
    def build(attempt: Attempt) -> bytes:
        field = offset | (0x2000 if more else 0)
        return packets.ip4(
            attempt.targets.host4,
            attempt.targets.stranger4,
            packets.UDP,
            attempt.payload,
            fragment=field,
            identification=attempt.number,
        )

    return build


def _fragment6(attempt: Attempt) -> bytes:
    header = packets.ip6_fragment(packets.UDP, attempt.number, offset=8, more=False)
    return packets.ip6(
        attempt.targets.host6,
        attempt.targets.stranger6,
        packets.FRAGMENT,
        header + attempt.payload,
    )


def _extended6(kind: int, body: bytes) -> Build:
    def build(attempt: Attempt) -> bytes:
        here, there = attempt.targets.host6, attempt.targets.stranger6
        datagram = packets.udp(here, there, attempt.number, 4433, attempt.payload)
        header = packets.ip6_extension(packets.UDP, body)
        return packets.ip6(here, there, kind, header + datagram)

    return build


def _neighbour_shaped(kind: int, to: str, *, hops: int = 255) -> Build:
    """Neighbour discovery's outside with something else inside, to somewhere else."""

    def build(attempt: Attempt) -> bytes:
        here, there = attempt.targets.host6, attempt.address(to)
        target = socket.inet_pton(socket.AF_INET6, there)
        message = packets.icmp6(here, there, kind, 0, attempt.number << 16, target)
        return packets.ip6(here, there, packets.ICMP6, message, hops=hops)

    return build


def _mld(attempt: Attempt) -> bytes:
    here = "::"
    group = socket.inet_pton(socket.AF_INET6, "ff05::114")
    message = packets.icmp6(here, "ff05::114", 131, 0, attempt.number << 16, group)
    return packets.ip6(here, "ff05::114", packets.ICMP6, message, hops=1)


def _dhcp_shaped(to: str) -> Build:
    def build(attempt: Attempt) -> bytes:
        here, there = attempt.targets.host4, attempt.address(to)
        return packets.ip4(
            here, there, packets.UDP, packets.udp(here, there, 68, 67, attempt.payload)
        )

    return build


def _repaired(to: str, port: int) -> Probe:
    """A connection restored from a checkpoint: without a handshake and without conntrack."""

    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        sock = open_socket(address, socket.SOCK_STREAM, attempt)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            sock.connect((address, port))
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
            sock.send(attempt.payload)
        finally:
            abort(sock)

    return probe


_SHAPES = (
    ("ipip", packets.IPIP, "IP in IP"),
    ("sixinfour", packets.IP6_IN_IP4, "IPv6 in IPv4 (6to4, Teredo's kin)"),
    ("gre", packets.GRE, "GRE"),
    ("esp", packets.ESP, "IPsec ESP"),
    ("ah", packets.AH, "IPsec AH"),
    ("sctp", packets.SCTP, "SCTP"),
    ("dccp", packets.DCCP, "DCCP"),
    ("l2tp", packets.L2TP, "L2TP"),
    ("experiment", packets.EXPERIMENT, "a protocol number nobody uses"),
)

_GROUP_SHAPES = (
    ("ospf", packets.OSPF, "OSPF", "224.0.0.5"),
    ("pim", packets.PIM, "PIM", "224.0.0.13"),
    ("vrrp", packets.VRRP, "VRRP", "224.0.0.18"),
    ("igmp", packets.IGMP, "IGMP by hand", "224.0.0.22"),
)

_SEGMENTS = (
    ("syn", packets.SYN, "a SYN"),
    ("syn-ack", packets.SYN | packets.ACK, "a SYN/ACK"),
    ("ack", packets.ACK, "an ACK"),
    ("fin", packets.FIN | packets.ACK, "a FIN"),
    ("rst", packets.RST, "an RST"),
    ("rst-ack", packets.RST | packets.ACK, "an RST/ACK"),
    ("push", packets.PSH | packets.ACK, "data"),
    ("null", 0, "no flag at all"),
    ("xmas", packets.FIN | packets.PSH | packets.URG, "FIN, PSH and URG"),
)


def _rows() -> list[tuple[str, str, str, str, Build]]:
    rows: list[tuple[str, str, str, str, Build]] = []
    for name, number, title in _SHAPES:
        rows += [
            (f"raw.{name}4", "U1", title, sees_payload4(number), _protocol4(number)),
            (f"raw.{name}6", "V6", f"{title} over IPv6", sees_payload6(number),
             _protocol6(number)),
        ]  # fmt: skip
    for name, number, title, group in _GROUP_SHAPES:
        rows.append(
            (f"raw.{name}", "L1", title, sees_payload4(number), _protocol4(number, to=group))
        )
    for name, flags, title in _SEGMENTS:
        rows += [
            (f"raw.tcp-{name}", "U1", f"TCP out of nowhere: {title}", SEES_TCP,
             _segment(flags, payload=bool(flags & packets.PSH))),
            (f"spoof.tcp-{name}", "S1", f"TCP from a forged address: {title}", SEES_TCP,
             _segment(flags, source=_FORGED4)),
        ]  # fmt: skip
    return rows


_ODD: tuple[tuple[str, str, str, str, Build], ...] = (
    ("raw.tcp6-ack", "V6", "TCP out of nowhere over IPv6", "ip6[6] = 6 and ip6[40:2] = {n}",
     _segment(packets.ACK, to="web6")),
    ("raw.relay", "T2", "a forged segment to a Tor relay", SEES_TCP,
     _segment(packets.PSH | packets.ACK, to="relay", payload=True)),
    ("raw.udp4", "U1", "UDP by hand", SEES_UDP, _datagram()),
    ("raw.udp6", "V6", "UDP by hand over IPv6", SEES_UDP, _datagram(to="web6")),
    ("spoof.udp4", "S1", "UDP from a forged address", SEES_UDP, _datagram(source=_FORGED4)),
    ("spoof.udp6", "S1", "UDP over IPv6 from a forged address", SEES_UDP, _datagram(to="web6",
     source=_FORGED6)),
    ("spoof.dns", "S1", "DNS from a forged address", SEES_UDP,
     _datagram(source=_FORGED4, port=53)),
    ("spoof.loopback", "S1", "UDP from 127.0.0.1", SEES_UDP, _datagram(source="127.0.0.1")),
    ("spoof.neighbour", "S1", "UDP in a neighbour's name", SEES_UDP,
     _datagram(source="neighbour4")),
    ("spoof.ping", "S1", "ping from a forged address", SEES_PING4, _icmp(8, source=_FORGED4)),
    ("raw.ping-reply", "U1", "an echo reply nobody asked for", "icmp[0] = 0 and icmp[4:2] = {n}",
     _icmp(0)),
    ("raw.timestamp", "U1", "ICMP timestamp request", "icmp[0] = 13 and icmp[4:2] = {n}",
     _icmp(13)),
    ("raw.icmp-error", "U1", "an ICMP error made by hand", "icmp[0] = 3 and icmp[28:2] = {n}",
     _icmp(3, 3, about=_datagram())),
    ("raw.icmp-about-tor", "U1", "an ICMP error about a flow to a relay",
     "icmp[0] = 3 and icmp[28:2] = {n}",
     _icmp(3, 3, about=_segment(packets.ACK, to="relay"))),
    ("raw.fragment-first", "U1", "a first fragment",
     "ip[4:2] = {n} and ip[6:2] = 0x2000", _fragment4(0, more=True)),
    ("raw.fragment-last", "U1", "a last fragment alone",
     "ip[4:2] = {n} and ip[6:2] = 100",
     _fragment4(100, more=False)),
    ("raw.fragment6", "V6", "an IPv6 fragment alone", "ip6[6] = 44 and ip6[46:2] = {n}",
     _fragment6),
    ("raw.hop-by-hop", "V6", "IPv6 with a hop-by-hop header", "ip6[6] = 0 and ip6[48:2] = {n}",
     _extended6(packets.HOP_BY_HOP, b"\x01\x04\0\0\0\0")),
    ("raw.destination", "V6", "IPv6 with destination options",
     "ip6[6] = 60 and ip6[48:2] = {n}",
     _extended6(packets.DESTINATION_OPTIONS, b"\x01\x04\0\0\0\0")),
    ("raw.routing", "V6", "IPv6 with a routing header", "ip6[6] = 43 and ip6[48:2] = {n}",
     _extended6(packets.ROUTING, struct.pack("!BBI", 253, 0, 0))),
    ("raw.nd-solicit", "L1", "neighbour solicitation to a host far away",
     "icmp6 and ip6[40] = 135 and ip6[44:2] = {n}", _neighbour_shaped(135, "stranger6")),
    ("raw.nd-advert", "L1", "neighbour advertisement to a host far away",
     "icmp6 and ip6[40] = 136 and ip6[44:2] = {n}", _neighbour_shaped(136, "stranger6")),
    ("raw.nd-hops", "L1", "neighbour solicitation with another hop limit",
     "icmp6 and ip6[40] = 135 and ip6[44:2] = {n}",
     _neighbour_shaped(135, "neighbour6", hops=64)),
    ("raw.nd-redirect", "L1", "an ICMPv6 redirect", "icmp6 and ip6[40] = 137 and ip6[44:2] = {n}",
     _neighbour_shaped(137, "neighbour6")),
    ("raw.router-solicit", "L1", "router solicitation by hand",
     "icmp6 and ip6[40] = 133 and ip6[44:2] = {n}", _neighbour_shaped(133, "ff02::2")),
    ("raw.router-advert", "L1", "router advertisement by hand",
     "icmp6 and ip6[40] = 134 and ip6[44:2] = {n}", _neighbour_shaped(134, "ff02::1")),
    ("raw.mld", "L1", "MLD report by hand", "icmp6 and ip6[40] = 131 and ip6[44:2] = {n}", _mld),
    ("raw.dhcp-stranger", "L1", "DHCP-shaped UDP of root's to a host far away",
     "udp and src port 68 and udp[8:2] = {n}", _dhcp_shaped("stranger4")),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(name, family, title, sees, raw(build), Account.ROOT)
        for name, family, title, sees, build in (*_rows(), *_ODD)
    ),
    Vector(
        "raw.repaired",
        "C1",
        "a TCP connection restored from a checkpoint goes on",
        SEES_TCP,
        _repaired("web4", 80),
        Account.ROOT,
    ),
    Vector(
        "bypass.repaired-dns",
        "D1",
        "a restored connection to the DNS of a bypassed LAN goes on",
        SEES_TCP,
        _repaired("neighbour4", 53),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
)
