"""The witness itself: it sees every frame from the host, tells what is exempt, and nothing else.

internet ── host0 (witness) ── eth0 host (frames by AF_PACKET)
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onionward.errors import LabError
from onionward.lab import Lab
from onionward.leaks import packets
from onionward.leaks.wire import Capture, Exempt, Witness

HOST, FAR, ALL = "02:00:00:00:00:02", "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"
HERE4, RELAY = "198.18.0.2", ("198.18.2.1", 9001)
HERE6 = "2001:db8::2"
EXEMPT = Exempt(relays=(RELAY,), networks6=("2001:db8::/64",))
SEND = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sock.bind(("eth0", 0))
for line in sys.stdin:
    sock.send(bytes.fromhex(line))
"""


def tcp(target: str, port: int) -> bytes:
    body = packets.tcp(HERE4, target, 20000, port, packets.SYN)
    return ethernet4(packets.ip4(HERE4, target, packets.TCP, body))


def ethernet4(packet: bytes, to: str = FAR) -> bytes:
    return packets.ethernet(HOST, to, packets.ETH_IP4, packet)


def discovery(kind: int, target: str, hops: int = 255) -> bytes:
    body = packets.icmp6(HERE6, target, kind, 0, 0, bytes(16))
    packet = packets.ip6(HERE6, target, packets.ICMP6, body, hops=hops)
    return packets.ethernet(HOST, FAR, packets.ETH_IP6, packet)


def dhcp(source: str, target: str) -> bytes:
    body = packets.udp(source, target, 68, 67, packets.dhcp_discover(HOST, b"x"))
    return ethernet4(packets.ip4(source, target, packets.UDP, body), ALL)


# in nobody's name: the router would believe it
ARP = packets.arp_request(HOST, "198.18.0.99", "198.18.0.3")
ALLOWED = {
    "arp": packets.ethernet(HOST, ALL, packets.ETH_ARP, ARP),
    "solicitation of a group": discovery(135, "ff02::1:ff00:3"),
    "solicitation of a neighbour": discovery(135, "2001:db8::3"),
    "advertisement to a router": discovery(136, "fe80::1"),
    "dhcp": dhcp(packets.UNSPECIFIED4, "255.255.255.255"),
    "tcp to a relay": tcp(*RELAY),
}
ESCAPES = {
    "arp with a letter": packets.ethernet(HOST, ALL, packets.ETH_ARP, ARP + bytes(400)),
    "solicitation of a stranger": discovery(135, "2001:db8:66::6"),
    "solicitation from afar": discovery(135, "2001:db8::3", hops=64),
    "router solicitation": discovery(133, "ff02::2"),
    "dhcp to a stranger": dhcp(HERE4, "198.18.66.6"),
    "tcp to a relay's other port": tcp(RELAY[0], 80),
    "tcp to somebody else": tcp("198.18.80.1", RELAY[1]),
    "an ethertype nobody uses": packets.ethernet(HOST, FAR, 0x88B5, b"x" * 50),
    "802.3": packets.ethernet(HOST, FAR, 40, b"\x42\x42\x03" + b"x" * 37),
    "a vlan": packets.ethernet(HOST, FAR, 0x8100, b"\x00\x07\x08\x06" + ARP),
}


@pytest.fixture(scope="module")
def capture(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    internet = lab.hosts["internet"]
    directory = tmp_path_factory.mktemp("wire")
    witness = Witness(lab.host_link, directory, namespace=internet.pid)
    frames = [*ALLOWED.values(), *ESCAPES.values()]
    with witness.watch("frames") as taken:
        send(lab, frames)
    return taken


def send(lab: Lab, frames: list[bytes]) -> None:
    argv = lab.hosts["host"].command(["python3", "-c", SEND])
    text = "".join(frame.hex() + "\n" for frame in frames)
    subprocess.run(argv, input=text, text=True, check=True, timeout=20)


def test_every_frame_is_seen_once(capture: Capture) -> None:
    assert capture.count(f"ether src {HOST}") == len(ALLOWED) + len(ESCAPES)


def test_what_is_exempt_is_no_escape(capture: Capture) -> None:
    assert capture.count(f"ether src {HOST} and ({EXEMPT.filter()})") == len(ALLOWED)


def test_everything_else_is_an_escape(capture: Capture) -> None:
    assert capture.count(f"ether src {HOST} and ({EXEMPT.escaped()})") == len(ESCAPES)


def test_without_relays_no_tcp_is_exempt(capture: Capture) -> None:
    assert capture.count(f"ether src {HOST} and tcp and ({Exempt().escaped()})") == 3


def test_packets_count_from_a_moment_on(capture: Capture) -> None:
    every = capture.packets(f"ether src {HOST}")
    assert capture.count(f"ether src {HOST}", since=every[-1].time) >= 1
    assert capture.count(f"ether src {HOST}", since=every[-1].time + 1) == 0


def test_a_burst_is_taken_whole_up_to_the_last_frame(lab: Lab, tmp_path: Path) -> None:
    witness = Witness(lab.host_link, tmp_path, namespace=lab.hosts["internet"].pid)
    burst = [
        packets.ethernet(HOST, FAR, 0x88B5, number.to_bytes(46, "big")) for number in range(5000)
    ]
    with witness.watch("burst") as taken:
        send(lab, burst)
    assert taken.count("ether proto 0x88b5") == len(burst)


def test_a_first_frame_is_not_lost(lab: Lab, tmp_path: Path) -> None:
    witness = Witness(lab.host_link, tmp_path, namespace=lab.hosts["internet"].pid)
    for turn in range(5):
        with witness.watch("first") as taken:
            send(lab, [ESCAPES["an ethertype nobody uses"]])
        assert taken.count("ether proto 0x88b5") == 1, f"turn {turn}"


def test_a_device_that_is_not_there_is_an_error(lab: Lab, tmp_path: Path) -> None:
    witness = Witness("nowhere0", tmp_path, namespace=lab.hosts["internet"].pid)
    with pytest.raises(LabError, match="does not capture"), witness.watch("nowhere"):
        pass


def test_a_filter_that_tcpdump_does_not_know_is_an_error(capture: Capture) -> None:
    with pytest.raises(LabError, match="does not understand"):
        capture.count("nonsense and nonsense")
