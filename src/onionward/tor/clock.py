"""How far the machine's clock is off, by the word of relays, as tor's log has it; pure but `read`.

tor says it when a relay, a directory or a consensus has another time than the machine by more than
it takes for an accident, at its start and whenever it fetches a directory later.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from onionward.paths import Paths
from onionward.printable import printable
from onionward.tor import log

_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# of tor's log; what it says when the clock is set takes back what it has said before
_SKEWED = re.compile(
    r"\[warn\] Received (?P<what>.+?) with skewed time \((?P<source>[^)]*)\): It seems that our "
    r"clock is (?P<side>ahead|behind) by (?P<time>.+?), or that theirs"
    r"|system clock just jumped|tor\S* \S+ opening (?:new )?log file",
    re.IGNORECASE,
)
_KINDS = {"OR": "the relay", "DIRSERV": "the directory", "CONSENSUS": "the consensus"}


class Skew(NamedTuple):
    """How far the clock is off.

    Attributes:
        seconds: positive when it is ahead of the others.
        source: by whose word.

    """

    seconds: int
    source: str

    def words(self) -> str:
        """For people, with what to do."""
        side = "ahead" if self.seconds > 0 else "behind"
        return (
            f"{_duration(abs(self.seconds))} {side}, says {self.source}; set it: "
            "`date --set`, or a time server before `onionward up`, for NTP does not go through Tor"
        )


def _duration(seconds: int) -> str:
    for (unit, size), (smaller, small) in pairwise(_UNITS):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {smaller}"
    return f"{seconds} s"


def last(text: str) -> Skew | None:
    """What was said last, and not taken back since."""
    found = None
    for match in _SKEWED.finditer(text):
        found = match if match["side"] else None
    if found is None:
        return None
    seconds = sum(
        int(number) * _SECONDS[unit]
        for number, unit in re.findall(r"(\d+) (day|hour|minute|second)s?\b", found["time"])
    )
    kind, _, place = found["source"].partition(":")
    source = f"{_KINDS.get(kind, kind.lower())} {place}".strip()
    return Skew(seconds if found["side"] == "ahead" else -seconds, printable(source))


def read(paths: Paths) -> Skew | None:
    """What the log of onionward's tor says; None as well when there is none."""
    try:
        return last(log.end(paths))
    except OSError:
        return None
