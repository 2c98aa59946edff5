"""Packets as bytes, held against scapy's reading of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from onionward.leaks import packets

HERE4, THERE4 = "198.18.0.2", "198.18.80.1"
HERE6, THERE6 = "2001:db8::2", "2001:db8:80::1"


def rebuilt(packet: Packet, *layers: type[Packet]) -> bytes:
    """The same packet with every checksum and length computed by scapy."""
    for layer in layers:
        for field in ("chksum", "cksum", "len", "plen"):
            if field in packet[layer].fields:
                del packet[layer].fields[field]
    return bytes(packet)


@given(st.binary(max_size=64))
def test_udp_has_the_right_lengths_and_checksums(data: bytes) -> None:
    raw = packets.ip4(HERE4, THERE4, packets.UDP, packets.udp(HERE4, THERE4, 20001, 53, data))
    parsed = IP(raw)
    assert (parsed[UDP].sport, parsed[UDP].dport) == (20001, 53)
    assert bytes(parsed[UDP].payload) == data
    assert rebuilt(parsed, IP, UDP) == raw


def test_udp_over_ipv6_has_the_right_checksum() -> None:
    body = packets.udp(HERE6, THERE6, 20001, 443, b"odd")
    raw = packets.ip6(HERE6, THERE6, packets.UDP, body)
    assert rebuilt(IPv6(raw), IPv6, UDP) == raw


@pytest.mark.parametrize("flags", range(64))
def test_tcp_carries_its_flags(flags: int) -> None:
    body = packets.tcp(HERE4, THERE4, 20001, 80, flags, options=b"\x02\x04\x05\xb4", payload=b"x")
    raw = packets.ip4(HERE4, THERE4, packets.TCP, body)
    parsed = IP(raw)
    assert int(parsed[TCP].flags) == flags
    assert bytes(parsed[TCP].payload) == b"x"
    assert rebuilt(parsed, IP, TCP) == raw


def test_the_word_of_an_echo_is_its_identifier_and_sequence() -> None:
    raw = packets.ip4(HERE4, THERE4, packets.ICMP, packets.icmp(8, 0, 20001 << 16 | 7, b"x"))
    parsed = IP(raw)
    assert (parsed[ICMP].id, parsed[ICMP].seq) == (20001, 7)
    assert rebuilt(parsed, IP, ICMP) == raw


def test_icmp6_has_the_right_checksum() -> None:
    body = packets.icmp6(HERE6, THERE6, 128, 0, 20001 << 16 | 7, b"x")
    raw = packets.ip6(HERE6, THERE6, packets.ICMP6, body)
    parsed = IPv6(raw)
    assert parsed[ICMPv6EchoRequest].id == 20001
    assert rebuilt(parsed, IPv6, ICMPv6EchoRequest) == raw


def test_options_are_padded_to_words() -> None:
    raw = packets.ip4(HERE4, THERE4, packets.UDP, b"", options=b"\x07\x03\x04")
    assert IP(raw).ihl == 6


def test_a_fragment_says_where_it_belongs() -> None:
    header = packets.ip6_fragment(packets.UDP, 20001, offset=8, more=True)
    parsed = IPv6(packets.ip6(HERE6, THERE6, packets.FRAGMENT, header + bytes(8)))
    fragment = parsed[IPv6ExtHdrFragment]
    assert (fragment.nh, fragment.id, fragment.offset, fragment.m) == (17, 20001, 8, 1)


@pytest.mark.parametrize("size", range(20))
def test_extension_headers_are_whole_words(size: int) -> None:
    header = packets.ip6_extension(packets.UDP, bytes(size))
    assert len(header) == 8 * (header[1] + 1)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("224.0.0.251", "01:00:5e:00:00:fb"),
        ("239.255.255.250", "01:00:5e:7f:ff:fa"),
        ("ff02::1:ff00:7", "33:33:ff:00:00:07"),
    ],
)
def test_groups_have_their_hardware_addresses(group: str, expected: str) -> None:
    assert packets.multicast_mac(group) == expected


def test_a_frame_begins_with_its_destination() -> None:
    raw = packets.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", 0x88B5, b"x")
    parsed = Ether(raw)
    assert (parsed.src, parsed.dst, parsed.type) == (
        "02:00:00:00:00:01",
        "02:00:00:00:00:02",
        0x88B5,
    )
