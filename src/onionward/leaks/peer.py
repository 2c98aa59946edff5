"""The far end of flows: `python -m onionward.leaks.peer PORT CALLER ADDRESS…`.

It is what `themes/flows.py` calls the peer. It prints `ready`, and after each line `go` on
standard input does what its connections have asked for and prints `went`. It ends when standard
input does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onionward.leaks import packets
from onionward.leaks.tools import IPPROTO_MPTCP, abort

_ROOM = 4096  # a far end that reads nothing makes data stay in the sender's kernel


@dataclass
class _Connection:
    sock: socket.socket
    word: str = ""


class Peer:
    """Listens, remembers what it was asked for, does it when told."""

    def __init__(self, port: int, caller: str, addresses: Sequence[str]) -> None:
        self._port = port
        self._caller = caller
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        self._callers: list[tuple[socket.socket, tuple[str, int]]] = []
        self._finished: list[tuple[str, str, int]] = []
        for address in addresses:
            self._listen(address)

    def _listen(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        service = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        service.bind((address, self._port))
        service.listen(64)
        self._watch(service, lambda: self._accept(service))
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((address, self._port))
        self._watch(datagrams, lambda: self._answer(datagrams))

    def _watch(self, sock: socket.socket, act: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, act)

    def _accept(self, service: socket.socket) -> None:
        sock, _ = service.accept()
        connection = _Connection(sock)
        self._watch(sock, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        """Read one line; after it only the end of a connection that asked for a segment."""
        sock = connection.sock
        try:
            data = b""
            while not connection.word and not data.endswith(b"\n"):
                more = sock.recv(1)
                data += more
                if not more:
                    break
        except OSError:
            data = b""
        if connection.word == "segment":
            self._selector.unregister(sock)
            address, port = sock.getpeername()[:2]
            self._finished.append((sock.getsockname()[0], address, port))
            sock.close()
            return
        connection.word = data.decode().strip() or "hold"
        if connection.word != "segment":
            self._selector.unregister(sock)
        if connection.word == "close-now":
            sock.close()
        elif connection.word.startswith("call "):
            self._call(connection.word.split())
        else:
            self._connections.append(connection)

    def _call(self, words: Sequence[str]) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((self._caller, 0))
        sock.connect((words[1], int(words[2])))
        self._connections.append(_Connection(sock, "hold"))

    def _answer(self, datagrams: socket.socket) -> None:
        data, where = datagrams.recvfrom(2000)
        if data.strip() == b"speak":
            self._callers.append((datagrams, where))
        datagrams.sendto(b"heard\n", where)

    def go(self) -> None:
        """Do what was asked for, once."""
        for connection in self._connections:
            word, connection.word = connection.word, "done"
            with contextlib.suppress(OSError):
                if word == "speak":
                    connection.sock.send(b"the peer speaks\n")
                elif word == "close":
                    connection.sock.close()
                elif word == "reset":
                    abort(connection.sock)
        for sock, where in self._callers:
            with contextlib.suppress(OSError):
                sock.sendto(b"the peer speaks\n", where)
        for here, there, port in self._finished:
            self._send_segment(here, there, port)
        self._callers.clear()
        self._finished.clear()

    def _send_segment(self, here: str, there: str, port: int) -> None:
        flags = packets.FIN | packets.ACK
        body = packets.tcp(here, there, self._port, port, flags, sequence=7, acknowledge=7)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            sock.sendto(packets.ip4(here, there, packets.TCP, body), (there, 0))

    def serve(self) -> None:
        """Until standard input ends."""
        over = False

        def told() -> None:
            nonlocal over
            line = os.read(0, 100)
            over = not line
            if line:
                self.go()
                _say("went")

        self._selector.register(0, selectors.EVENT_READ, told)
        _say("ready")
        while not over:
            for key, _ in self._selector.select():
                key.data()


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    """Listen and serve."""
    Peer(int(argv[0]), argv[1], argv[2:]).serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
