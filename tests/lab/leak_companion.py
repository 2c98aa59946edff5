"""A program that talks without pause and counts: `leak_companion.py WEB4 WEB6 DNS4`.

It asks every 50 ms over UDP, DNS and, with root's rights, ping; it listens to the ticker of the web
server over TCP. It prints `ready` when all of them work, and when its input ends what came of it:
for each kind how many were `asked` and `answered`, or how many lines were `heard`, and the error
that ended it, or "".
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any, TextIO

_PAUSE = 0.05
_PATIENCE = 5.0
_TICKER, _ECHO = 13, 7


def _query(number: int) -> bytes:
    name = b"\x03www\x07example\x04test\0"
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)


def _ping(number: int) -> bytes:
    words = struct.pack("!BBHHH", 8, 0, 0, 0x7777, number)
    total = sum(struct.unpack("!4H", words))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return words[:2] + struct.pack("!H", check) + words[4:]


class Exchange:
    """Questions, and how many of them were answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asked = 0
        self.answered: set[int] = set()
        self.error = ""

    def ask(self, number: int) -> None:
        self.asked += 1
        try:
            self.sock.send(self.question(number))
        except OSError as error:
            self.error = self.error or str(error)

    def hear(self) -> None:
        try:
            number = self.number(self.sock.recv(2000))
        except OSError as error:
            self.error = self.error or str(error)
        else:
            if number is not None:
                self.answered.add(number)

    def question(self, number: int) -> bytes:
        return struct.pack("!H", number)

    def number(self, answer: bytes) -> int | None:
        return int(struct.unpack("!H", answer[:2])[0])

    def report(self) -> dict[str, Any]:
        return {"asked": self.asked, "answered": len(self.answered), "error": self.error}


class Names(Exchange):
    """Over DNS."""

    def question(self, number: int) -> bytes:
        return _query(number)


class Pings(Exchange):
    """By ping."""

    def question(self, number: int) -> bytes:
        return _ping(number)

    def number(self, answer: bytes) -> int | None:
        kind, _, _, identifier, number = struct.unpack("!BBHHH", answer[20:28])
        return int(number) if (kind, identifier) == (0, 0x7777) else None


class Ticker(Exchange):
    """A connection on which the server speaks."""

    def ask(self, number: int) -> None:
        del number

    def hear(self) -> None:
        try:
            data = self.sock.recv(2000)
        except OSError as error:
            self.error = self.error or str(error)
            return
        self.asked += 1
        self.answered.add(self.asked)
        if not data:
            self.error = self.error or "closed"


def _connected(
    kind: socket.SocketKind, address: str, port: int, protocol: int = 0
) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind, protocol)
    sock.settimeout(_PATIENCE)
    sock.connect((address, port))
    return sock


def main(web4: str, web6: str, dns4: str) -> None:
    """Until the input ends."""
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    exchanges: dict[str, Exchange] = {
        "tcp4": Ticker(_connected(stream, web4, _TICKER)),
        "tcp6": Ticker(_connected(stream, web6, _TICKER)),
        "udp4": Exchange(_connected(datagram, web4, _ECHO)),
        "udp6": Exchange(_connected(datagram, web6, _ECHO)),
        "dns": Names(_connected(datagram, dns4, 53)),
    }
    if os.geteuid() == 0:
        raw = _connected(socket.SOCK_RAW, web4, 0, socket.IPPROTO_ICMP)
        exchanges["ping"] = Pings(raw)
    by_socket = {exchange.sock: exchange for exchange in exchanges.values()}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    number, over, last = 0, False, 0.0
    # what was asked last is awaited, too
    while not over or time.monotonic() < last + 1.0:
        if not over and time.monotonic() > last + _PAUSE:
            number, last = number + 1, time.monotonic()
            for exchange in exchanges.values():
                exchange.ask(number)
        waiting: list[socket.socket | TextIO] = [*by_socket, *([] if over else [sys.stdin])]
        for ready in select.select(waiting, [], [], _PAUSE / 2)[0]:
            if isinstance(ready, socket.socket):
                by_socket[ready].hear()
            else:
                over = not sys.stdin.readline()
    json.dump({name: exchange.report() for name, exchange in exchanges.items()}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
