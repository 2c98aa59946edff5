"""A quick look at tor over its control socket: how far it is, through whom it goes.

`status` asks for three lines and has no time for a library (control-spec, GETINFO).
"""

from __future__ import annotations

import re
from _socket import AF_UNIX, SOCK_STREAM, socket
from collections.abc import Iterable
from typing import NamedTuple

from onionward.paths import Paths
from onionward.printable import printable

_PATIENCE = 0.5  # seconds
_MOST = 1 << 20
_WANTED = b"GETINFO status/bootstrap-phase circuit-status\r\nQUIT\r\n"
_CIRCUIT = re.compile(r"^\d+ BUILT (\S+)(.*)$", re.MULTILINE)
# circuits for traffic; those of onion services end at no exit
_PURPOSES = ("PURPOSE=GENERAL", "PURPOSE=CONFLUX_LINKED")
_INNER = ("IS_INTERNAL", "ONEHOP_TUNNEL")


class Glance(NamedTuple):
    """What tor says.

    Attributes:
        percent: how far its bootstrap is, 0 to 100; None when it does not answer.
        phase: in its words.
        guards: first relays of its circuits for traffic: nickname, or fingerprint without one.
        exits: the last relays.
        circuits: how many there are.

    """

    percent: int | None = None
    phase: str = ""
    guards: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    circuits: int = 0


def look(paths: Paths) -> Glance:
    """Ask it; nothing is known of one that does not answer in half a second."""
    try:
        cookie = paths.control_cookie.read_bytes().hex()
        client = socket(AF_UNIX, SOCK_STREAM)
        try:
            client.settimeout(_PATIENCE)
            client.connect(str(paths.control_socket))
            client.sendall(f"AUTHENTICATE {cookie}\r\n".encode() + _WANTED)
            answer = _all(client)
        finally:
            client.close()
    except OSError:
        return Glance()
    return parse(answer)


def _all(client: socket) -> str:
    parts: list[bytes] = []
    while sum(map(len, parts)) < _MOST and (part := client.recv(1 << 16)):
        parts.append(part)
    return b"".join(parts).decode(errors="replace").replace("\r\n", "\n")


def parse(answer: str) -> Glance:
    """What the answer says."""
    progress = re.search(r"bootstrap-phase=\S+ BOOTSTRAP PROGRESS=(\d+)", answer)
    summary = re.search(r'bootstrap-phase=.*SUMMARY="((?:[^"\\]|\\.)*)"', answer)
    paths = [
        hops.split(",")
        for hops, rest in _CIRCUIT.findall(answer)
        if any(word in rest for word in _PURPOSES) and not any(word in rest for word in _INNER)
    ]
    return Glance(
        percent=int(progress[1]) if progress else None,
        phase=printable(summary[1]) if summary else "",
        guards=_names(path[0] for path in paths),
        exits=_names(path[-1] for path in paths),
        circuits=len(paths),
    )


def _names(hops: Iterable[str]) -> tuple[str, ...]:
    # $FINGERPRINT~nickname
    return tuple(dict.fromkeys(hop.partition("~")[2] or hop.lstrip("$") for hop in hops))
