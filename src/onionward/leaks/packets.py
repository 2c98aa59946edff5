"""Packets as bytes, for what no ordinary socket would send. Pure functions, network byte order."""

from __future__ import annotations

import ipaddress
import struct

UNSPECIFIED4 = "0.0.0.0"  # noqa: S104  written into packets
ETH_IP4 = 0x0800
ETH_ARP = 0x0806
ETH_IP6 = 0x86DD

HOP_BY_HOP = 0
ICMP = 1
IGMP = 2
IPIP = 4
TCP = 6
UDP = 17
DCCP = 33
IP6_IN_IP4 = 41
ROUTING = 43
FRAGMENT = 44
GRE = 47
ESP = 50
AH = 51
ICMP6 = 58
DESTINATION_OPTIONS = 60
OSPF = 89
PIM = 103
VRRP = 112
L2TP = 115
SCTP = 132
UDPLITE = 136
EXPERIMENT = 253

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _address(text: str) -> bytes:
    return ipaddress.ip_address(text.split("%")[0]).packed


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    ends = _address(source) + _address(target)
    if len(ends) == 8:
        return ends + struct.pack("!BBH", 0, protocol, length)
    return ends + struct.pack("!IHBB", length, 0, 0, protocol)


def mac(text: str) -> bytes:
    """A hardware address written with colons."""
    return bytes.fromhex(text.replace(":", ""))


def multicast_mac(group: str) -> str:
    """The Ethernet address of a multicast group (RFC 1112, RFC 2464)."""
    raw = _address(group)
    tail = bytes([0x33, 0x33, *raw[12:]]) if len(raw) == 16 else None
    return (tail or bytes([0x01, 0x00, 0x5E, raw[1] & 0x7F, raw[2], raw[3]])).hex(":")


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """An Ethernet II frame; a `kind` below 1536 makes it an 802.3 frame of that length."""
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def ip4(
    source: str,
    target: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    options: bytes = b"",
    identification: int = 0,
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet; `fragment` is the whole field of flags and offset."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4

    def header(check: int) -> bytes:
        return (
            struct.pack(
                "!BBHHHBBH",
                0x40 | words,
                0,
                words * 4 + len(payload),
                identification,
                fragment,
                ttl,
                protocol,
                check,
            )
            + _address(source)
            + _address(target)
            + options
        )

    return header(checksum(header(0))) + payload


def ip6(source: str, target: str, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """An IPv6 packet."""
    header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, hops)
    return header + _address(source) + _address(target) + payload


def ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An IP packet of the version that its addresses have."""
    version = ip6 if ":" in target else ip4
    return version(source, target, protocol, payload)


def ip6_extension(following: int, body: bytes) -> bytes:
    """An IPv6 extension header; `body` is padded to a whole number of eight bytes."""
    body += b"\0" * (-(len(body) + 2) % 8)
    return struct.pack("!BB", following, (len(body) + 2) // 8 - 1) + body


def ip6_fragment(following: int, identification: int, *, offset: int = 0, more: bool) -> bytes:
    """An IPv6 fragment header; `offset` in units of eight bytes."""
    return struct.pack("!BBHI", following, 0, offset << 3 | int(more), identification)


def udp(source: str, target: str, sport: int, dport: int, payload: bytes) -> bytes:
    """A UDP datagram with its checksum."""
    length = 8 + len(payload)
    blank = struct.pack("!HHHH", sport, dport, length, 0) + payload
    check = checksum(_pseudo(source, target, UDP, length) + blank) or 0xFFFF
    return struct.pack("!HHHH", sport, dport, length, check) + payload


def tcp(
    source: str,
    target: str,
    sport: int,
    dport: int,
    flags: int,
    *,
    sequence: int = 1000,
    acknowledge: int = 0,
    payload: bytes = b"",
    options: bytes = b"",
) -> bytes:
    """A TCP segment with its checksum."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4

    def header(check: int) -> bytes:
        return (
            struct.pack(
                "!HHIIBBHHH",
                sport,
                dport,
                sequence,
                acknowledge,
                words << 4,
                flags,
                64240,
                check,
                0,
            )
            + options
        )

    whole = header(0) + payload
    return header(checksum(_pseudo(source, target, TCP, len(whole)) + whole)) + payload


def icmp(kind: int, code: int, word: int, payload: bytes) -> bytes:
    """An ICMPv4 message; `word` is its second 32 bits (identifier and sequence of an echo)."""
    blank = struct.pack("!BBHI", kind, code, 0, word) + payload
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]


def icmp6(source: str, target: str, kind: int, code: int, word: int, payload: bytes) -> bytes:
    """An ICMPv6 message."""
    blank = struct.pack("!BBHI", kind, code, 0, word) + payload
    check = checksum(_pseudo(source, target, ICMP6, len(blank)) + blank)
    return blank[:2] + struct.pack("!H", check) + blank[4:]


def igmp_query(*, delay: int = 1) -> bytes:
    """An IGMPv3 general query; `delay` in tenths of a second."""

    def message(check: int) -> bytes:
        return struct.pack("!BBH4sBBH", 0x11, delay, check, b"", 2, 10, 0)

    return message(checksum(message(0)))


def dns_query(name: str, *, identification: int = 0x1994, kind: int = 1) -> bytes:
    """A recursive DNS query for one name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack("!HHHHHH", identification, 0x0100, 1, 0, 0, 0)
    return header + labels + struct.pack("!BHH", 0, kind, 1)


def dhcp_discover(hardware: str, note: bytes) -> bytes:
    """A DHCPDISCOVER; the note travels as the client's host name."""
    fixed = struct.pack("!BBBBIHH16x", 1, 1, 6, 0, 0x0E110ADD, 0, 0x8000)
    options = b"\x63\x82\x53\x63\x35\x01\x01" + bytes([12, len(note)]) + note + b"\xff"
    return fixed + mac(hardware) + b"\0" * 10 + b"\0" * 192 + options


def arp_request(hardware: str, source: str, target: str) -> bytes:
    """An ARP request, without its Ethernet header."""
    head = struct.pack("!HHBBH", 1, ETH_IP4, 6, 4, 1)
    return head + mac(hardware) + _address(source) + b"\0" * 6 + _address(target)
