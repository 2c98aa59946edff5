"""The name server of a rootless run: answers from the table of names, and asks tor for the rest."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from onionward.app.rootless import names, socks
from onionward.errors import TorError
from onionward.networks import Address

if TYPE_CHECKING:
    from onionward.app.rootless.forwarder import Forwarder

_LARGEST = 4096
_AT_ONCE = 64
_MOST_STREAMS = 64
_MOST_QUESTIONS = 64

Send = Callable[[bytes], None]


class NameServer:
    """Answers over UDP and TCP.

    Args:
        loop: who waits, knows the names and connects to tor.
        datagrams: bound.
        streams: listening.

    """

    def __init__(
        self,
        loop: Forwarder,
        datagrams: tuple[socket.socket, ...],
        streams: tuple[socket.socket, ...],
    ) -> None:
        self._loop = loop
        self._streams = 0
        self._questions = 0
        for sock in datagrams:
            loop.watch(sock.fileno(), select.EPOLLIN, partial(self._read, sock))
        for sock in streams:
            loop.watch(sock.fileno(), select.EPOLLIN, partial(self._accept, sock))

    def _read(self, sock: socket.socket, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, source = sock.recvfrom(_LARGEST)
            except OSError:  # nothing more, or a complaint about an earlier answer
                return

            def send(answer: bytes, source: tuple[str, int] = source) -> None:
                try:
                    sock.sendto(answer, source)
                except OSError:  # who asked is gone
                    return

            self.answer(message, send)

    def answer(self, message: bytes, send: Send) -> None:
        """Answer a query, now or when tor has."""
        query = names.read(message)
        if query is None:
            return
        if isinstance(query, bytes):
            send(query)
            return
        answer = names.answer(query, self._loop.names)
        if isinstance(answer, bytes):
            send(answer)
        elif self._questions < _MOST_QUESTIONS:
            self._ask(query, answer, send)
        else:
            send(names.refuse(query, names.Code.SERVER_FAILURE))

    def _ask(self, query: names.Query, address: Address, send: Send) -> None:
        def finish(answer: bytes) -> None:
            self._questions -= 1
            send(answer)

        failure = names.refuse(query, names.Code.SERVER_FAILURE)
        nothing = names.refuse(query, names.Code.NO_SUCH_NAME)

        def found(name: str) -> None:
            # what an exit says may be no host name
            try:
                finish(names.named(query, name) if name else nothing)
            except (UnicodeError, ValueError):
                finish(nothing)

        self._questions += 1
        try:
            _Question(self._loop, address, found, lambda: finish(failure))
        except OSError:
            finish(failure)

    def _accept(self, sock: socket.socket, _events: int) -> None:
        try:
            client, _ = sock.accept()
        except OSError:
            return
        if self._streams >= _MOST_STREAMS:
            client.close()
            return
        self._streams += 1
        _Stream(self._loop, client, self)

    def closed(self) -> None:
        """One of the connections is over."""
        self._streams -= 1


class _Question:
    """RESOLVE_PTR on a connection of its own."""

    def __init__(
        self,
        loop: Forwarder,
        address: Address,
        found: Callable[[str], None],
        failed: Callable[[], None],
    ) -> None:
        self._loop, self._found, self._failed = loop, found, failed
        self._received = b""
        self._request: bytes | None = loop.credentials + socks.resolve_ptr(address)
        self._tor = loop.connected(4)
        self._tor.send(socks.GREETING)
        loop.watch(self._tor.fileno(), select.EPOLLIN, self._act)

    def _act(self, _events: int) -> None:
        try:
            data = self._tor.recv(_LARGEST)
            if not data:
                raise TorError("tor has closed the connection")
            self._received += data
            answer = self._go_on()
        except (OSError, TorError):
            self._close()
            self._failed()
            return
        if answer is not None:
            self._close()
            self._found("" if answer.status else answer.name)

    def _go_on(self) -> socks.Reply | None:
        if self._request is not None:
            if len(self._received) < len(socks.CHOSEN):
                return None
            if not self._received.startswith(socks.CHOSEN):
                raise TorError("tor's SOCKS port refuses")
            self._received = self._received[len(socks.CHOSEN) :]
            self._tor.send(self._request)
            self._request = None
        if self._received[:1] == b"\x01":
            self._received = self._received[socks.accepted(self._received) :]
        return socks.reply(self._received)

    def _close(self) -> None:
        self._loop.watch(self._tor.fileno(), None, self._act)
        self._tor.close()


class _Stream:
    """Queries over TCP (RFC 1035, 4.2.2; RFC 7766), answered as they come."""

    def __init__(self, loop: Forwarder, client: socket.socket, server: NameServer) -> None:
        self._loop, self._client, self._server = loop, client, server
        self._received = b""
        client.settimeout(0)
        loop.watch(client.fileno(), select.EPOLLIN, self._act)

    def _act(self, _events: int) -> None:
        try:
            data = self._client.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        self._received += data
        while len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if length > _LARGEST:
                self._close()
                return
            if len(self._received) < 2 + length:
                return
            message, self._received = self._received[2 : 2 + length], self._received[2 + length :]
            self._server.answer(message, self._send)

    def _send(self, answer: bytes) -> None:
        if self._client.fileno() < 0:
            return
        try:
            sent = self._client.send(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            sent = -1
        if sent != 2 + len(answer):  # who does not read its answers gets no more
            self._close()

    def _close(self) -> None:
        if self._client.fileno() >= 0:
            self._loop.watch(self._client.fileno(), None, self._act)
            self._client.close()
            self._server.closed()
