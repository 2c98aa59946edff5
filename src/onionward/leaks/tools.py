"""Sockets and raw sends that the themes share: what returns a probe, and what configures one."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from onionward.leaks import packets
from onionward.leaks.model import Attempt, Probe

Option = Callable[[socket.socket, Attempt], None]
Build = Callable[[Attempt], bytes]

# not in Python's socket module
IP_MTU_DISCOVER = 10
IP_PKTINFO = 8
IP_TRANSPARENT = 19
IP_UNICAST_IF = 50
IPPROTO_MPTCP = 262
IPV6_TRANSPARENT = 75
TCP_FASTOPEN_NO_COOKIE = 34
UDP_SEGMENT = 103
PACKET_QDISC_BYPASS = 20
SOL_PACKET = 263

_ANSWER_SECONDS = 0.25


# -- options of sockets ----------------------------------------------------------------------------


def bound(sock: socket.socket, attempt: Attempt) -> None:
    """Tie the socket to the uplink (SO_BINDTODEVICE)."""
    device = attempt.targets.device.encode() + b"\0"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)


def broadcast(sock: socket.socket, _attempt: Attempt) -> None:
    """Allow broadcast destinations."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


def multicast(sock: socket.socket, attempt: Attempt) -> None:
    """Send multicast by way of the uplink."""
    index = socket.if_nametoindex(attempt.targets.device)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        request = struct.pack("=4s4si", b"", b"", index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)


def by_interface(sock: socket.socket, attempt: Attempt) -> None:
    """Choose the uplink by its number (IP_UNICAST_IF)."""
    index = socket.htonl(socket.if_nametoindex(attempt.targets.device))
    sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, index)


def direct(sock: socket.socket, _attempt: Attempt) -> None:
    """Ask for no router (SO_DONTROUTE)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)


def marked(value: int) -> Option:
    """Set a packet mark (SO_MARK)."""

    def option(sock: socket.socket, _attempt: Attempt) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", value))

    return option


def hops(value: int) -> Option:
    """Set the time to live."""

    def option(sock: socket.socket, _attempt: Attempt) -> None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, value)

    return option


def ip_options(raw: bytes) -> Option:
    """Set IPv4 header options, such as a source route."""

    def option(sock: socket.socket, _attempt: Attempt) -> None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, raw)

    return option


def segment_route(by: str) -> Option:
    """Send by way of another host (IPV6_RTHDR with a segment routing header, RFC 8754)."""

    def option(sock: socket.socket, attempt: Attempt) -> None:
        # the first segment is last; the kernel writes the destination over the other one
        segments = bytes(16) + socket.inet_pton(socket.AF_INET6, attempt.address(by))
        header = struct.pack("!BBBBBBH", 0, len(segments) // 8, 4, 1, 1, 0, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header + segments)

    return option


def mapped(sock: socket.socket, _attempt: Attempt) -> None:
    """Let an IPv6 socket carry IPv4."""
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


# -- plain sockets ---------------------------------------------------------------------------------


def sockaddr(address: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Family and socket address of a numeric address, with its scope."""
    found = socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_DGRAM)
    family, _, _, _, where = found[0]
    return family, where


def open_socket(
    address: str,
    kind: socket.SocketKind,
    attempt: Attempt,
    options: tuple[Option, ...] = (),
    *,
    protocol: int = 0,
    port: int | None = None,
) -> socket.socket:
    """A socket for that address, from the attempt's own port unless another one is given."""
    family, _ = sockaddr(address, 0)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in options:
            option(sock, attempt)
        sock.bind(("", attempt.number if port is None else port))
    except BaseException:
        sock.close()
        raise
    return sock


def abort(sock: socket.socket) -> None:
    """Close without leaving the port in TIME_WAIT."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def connect(sock: socket.socket, address: str, port: int, seconds: float) -> bool:
    """Connect, waiting a moment for the answer; False when there was none.

    Raises:
        OSError: the connection was refused.

    """
    sock.settimeout(0)
    _, where = sockaddr(address, port)
    with contextlib.suppress(BlockingIOError):
        sock.connect(where)
    if not select.select([], [sock], [], seconds)[1]:
        return False
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    return True


def udp(to: str, port: int, *options: Option, payload: Build | None = None) -> Probe:
    """Send one datagram."""

    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        with open_socket(address, socket.SOCK_DGRAM, attempt, options) as sock:
            data = payload(attempt) if payload else attempt.payload
            sock.sendto(data, sockaddr(address, port)[1])

    return probe


def tcp(to: str, port: int, *options: Option, protocol: int = 0) -> Probe:
    """Connect and, when that works, send."""

    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        sock = open_socket(address, socket.SOCK_STREAM, attempt, options, protocol=protocol)
        try:
            if connect(sock, address, port, _ANSWER_SECONDS):
                sock.send(attempt.payload)
        finally:
            abort(sock)

    return probe


def ask(to: str, port: int = 53, *options: Option) -> Probe:
    """Send one DNS query over UDP."""
    return udp(to, port, *options, payload=lambda attempt: packets.dns_query(attempt.name))


def ping(to: str, *options: Option) -> Probe:
    """Send one echo request from a raw socket."""

    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        family, where = sockaddr(address, 0)
        word = attempt.number << 16 | 1
        six = family == socket.AF_INET6
        protocol = packets.ICMP6 if six else packets.ICMP
        kind = 128 if six else 8
        with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
            for option in options:
                option(sock, attempt)
            sock.sendto(packets.icmp(kind, 0, word, attempt.payload), where)

    return probe


# -- raw sends -------------------------------------------------------------------------------------


def raw(build: Build, *options: Option) -> Probe:
    """Send a whole IP packet as it is (IP_HDRINCL)."""

    def probe(attempt: Attempt) -> None:
        packet = build(attempt)
        six = packet[0] >> 4 == 6
        family = socket.AF_INET6 if six else socket.AF_INET
        target = socket.inet_ntop(family, packet[24:40] if six else packet[16:20])
        index = socket.if_nametoindex(attempt.targets.device) if six else 0
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for option in options:
                option(sock, attempt)
            scope = index if target.startswith(("fe80", "ff02")) else 0
            sock.sendto(packet, (target, 0, 0, scope) if six else (target, 0))

    return probe


def send_frame(data: bytes, device: str, *, bypass: bool = False, mark: int = 0) -> None:
    """Put one frame on a wire (AF_PACKET)."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        if bypass:
            sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.bind((device, 0))
        sock.send(data)


def frame(build: Build, *, bypass: bool = False, mark: int = 0) -> Probe:
    """Put one frame on the host's uplink (AF_PACKET)."""

    def probe(attempt: Attempt) -> None:
        send_frame(build(attempt), attempt.targets.device, bypass=bypass, mark=mark)

    return probe


def from_wire(*builds: Build) -> Probe:
    """Put IP packets on the wire towards the host, one after the other."""

    def probe(attempt: Attempt) -> None:
        targets = attempt.targets
        for build in builds:
            packet = build(attempt)
            six = packet[0] >> 4 == 6
            target = packet[24:40] if six else packet[16:20]
            group = target[0] == 0xFF if six else target[0] & 0xF0 == 0xE0
            family = socket.AF_INET6 if six else socket.AF_INET
            hardware = targets.device_mac
            if group:
                hardware = packets.multicast_mac(socket.inet_ntop(family, target))
            elif target == b"\xff\xff\xff\xff":
                hardware = "ff:ff:ff:ff:ff:ff"
            kind = packets.ETH_IP6 if six else packets.ETH_IP4
            send_frame(
                packets.ethernet(targets.far_mac, hardware, kind, packet), targets.far_device
            )

    return probe
