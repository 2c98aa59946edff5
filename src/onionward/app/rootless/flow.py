"""One connection of the command and its stream through tor: two ends that are never waited for.

Bytes that one end sends go to the other at once; what that one does not take is kept, and nothing
more is read until it has (at most `PIECE` bytes for each direction). Data that the command sends
goes to tor right behind the request (socks-extensions.txt, optimistic data), so a request and its
answer take one round trip through Tor where a SOCKS client needs two.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import sys
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from onionward.app.rootless import socks
from onionward.errors import TorError

PIECE = 256 * 1024
HALF_CLOSED_PATIENCE = 5.0
"""Seconds of silence after which a connection that the command has half closed is closed."""

_EARLY = 64 * 1024  # what may be sent before tor has connected: tor keeps it all in memory
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset (socket(7))
_SIOCOUTQ = 0x5411  # tcp(7)
_GONE = select.EPOLLERR | select.EPOLLHUP


class Loop(Protocol):
    """Who waits for descriptors."""

    buffer: memoryview

    def watch(self, descriptor: int, mask: int | None, act: Callable[[int], None]) -> None:
        """Call `act` with what happens to a descriptor; None ends that."""

    def is_closed(self, flow: Flow) -> bool:
        """Whether the command has closed its socket, and not only one direction of it."""

    def half_closed(self, flow: Flow) -> None:
        """Call `Flow.tick` now and then."""

    def done(self, flow: Flow) -> None:
        """The connection is over."""


class Stage(Enum):
    """How far tor is with a stream."""

    GREETED = 0
    ASKED = 1
    OPEN = 2


class End:
    """One of the two sockets, with what it has not taken yet.

    Args:
        loop: who waits.
        sock: not blocking.
        act: what is called with events.
        always: whether it is watched while nothing is wanted of it, because the kernel tells then
            only that it is gone. (Of a Unix socket it tells what is not read yet, again and again.)

    """

    __slots__ = ("act", "always", "ended", "loop", "mask", "paused", "shut", "sock", "unsent")

    def __init__(
        self, loop: Loop, sock: socket.socket, act: Callable[[int], None], *, always: bool
    ) -> None:
        self.loop, self.sock, self.act, self.always = loop, sock, act, always
        self.mask: int | None = None
        self.unsent = b""
        self.ended = False  # it will send nothing more
        self.shut = False  # it is sent nothing more
        self.paused = False  # it is not read from

    def send(self, data: bytes | memoryview) -> None:
        """Send, and keep what the socket does not take.

        Raises:
            OSError: the other side is gone.

        """
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.unsent = bytes(data[sent:])

    def flush(self) -> None:
        """Send what was kept, as much as it takes; errors as `send`."""
        kept, self.unsent = self.unsent, b""
        self.send(kept)

    def finish(self) -> None:
        """Tell it that nothing more comes, once all is sent."""
        if not self.shut and not self.unsent:
            self.shut = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def update(self) -> None:
        """Wait for what can be done now."""
        reading = 0 if self.ended or self.paused else select.EPOLLIN
        mask: int | None = reading | (select.EPOLLOUT if self.unsent else 0)
        if not mask and not self.always:
            mask = None
        if mask != self.mask:
            self.mask = mask
            self.loop.watch(self.sock.fileno(), mask, self.act)

    def close(self, *, reset: bool = False) -> None:
        """Forget it."""
        if self.mask is not None:
            self.mask = None
            self.loop.watch(self.sock.fileno(), None, self.act)
        if reset:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


class Flow:
    """A connection and its stream.

    Args:
        loop: who waits.
        client: the command's connection, as the listener took it.
        tor: connected to tor's SOCKS port.
        request: credentials and request, sent when the greeting has been answered.
        ends: address and port of the command's socket, and where it wanted to go.

    """

    __slots__ = (
        "_client",
        "_early",
        "_gone",
        "_head",
        "_heard",
        "_loop",
        "_request",
        "_server",
        "_stage",
        "ends",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        tor: socket.socket,
        request: bytes,
        ends: tuple[tuple[str, int], tuple[str, int]],
    ) -> None:
        self._loop = loop
        self._client = End(loop, client, self._on_client, always=True)
        self._server = End(loop, tor, self._on_server, always=False)
        self._request = request
        self.ends = ends
        self._stage = Stage.GREETED
        self._head = b""
        self._early = 0
        self._gone = False  # the command has closed its socket
        self._heard = 0.0  # when tor sent something last, while half closed
        self._client.paused = True
        self._server.send(socks.GREETING)
        self._update()

    @property
    def is_owed(self) -> bool:
        """Whether the command has sent something that tor has not got yet."""
        return not self._server.shut and not self._server.ended

    def tick(self, now: float) -> bool:
        """A half-closed connection: whether it has to be looked at again.

        Tor cannot close one direction of a stream: when it is told, the other one ends, too. So it
        is told when no answer comes any more.
        """
        if self._server.shut:
            return False
        if self._heard == 0.0:
            self._heard = now
        if now - self._heard < HALF_CLOSED_PATIENCE:
            return True
        self._server.finish()
        self._update()
        return not self._server.shut

    def abort(self) -> None:
        """End both at once, the command's with a reset."""
        self._client.close(reset=True)
        self._server.close()
        self._loop.done(self)

    def _update(self) -> None:
        self._client.update()
        self._server.update()

    def _on_client(self, events: int) -> None:
        try:
            if events & _GONE and not events & select.EPOLLIN:
                self._client_is_gone(events)
                return
            if events & select.EPOLLOUT:
                self._client.flush()
                if not self._client.unsent:
                    self._server.paused = False
                    if self._server.ended:
                        self._end_of_server()
            if events & select.EPOLLIN:
                self._read_client()
            if self._client.sock.fileno() >= 0:
                self._update()
        except OSError:
            self.abort()

    def _client_is_gone(self, events: int) -> None:
        if events & select.EPOLLERR or not self._client.shut:
            self.abort()
        else:
            self._over()

    def _over(self) -> None:
        self._client.close()
        self._server.close()
        self._loop.done(self)

    def _read_client(self) -> None:
        try:
            size = self._client.sock.recv_into(self._loop.buffer)
        except BlockingIOError:
            return
        if size == 0:
            self._end_of_client()
        elif self._server.ended or self._server.shut:
            # nobody wants it: say so, unless that would destroy what is on its way to the command
            if not _unacknowledged(self._client.sock):
                self.abort()
        else:
            self._server.send(self._loop.buffer[:size])
            if self._stage is not Stage.OPEN:
                self._early += size
            self._client.paused = bool(self._server.unsent) or (
                self._stage is not Stage.OPEN and self._early >= _EARLY
            )

    def _end_of_client(self) -> None:
        self._client.ended = True
        if self._server.ended:
            if not self._client.unsent:
                self._over()
            return
        self._gone = self._loop.is_closed(self)
        if self._gone:
            self._client.unsent = b""
            self._server.paused = False
            self._end_of_sending()
        else:
            self._loop.half_closed(self)

    def _end_of_sending(self) -> None:
        # before tor has connected it would throw away what was sent
        if self._stage is Stage.OPEN:
            self._server.finish()

    def _on_server(self, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._server.flush()
                if not self._server.unsent:
                    self._client.paused = self._stage is Stage.GREETED
                    if self._gone:
                        self._end_of_sending()
            if events & (select.EPOLLIN | _GONE):
                self._read_server()
            if self._client.sock.fileno() >= 0:
                self._update()
        except (OSError, TorError):
            self.abort()

    def _read_server(self) -> None:
        try:
            size = self._server.sock.recv_into(self._loop.buffer)
        except BlockingIOError:
            return
        if size == 0:
            self._server.ended = True
            if self._stage is not Stage.OPEN:
                self.abort()
            elif self._gone:
                self._over()
            elif not self._client.unsent:
                self._end_of_server()
        elif self._stage is Stage.OPEN:
            self._pass_on(self._loop.buffer[:size])
        else:
            self._head += self._loop.buffer[:size]
            self._negotiate()

    def _end_of_server(self) -> None:
        self._client.finish()
        if self._client.ended:
            self._over()

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._heard = 0.0
        if not self._gone:
            self._client.send(data)
            self._server.paused = bool(self._client.unsent)

    def _negotiate(self) -> None:
        """Go on with what tor has said until now.

        Raises:
            TorError: it refuses, or is no tor.

        """
        if self._stage is Stage.GREETED:
            if len(self._head) < len(socks.CHOSEN):
                return
            if not self._head.startswith(socks.CHOSEN):
                raise TorError(f"tor's SOCKS port refuses: {self._head[:2].hex()}")
            self._head = self._head[len(socks.CHOSEN) :]
            self._stage = Stage.ASKED
            self._server.send(self._request)
            self._client.paused = False
        # tor may leave out the answer to the credentials when the request came with them
        if self._head[:1] == b"\x01":
            self._head = self._head[socks.accepted(self._head) :]
        answer = socks.reply(self._head)
        if answer is None:
            return
        if answer.status:
            self.abort()
            return
        self._stage = Stage.OPEN
        self._client.paused = bool(self._server.unsent)
        rest, self._head = self._head[answer.length :], b""
        if rest:
            self._pass_on(rest)
        if self._gone:
            self._end_of_sending()


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent and that the other side does not have yet."""
    return int.from_bytes(fcntl.ioctl(sock, _SIOCOUTQ, bytes(4)), sys.byteorder)
