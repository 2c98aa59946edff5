"""What the guard has been told, for whoever reads it: `status` and `watch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

FORMAT = 1
"""Of the file."""


class Attempt(NamedTuple):
    """What somebody tried, and how often.

    Attributes:
        reason: why it was stopped: "refused", "spoofed", "invalid", "escaped", "forwarded",
            "strangers".
        uid: of the account that tried; None when the kernel knew none, or it came from elsewhere.
        program: its name, or "" when it was not found.
        unit: of systemd, or "".
        client: address of the client or container it came from; "" when this machine sent it.
        interface: where that came in; "" when this machine sent it.
        protocol: as `packet.Packet` has it.
        address: where it was to go; "" without IP.
        port: there, or the type of an ICMP message; None without.
        times: packets that were told; the rules tell ten a second, and count all.
        first: seconds since the epoch of the first.
        last: of the last.

    """

    reason: str
    uid: int | None
    program: str
    unit: str
    client: str
    interface: str
    protocol: str
    address: str
    port: int | None
    times: int
    first: float
    last: float


class Attempts(NamedTuple):
    """All that is remembered.

    Attributes:
        attempts: the latest last.
        lost: how often the kernel had more to tell than fitted.

    """

    attempts: tuple[Attempt, ...] = ()
    lost: int = 0


def read(path: Path) -> Attempts:
    """What the guard has written; nothing when it has not."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            return Attempts()
        return Attempts(tuple(Attempt(*one) for one in document["attempts"]), document["lost"])
    except (OSError, ValueError, KeyError, TypeError):
        return Attempts()
