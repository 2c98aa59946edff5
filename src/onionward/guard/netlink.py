"""Netlink as the guard speaks it: sockets that do not wait, messages, attributes (netlink(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_LARGEST = 1 << 18
_BUFFER = 1 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class Message(NamedTuple):
    """One message: its type, and what follows the header."""

    kind: int
    body: bytes


def subscribed(family: int, groups: int) -> socket.socket:
    """A socket that hears of these groups of a family (netlink(7)) and does not wait."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    made.settimeout(0.0)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    made.bind((0, groups))
    return made


def received(sock: socket.socket) -> Iterator[bytes | None]:
    """Datagrams that wait; None stands for some that were lost."""
    while True:
        try:
            yield sock.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: more happened than the buffer holds
            yield None


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram."""
    place = 0
    while place + HEADER.size <= len(datagram):
        length, kind, _, _, _ = HEADER.unpack_from(datagram, place)
        if length < HEADER.size or place + length > len(datagram):
            return
        yield Message(kind, datagram[place + HEADER.size : place + length])
        place += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Values by type, the last one of each."""
    found = {}
    place = 0
    while place + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, place)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[place + 4 : place + length]
        place += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)
