"""Sockets that were made inside a run's network, and their way to the forwarder outside."""

from __future__ import annotations

import array
import socket
from typing import NamedTuple

_MOST = 16  # descriptors


class Inside(NamedTuple):
    """Sockets that were made inside the namespace.

    Attributes:
        listeners: take connections, one for each family.
        datagrams: take queries.
        streams: take queries over TCP.
        diagnosis: asks the kernel about sockets (sock_diag(7)).

    """

    listeners: tuple[socket.socket, ...]
    datagrams: tuple[socket.socket, ...]
    streams: tuple[socket.socket, ...]
    diagnosis: socket.socket

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """Each of them."""
        return (*self.listeners, *self.datagrams, *self.streams, self.diagnosis)


def hand_over(channel: socket.socket, inside: Inside) -> None:
    """Send the sockets to whoever has the other end, and close them here (unix(7), SCM_RIGHTS)."""
    numbers = array.array("i", [sock.fileno() for sock in inside.all])
    families = bytes([len(inside.listeners)])
    channel.sendmsg([families], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    for sock in inside.all:
        sock.close()


def receive(channel: socket.socket) -> Inside | None:
    """What `hand_over` has sent; None if the other end has ended without it."""
    numbers = array.array("i")
    room = socket.CMSG_SPACE(_MOST * numbers.itemsize)
    families, ancillary, _, _ = channel.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    if not families:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data)
    sockets = [socket.socket(fileno=number) for number in numbers]
    each = families[0]
    return Inside(
        tuple(sockets[:each]),
        tuple(sockets[each : 2 * each]),
        tuple(sockets[2 * each : 3 * each]),
        sockets[-1],
    )
