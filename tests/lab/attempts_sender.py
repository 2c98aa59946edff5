"""Programs that are stopped: `attempts_sender.py KIND ADDRESS PORT COUNT`. Runs inside, alone.

Sends, says "sent", and keeps its socket until its input ends. "nflog" takes the group instead.
"""

from __future__ import annotations

import contextlib
import socket
import sys

_KINDS = {
    "udp": (socket.SOCK_DGRAM, 0),
    "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "tcp": (socket.SOCK_STREAM, 0),
}


def _send(kind: str, address: str, port: int, count: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if kind == "frame":
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88CC))
        made.bind((address, 0))
        for _ in range(count):
            with contextlib.suppress(OSError):
                made.send(b"\xff" * 12 + b"\x88\xcc" + b"x" * 50)
        return made
    number, protocol = _KINDS[kind]
    made = socket.socket(family, number, protocol)
    for _ in range(count):
        with contextlib.suppress(OSError):
            if kind == "tcp":
                made.connect((address, port))
            else:
                made.sendto(b"\x08\x00\xf7\xfd\x00\x01\x00\x01", (address, port))
    return made


def main() -> None:
    kind, address, port, count = sys.argv[1:]
    if kind == "nflog":
        from onionward.attempts.listener import Listener

        kept: object = Listener()
    else:
        kept = _send(kind, address, int(port), int(count))
    sys.stdout.write("sent\n")
    sys.stdout.flush()
    sys.stdin.read()
    del kept


main()
