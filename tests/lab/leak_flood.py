"""Send until standard input ends: `python leak_flood.py KIND TARGET DEVICE_MAC FAR_MAC`.

Each kind sends small bursts with a millisecond between them, at most for three minutes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator

from onionward.leaks import packets
from onionward.leaks.tools import abort

_LONGEST = 180.0
_BURST = 10
PORT = 4433


def _udp(target: str) -> Iterator[Callable[[], object]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            yield lambda: sock.sendto(b"flood", (target, PORT))


def _names(target: str) -> Iterator[Callable[[], object]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        query = packets.dns_query("flood.onionward.example")
        while True:
            yield lambda: sock.sendto(query, (target, 53))


def _tcp(target: str) -> Iterator[Callable[[], object]]:
    def connect() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(0)
        try:
            sock.connect((target, PORT))
        finally:
            time.sleep(0.002)
            abort(sock)

    while True:
        yield connect


def _ping(target: str) -> Iterator[Callable[[], object]]:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, packets.ICMP) as sock:
        request = packets.icmp(8, 0, 7, b"flood")
        while True:
            yield lambda: sock.sendto(request, (target, 0))


def _raw(target: str) -> Iterator[Callable[[], object]]:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, packets.EXPERIMENT) as sock:
        while True:
            yield lambda: sock.sendto(b"flood", (target, 0))


def _frames(_target: str) -> Iterator[Callable[[], object]]:
    own, far = sys.argv[3:5]
    data = packets.ethernet(own, far, 0x88B5, b"flood" * 12)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        while True:
            yield lambda: sock.send(data)


KINDS = {
    "udp": _udp,
    "names": _names,
    "tcp": _tcp,
    "ping": _ping,
    "raw": _raw,
    "frames": _frames,
}


def main() -> None:
    """Flood."""
    deadline = time.monotonic() + _LONGEST
    sends = KINDS[sys.argv[1]](sys.argv[2])
    for count, send in enumerate(sends):
        with contextlib.suppress(OSError):
            send()
        if count % _BURST:
            continue
        if select.select([0], [], [], 0.001)[0] or time.monotonic() > deadline:
            return


if __name__ == "__main__":
    main()
