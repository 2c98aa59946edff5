"""What the guard has seen and done: to the system's log, and for `status` in memory."""

from __future__ import annotations

import json
import os
import syslog
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from onionward.system import System

_MOST = 20


class Record:
    """The last things that happened, the same words only once, counted.

    Args:
        system: the seam.
        path: where `status` reads it.

    """

    def __init__(self, system: System, path: Path) -> None:
        self._system = system
        self._path = path
        self._since = time.time()
        self._events: dict[str, tuple[float, int]] = {}

    def add(self, words: str) -> None:
        """Something happened, or was done."""
        _, count = self._events.pop(words, (0.0, 0))
        self._events[words] = (time.time(), count + 1)
        while len(self._events) > _MOST:
            del self._events[next(iter(self._events))]
        # what somebody does over and over must not fill the log
        if (count + 1) & count == 0:
            often = f" ({count + 1} times)" if count else ""
            syslog.syslog(f"{words}{often}".encode(errors="backslashreplace").decode())
        self.write()

    def write(self) -> None:
        """Put it where `status` finds it, if there is still such a place."""
        events = [{"time": t, "words": w, "count": n} for w, (t, n) in self._events.items()]
        document = {"pid": os.getpid(), "since": self._since, "events": events}
        # no room for words is no reason to end
        with suppress(OSError):
            if self._path.parent.is_dir():
                self._system.write_file(self._path, json.dumps(document) + "\n", mode=0o600)


def load(path: Path) -> list[dict[str, Any]]:
    """What the guard has written, oldest first; nothing when it has not."""
    try:
        document = json.loads(path.read_text())
        events: list[dict[str, Any]] = document["events"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return events


def pid(path: Path) -> int:
    """The guard's process id as it has written it; 0 when it has not."""
    try:
        return int(json.loads(path.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
