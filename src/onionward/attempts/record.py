"""Attempts, added up in bounded memory; in a file in /run, which is memory, too.

Who wanted to reach whom is a secret of its own. Only root can read it, it ends with `down` or a
reboot, and nothing of it is on disk unless the configuration names a file.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from onionward.attempts.known import FORMAT, Attempt
from onionward.attempts.owners import Owner
from onionward.attempts.packet import Packet
from onionward.system import System

_MOST = 512
_MOST_OF_SENDER = 64  # so that one who tries everything does not push the others out
_EVERY = 1.0  # seconds between two writings


class Record:
    """Adds up.

    Args:
        system: the seam.
        path: where `status` and `watch` read it.
        complain: told when the log cannot be written.
        now: seconds since the epoch.
        clock: seconds of a clock that nobody sets.

    """

    def __init__(
        self,
        system: System,
        path: Path,
        complain: Callable[[str], None],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._system = system
        self._path = path
        self._complain = complain
        self._now = now
        self._clock = clock
        self._attempts: OrderedDict[tuple[object, ...], Attempt] = OrderedDict()
        self._of_senders: dict[object, int] = {}
        self._lost = 0
        self._is_new = False
        self._next = 0.0
        self.log: Path | None = None
        """A file on disk that gets a line for every attempt; None: nothing is on disk."""

    def add(self, packet: Packet, owner: Owner | None) -> None:
        """One more packet was stopped."""
        now = self._now()
        fresh = _attempt(packet, owner, now)
        key = fresh[:9]
        known = self._attempts.pop(key, None)
        kept = fresh if known is None else known._replace(times=known.times + 1, last=now)
        if known is None:
            self._make_room(_sender(fresh))
        self._attempts[key] = kept
        self._is_new = True
        # what somebody does over and over must not fill a disk
        if self.log is not None and kept.times & (kept.times - 1) == 0:
            try:
                self._system.append(self.log, json.dumps(kept._asdict()) + "\n", mode=0o600)
            except OSError as error:
                self._complain(f"attempts are not on disk: {error}")

    def lose(self) -> None:
        """The kernel had more to tell than fitted."""
        self._lost += 1
        self._is_new = True

    def _make_room(self, sender: object) -> None:
        if self._of_senders.get(sender, 0) >= _MOST_OF_SENDER:
            self._forget(next(key for key, a in self._attempts.items() if _sender(a) == sender))
        elif len(self._attempts) >= _MOST:
            self._forget(next(iter(self._attempts)))
        self._of_senders[sender] = self._of_senders.get(sender, 0) + 1

    def _forget(self, key: tuple[object, ...]) -> None:
        sender = _sender(self._attempts.pop(key))
        self._of_senders[sender] -= 1
        if not self._of_senders[sender]:
            del self._of_senders[sender]

    def patience(self) -> float | None:
        """Seconds until there is something to write; None: nothing is new."""
        return max(0.0, self._next - self._clock()) if self._is_new else None

    def write(self) -> None:
        """Put what is new where others find it, once a second at most."""
        if not self._is_new or self._clock() < self._next:
            return
        self._is_new = False
        self._next = self._clock() + _EVERY
        document = {"format": FORMAT, "lost": self._lost, "attempts": [*self._attempts.values()]}
        # no room for words is no reason to end
        with suppress(OSError):
            if self._path.parent.is_dir():
                self._system.write_file(self._path, json.dumps(document) + "\n", mode=0o600)


def _sender(attempt: Attempt) -> object:
    return attempt.uid if not attempt.client else (attempt.interface, attempt.client)


def _attempt(packet: Packet, owner: Owner | None, now: float) -> Attempt:
    return Attempt(
        reason=packet.reason,
        uid=None if packet.arrived else packet.uid,
        program=owner.program if owner else "",
        unit=owner.unit if owner else "",
        client=packet.source if packet.arrived else "",
        interface=packet.interface if packet.arrived else "",
        protocol=packet.protocol,
        address=packet.destination,
        port=packet.port,
        times=1,
        first=now,
        last=now,
    )
