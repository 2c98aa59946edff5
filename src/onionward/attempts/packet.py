"""What the kernel tells of a stopped packet (linux/netfilter/nfnetlink_log.h)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from onionward.guard.netlink import attributes

_IN, _OUT, _PAYLOAD, _PREFIX, _UID = 4, 5, 9, 10, 11
_PACKET_HEADER = 1
_NETDEV = 5  # NFPROTO_NETDEV
_ETHERNET = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
# hop-by-hop, routing, fragment, destination options, authentication (RFC 8200, RFC 4302)
_EXTENSIONS = frozenset({0, 43, 44, 60, 51})
_FRAGMENT, _AUTHENTICATION = 44, 51
_WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_ICMP = {1: "icmp", 58: "ipv6-icmp"}


class Packet(NamedTuple):
    """A packet that was stopped.

    Attributes:
        reason: the counter it is in: "refused", "spoofed", "invalid", "escaped", "forwarded",
            "strangers".
        uid: of the account whose socket sent it; None where there is none, or another machine.
        interface: where it came in, or was to leave; "" when neither is known.
        arrived: whether it came in there.
        protocol: "tcp", "udp", "icmp", "ipv6-icmp", another protocol's number, or "0x…", the type
            of a frame that is not IP.
        source: address, or "" without IP.
        source_port: port, or identifier of an ICMP echo request; None without.
        destination: address, or "".
        port: of the destination, or the type of an ICMP message; None without.

    """

    reason: str
    uid: int | None
    interface: str
    arrived: bool
    protocol: str
    source: str = ""
    source_port: int | None = None
    destination: str = ""
    port: int | None = None


def read(body: bytes) -> Packet | None:
    """A message of the group, from its second header (struct nfgenmsg) on; None: not understood."""
    found = attributes(body[4:])
    header, payload = found.get(_PACKET_HEADER, b""), found.get(_PAYLOAD, b"")
    if len(body) < 4 or len(header) < 2:
        return None
    kind = int.from_bytes(header[:2])
    arrived = _IN in found
    number = int.from_bytes(found.get(_IN) or found.get(_OUT) or b"")
    uid = int.from_bytes(found[_UID]) if _UID in found else None
    # a frame begins with addresses of the link, where the link has any
    if body[0] == _NETDEV and payload[12:14] == header[:2]:
        payload = payload[_ETHERNET:]
    packet = Packet(
        reason=_text(found.get(_PREFIX, b"")),
        uid=uid,
        interface=_name_of(number),
        arrived=arrived,
        protocol=f"{kind:#06x}",
    )
    try:
        if kind == _IPV4:
            return _ipv4(packet, payload)
        if kind == _IPV6:
            return _ipv6(packet, payload)
    except (IndexError, struct.error, ValueError):
        return packet
    return packet


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", errors="replace")


def _name_of(number: int) -> str:
    try:
        name = socket.if_indextoname(number) if number else ""
    except OSError:
        return ""  # it has gone
    return name if name.isprintable() else ascii(name)[1:-1]


def _ipv4(packet: Packet, data: bytes) -> Packet:
    length = (data[0] & 0xF) * 4
    offset = int.from_bytes(data[6:8]) & 0x1FFF
    ends = _ends(socket.AF_INET, data[12:16], data[16:20])
    return _transport(packet, data[9], b"" if offset else data[length:], ends)


def _ipv6(packet: Packet, data: bytes) -> Packet:
    ends = _ends(socket.AF_INET6, data[8:24], data[24:40])
    protocol, place = data[6], 40
    while protocol in _EXTENSIONS and place + 8 <= len(data):
        if protocol == _FRAGMENT and int.from_bytes(data[place + 2 : place + 4]) >> 3:
            return _transport(packet, data[place], b"", ends)
        units = data[place + 1]
        length = 8 if protocol == _FRAGMENT else (units + 1) * 8
        length = (units + 2) * 4 if protocol == _AUTHENTICATION else length
        protocol, place = data[place], place + length
    return _transport(packet, protocol, data[place:], ends)


def _ends(family: int, source: bytes, destination: bytes) -> tuple[str, str]:
    return socket.inet_ntop(family, source), socket.inet_ntop(family, destination)


def _transport(packet: Packet, protocol: int, data: bytes, ends: tuple[str, str]) -> Packet:
    name = _WITH_PORTS.get(protocol) or _ICMP.get(protocol) or str(protocol)
    source_port: int | None = None
    port: int | None = None
    if protocol in _WITH_PORTS and len(data) >= 4:
        source_port, port = struct.unpack_from("!HH", data)
    elif protocol in _ICMP and data:
        port = data[0]
        is_echo = (protocol, port) in ((1, 8), (58, 128)) and len(data) >= 6
        source_port = int.from_bytes(data[4:6]) if is_echo else None
    return packet._replace(
        protocol=name,
        source=ends[0],
        source_port=source_port,
        destination=ends[1],
        port=port,
    )
