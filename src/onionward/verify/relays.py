"""Whom tor speaks to meanwhile: its connections, read again and again while probes run."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_PAUSE = 0.1  # seconds

Endpoint = tuple[str, int]


def of_account(lines: Iterable[str], uid: int) -> set[Endpoint]:
    """Far ends of an account's TCP sockets, out of /proc/net/tcp or tcp6 (proc_pid_net(5))."""
    found = set()
    for line in lines:
        words = line.split()
        if len(words) < 8 or not words[7].isdecimal() or int(words[7]) != uid:
            continue
        address, _, port = words[2].partition(":")
        far = ip_address(_address(address))
        if not far.is_loopback and not far.is_unspecified:
            found.add((str(far), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as the kernel prints it: 32-bit words in the machine's own order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET6 if len(words) == 4 else socket.AF_INET, raw)


def now(uid: int) -> set[Endpoint]:
    """Far ends of the account's connections in this network."""
    found: set[Endpoint] = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):
            found |= of_account(table.read_text().splitlines()[1:], uid)
    return found


@contextlib.contextmanager
def noted(uid: int) -> Iterator[set[Endpoint]]:
    """The same while the block runs; what is yielded grows."""
    found = now(uid)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_PAUSE):
            found.update(now(uid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
