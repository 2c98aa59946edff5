"""What a packet socket sees."""

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

TCP, UDP, ICMP, ICMP6, IGMP, HOP_BY_HOP = 6, 17, 1, 58, 2, 0
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
# as it is sent, and as the stand-ins answer it
_TOKEN = re.compile(rb"onionward([?!])([0-9a-f]{8})")
# reports and solicitations that the kernel sends for itself
_OF_THE_KERNEL = {ICMP6: (131, 132, 133, 135, 136, 143), IGMP: (0x16, 0x17, 0x22)}


ANSWERED = "!"


def token_of(data: bytes) -> str | None:
    """The mark that the tests write into all packets but the kernel's own of TCP."""
    found = _TOKEN.search(data)
    return None if found is None else f"onionward?{found[2].decode()}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet of IP, as far as the tests care.

    Attributes:
        protocol: number of the protocol, or of the Ethernet type when it is not IP.
        source: where from.
        to: destination.
        port: destination port of TCP and UDP.
        source_port: of TCP and UDP.
        kind: flags of TCP, type of ICMP.
        payload: what follows the header of IP.

    """

    protocol: int
    source: Address | None
    to: Address | None
    port: int | None
    source_port: int | None
    kind: int
    payload: bytes

    @property
    def token(self) -> str | None:
        """The mark of the tests in it, or in what it quotes."""
        return token_of(self.payload)

    @property
    def sequence(self) -> int:
        """The sequence number of TCP."""
        return int.from_bytes(self.payload[4:8])

    @property
    def is_of_the_kernel(self) -> bool:
        """Whether it is group membership or discovery, and nobody's packet."""
        return self.token is None and self.kind in _OF_THE_KERNEL.get(self.protocol, ())

    @property
    def code(self) -> int:
        """The code of ICMP."""
        return self.payload[1]

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error, which quotes a packet, or a redirect."""
        return (self.protocol == ICMP and self.kind in (3, 5, 11, 12)) or (
            self.protocol == ICMP6 and (self.kind < 128 or self.kind == 137)
        )

    @property
    def is_reset(self) -> bool:
        """Whether it resets a connection."""
        return self.protocol == TCP and bool(self.kind & _RST)

    @property
    def is_opened(self) -> bool:
        """Whether it is the second packet of a connection."""
        return self.protocol == TCP and self.kind & (_SYN | _ACK) == _SYN | _ACK

    @property
    def is_answer(self) -> bool:
        """Whether it is an error, a reset or another answer to a packet, which may quote it."""
        match self.protocol:
            case 6:
                return self.is_reset or self.is_opened
            case 17:
                found = _TOKEN.search(self.payload)
                return found is not None and found[1] == b"!"
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
        source: Address = ipaddress.IPv4Address(data[12:16])
        to: Address = ipaddress.IPv4Address(data[16:20])
    elif ether_type == _ETH_P_IPV6:
        protocol, rest = data[6], data[40:]
        source, to = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    else:
        return Frame(ether_type, None, None, None, None, 0, data)
    if protocol in (TCP, UDP):
        source_port, port = struct.unpack("!HH", rest[:4])
        kind = rest[13] if protocol == TCP else 0
        return Frame(protocol, source, to, port, source_port, kind, rest)
    if protocol == HOP_BY_HOP:  # of MLD
        protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    return Frame(protocol, source, to, None, None, rest[0] if rest else 0, rest)


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
