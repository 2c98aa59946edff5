"""A run's connection to the keeper of runs, which is started when there is none."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from onionward.app.root.places import RUNTIME, SOCKET
from onionward.errors import RefusedError, StepError

if TYPE_CHECKING:
    from onionward.app.request import Request

_PATIENCE = 30.0  # seconds for a keeper to be there; tor's are the keeper's own
_LONGEST = 4096
_TRIES = 3
_ABSENT = (errno.ENOENT, errno.ECONNREFUSED)


class Place(NamedTuple):
    """Where a run is to be.

    Attributes:
        number: of its addresses and device.
        namespace: descriptor of the network namespace to join; -1 when it makes one.
        ipv6: whether there is IPv6.
        virtual: networks of .onion names.

    """

    number: int
    namespace: int
    ipv6: bool
    virtual: tuple[str, ...]


class Call:
    """A connection to the keeper; the run lives as long as it is open."""

    def __init__(self) -> None:
        self._socket = _connected()

    def fileno(self) -> int:
        """Of the connection."""
        return self._socket.fileno()

    def begin(self, request: Request, uid: int, tell: Callable[[str], None]) -> Place:
        """Ask for a place.

        Args:
            request: what was typed.
            uid: the run's account.
            tell: told how far tor is.

        Raises:
            StepError: there is none; with the keeper's reason.
            RefusedError: the configuration is wrong, and nothing was touched.

        """
        circuits = "new" if request.new_circuits else ""
        words = ("run", request.name, str(uid), circuits, request.config)
        asked = os.fsencode("\t".join(words))
        self._socket.send(asked)
        left = _TRIES
        while True:
            said, descriptors = self._heard()
            word, *fields = said.split("\t")
            if word == "tor":
                tell(fields[0])
            elif word == "go":
                return Place(int(fields[0]), -1, fields[1] == "1", tuple(fields[2:]))
            elif word == "join" and descriptors:
                return Place(int(fields[0]), descriptors[0], ipv6=False, virtual=())
            elif word == "refused":
                raise RefusedError(*fields)
            elif word == "failed":
                raise StepError(*fields)
            elif left:
                # that one has ended meanwhile; another one is started
                left -= 1
                self._socket.close()
                self._socket = _connected()
                self._socket.send(asked)
            else:
                raise StepError("the keeper of runs ends whenever it is asked", "see the log")

    def made(self, namespace: int) -> None:
        """Tell that the network namespace is there, and hand it over."""
        passed = [(SOL_SOCKET, SCM_RIGHTS, array("i", [namespace]))]
        self._socket.sendmsg([b"made"], passed)

    def again(self, request: Request, uid: int, number: int, namespace: int) -> None:
        """Have another keeper, which is started, know of this run."""
        self._socket.close()
        self._socket = _connected()
        words = f"again\t{request.name}\t{uid}\t{number}\t{request.config}"
        self._socket.send(os.fsencode(words))
        self.made(namespace)

    def adopt(self, descriptor: int) -> None:
        """Go on with a connection that another process has made with `again`."""
        self._socket.close()
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, descriptor)

    def close(self) -> None:
        """Hang up; nothing ties the run to a keeper any more."""
        self._socket.close()

    def _heard(self) -> tuple[str, tuple[int, ...]]:
        try:
            said, ancillary, _, _ = self._socket.recvmsg(_LONGEST, CMSG_LEN(4))
        except ConnectionResetError:
            said, ancillary = b"", []
        numbers = array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        return said.decode(errors="replace"), tuple(numbers)


def _connected() -> socket:
    deadline = time.monotonic() + _PATIENCE
    started = False
    while True:
        connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        try:
            connection.connect(SOCKET)
        except OSError as error:
            connection.close()
            if error.errno not in _ABSENT:
                raise
        else:
            return connection
        if time.monotonic() > deadline:
            raise StepError("the keeper of runs does not answer", f"its socket: {SOCKET}")
        if not started:
            from onionward.app.root import starting

            starting.start()
            started = True
        time.sleep(0.01)


def end_if_idle() -> bool:
    """Have a keeper end that has no run; returns whether there are runs, which it goes on for."""
    if not os.path.isdir(RUNTIME):  # noqa: PTH112  # pathlib takes long
        return False
    with contextlib.suppress(OSError):
        # one that was killed has left things, which another one takes back
        connection = _connected()
        connection.send(b"end")
        # it hangs up when it is done
        return bool(connection.recv(_LONGEST))
    return False
