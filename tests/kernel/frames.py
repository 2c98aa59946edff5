"""What a packet socket sees, and stand-ins for tor that say what reached them."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from onionward.networks import Address

_ETH_P_ALL = 0x0003
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_PACKET_OUTGOING = 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_TOKEN = re.compile(rb"onionward\?[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet of IP, as far as the tests care.

    Attributes:
        protocol: number of the protocol, or of the Ethernet type when it is not IP.
        to: destination.
        port: destination port of TCP and UDP.
        source_port: of TCP and UDP.
        kind: flags of TCP, type of ICMP.
        payload: what follows the header of IP.

    """

    protocol: int
    to: Address | None
    port: int | None
    source_port: int | None
    kind: int
    payload: bytes

    @property
    def token(self) -> str | None:
        """The mark that the tests write into all packets but the kernel's own of TCP."""
        found = _TOKEN.search(self.payload)
        return found[0].decode() if found else None

    @property
    def is_answer(self) -> bool:
        """Whether it is an error, a reset or another answer to a packet, which may quote it."""
        match self.protocol:
            case 6:
                return bool(self.kind & _RST) or self.kind & (_SYN | _ACK) == _SYN | _ACK
            case 1:
                return self.kind in (0, 3, 14)
            case 58:
                return self.kind in (1, 129)
            case _:
                return False


def parse(ether_type: int, data: bytes) -> Frame:
    """A frame without its Ethernet header."""
    if ether_type == _ETH_P_IP:
        protocol, rest = data[9], data[(data[0] & 0xF) * 4 :]
        to: Address = ipaddress.IPv4Address(data[16:20])
    elif ether_type == _ETH_P_IPV6:
        protocol, rest = data[6], data[40:]
        to = ipaddress.IPv6Address(data[24:40])
    else:
        return Frame(ether_type, None, None, None, 0, data)
    if protocol in (TCP, UDP):
        source_port, port = struct.unpack("!HH", rest[:4])
        return Frame(protocol, to, port, source_port, rest[13] if protocol == TCP else 0, rest)
    return Frame(protocol, to, None, None, rest[0] if rest else 0, rest)


class Tap:
    """Everything that arrives at a device; made in the namespace of the device."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.setblocking(False)

    def arrived(self) -> Iterator[Frame]:
        """Frames since the last time."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self._socket.recvfrom(65536)
                if source[2] != _PACKET_OUTGOING:
                    yield parse(source[1], data)
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        assert struct.unpack("II", statistics)[1] == 0, "the witness has lost frames"

    def close(self) -> None:
        self._socket.close()


class StandIn:
    """TransPort and DNSPort of both families; made in the namespace of the machine."""

    def __init__(self, trans_port: int, dns_port: int) -> None:
        self._listeners = [
            socket.create_server((host, trans_port), family=family, backlog=1024)
            for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
        ]
        self._resolvers = [
            socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)
        ]
        for resolver, host in zip(self._resolvers, ("127.0.0.1", "::1"), strict=True):
            resolver.bind((host, dns_port))
        for each in (*self._listeners, *self._resolvers):
            each.setblocking(False)

    def connected(self) -> Iterator[tuple[int, Address, int]]:
        """Port of the program, address and port that it wanted."""
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, peer = listener.accept()
                    with connection:
                        yield peer[1], *_original(connection)

    def asked(self) -> Iterator[str]:
        """Tokens of the queries that came; each is answered."""
        for resolver in self._resolvers:
            with contextlib.suppress(BlockingIOError):
                while True:
                    query, peer = resolver.recvfrom(100)
                    with contextlib.suppress(OSError):  # the port of the asker may be closed
                        resolver.sendto(query.replace(b"?", b"!"), peer)
                    yield query.decode()

    def close(self) -> None:
        for each in (*self._listeners, *self._resolvers):
            each.close()


def _original(connection: socket.socket) -> tuple[Address, int]:
    """Where a redirected connection was to go, as tor asks for it."""
    if connection.family == socket.AF_INET:
        raw = connection.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16)
        return ipaddress.IPv4Address(raw[4:8]), int.from_bytes(raw[2:4])
    raw = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
    return ipaddress.IPv6Address(raw[8:24]), int.from_bytes(raw[2:4])
