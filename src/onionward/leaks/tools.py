"""Sockets and raw sends that the themes share: what returns a probe, and what configures one."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import pwd
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onionward.leaks import packets
from onionward.leaks.model import Attempt, Probe, Sees

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
_LIBC = ctypes.CDLL(None, use_errno=True)


# -- what people see on the wire -------------------------------------------------------------------

_TCP_DATA = "((tcp[12] & 0xf0) >> 2)"

SEES_TCP = "tcp and src port {n}"
SEES_LETTER = f"{SEES_TCP} and tcp[{_TCP_DATA}:2] = {{n}}"
SEES_LETTER6 = "ip6[6] = 6 and ip6[40:2] = {n} and ip6[53] & 8 != 0"
SEES_UDP = "udp and src port {n}"
SEES_PING4 = "icmp[0] = 8 and icmp[4:2] = {n}"
SEES_PING6 = "icmp6 and ip6[40] = 128 and ip6[44:2] = {n}"


def sees_payload4(protocol: int) -> str:
    """An IPv4 packet of that protocol whose payload begins with the number."""
    return f"ip proto {protocol} and ip[20:2] = {{n}}"


def sees_payload6(protocol: int) -> str:
    """An IPv6 packet of that protocol whose payload begins with the number."""
    return f"ip6 and ip6[6] = {protocol} and ip6[40:2] = {{n}}"


def sees_asked(*, before: bytes = b"", upper: bool = False, over: str = "udp") -> Sees:
    """A query for the attempt's name, whoever sends it.

    Args:
        before: what stands in the question before the label that begins with the number's name.
        upper: whether the letters are upper case.
        over: "udp", "udp6" (UDP over IPv6), or "tcp".

    """

    def sees(attempt: Attempt) -> str:
        label = attempt.name.split(".")[0].encode()
        text = label.upper() if upper else label
        # the header of the query, and the length of the label
        start = 12 + len(before) + 1
        match over:
            case "udp":
                query, layer, place = "udp dst port 53", "udp", f"{8 + start}"
            case "udp6":
                query, layer, place = "ip6[6] = 17 and ip6[42:2] = 53", "ip6", f"{48 + start}"
            case _:
                # two bytes tell the length (RFC 1035, 4.2.2)
                query, layer, place = "tcp dst port 53", "tcp", f"{_TCP_DATA} + {2 + start}"
        words = [
            f"{layer}[{place} + {at}:{size}] = {int.from_bytes(text[at : at + size], 'big'):#x}"
            for at, size in ((0, 4), (4, 4), (8, 2), (10, 1))
        ]
        return " and ".join([query, *words])

    return sees


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


# -- the machine -----------------------------------------------------------------------------------


@contextlib.contextmanager
def owned_by(account: str) -> Iterator[None]:
    """Open sockets in that account's name while keeping root's rights.

    This is what a program with file capabilities, or one that was passed a socket, looks like to
    the packet filter.
    """
    # needed for socket addresses, and loaded from where the account may not be able to read
    codecs.lookup("idna")
    before = _LIBC.setfsuid(pwd.getpwnam(account).pw_uid)
    try:
        yield
    finally:
        _LIBC.setfsuid(before)


def run(*argv: str, stdin: str = "") -> str:
    """Run a tool of the system; the attempt fails as broken when it does."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def ip_batch(*lines: str) -> None:
    """Run several `ip` commands."""
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


_BUSY_SECONDS = 5.0


@contextlib.contextmanager
def device(name: str, *lines: str) -> Iterator[None]:
    """Create a device with these `ip` commands; it is deleted afterwards.

    A macvlan goes some time after the namespace it was in, and keeps its parent busy until then.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            ip_batch(*lines)
            break
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError):
                run("ip", "link", "delete", name)
            if "resource busy" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
    try:
        yield
    finally:
        # the other end of a veth may have gone with its namespace, and this one with it
        with contextlib.suppress(RuntimeError):
            run("ip", "link", "delete", name)


@contextlib.contextmanager
def sysctl(name: str, value: str) -> Iterator[None]:
    """Set a kernel parameter of this network namespace; it is put back afterwards."""
    path = Path("/proc/sys") / name
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


@contextlib.contextmanager
def foreign_table(family: str, name: str, rules: str) -> Iterator[None]:
    """Load somebody else's nftables table; it is deleted afterwards."""
    run("nft", "-f", "-", stdin=f"table {family} {name} {{\n{rules}\n}}\n")
    try:
        yield
    finally:
        run("nft", "delete", "table", family, name)


def new_network() -> None:
    """Give the calling process a network namespace of its own."""
    _unshare(0x40000000)


def new_user_namespace() -> None:
    """Give the calling process a user namespace of its own, in which it may do everything."""
    _unshare(0x10000000)


def _unshare(what: int) -> None:
    if _LIBC.unshare(what):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
