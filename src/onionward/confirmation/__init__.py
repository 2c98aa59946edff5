"""`up --confirm SECONDS`: what undoes itself unless somebody says in time that it may stay.

    up --confirm ─► journal ("confirm") ─► helper ─► block … route ─► deadline from now on
                                              │
             no `onionward confirm` in time ──┴─► `down`, or back to what was in force before

The deadline is one of the clock that counts from boot, suspension included, and that nobody can
set (clock_gettime(2), CLOCK_BOOTTIME). What is due is undone under the lock, so an `up`
that is still at work is never undone under its hands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onionward import applied
from onionward.confirmation import process
from onionward.errors import RefusedError
from onionward.paths import Paths
from onionward.state import Journal

STEP = "confirm"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def pending(journal: Journal | None) -> Mapping[str, Any] | None:
    """What the journal says of a confirmation that is awaited, or None."""
    entry: Mapping[str, Any] | None = None if journal is None else journal.undo.get(STEP)
    return entry


def seconds_left(journal: Journal | None) -> int | None:
    """Until it undoes itself: 0 when it is due, or None when nothing is awaited."""
    entry = pending(journal)
    if entry is None:
        return None
    if not is_of_this_boot(entry):
        return 0
    return max(0, round(float(entry["deadline"]) - now()))


def now() -> float:
    """Seconds since boot, those of suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_of_this_boot(entry: Mapping[str, Any]) -> bool:
    """Whether the deadline is one of the clock that runs now."""
    return bool(entry["boot"] == _boot())


def _boot() -> str:
    return _BOOT.read_text().strip()


def refuse_without_a_way_back(paths: Paths, previous: Journal | None) -> None:
    """Speak up when it is not known what to go back to.

    Raises:
        RefusedError: so it is.

    """
    if previous is not None and pending(previous) is None and applied.load(paths) is None:
        raise RefusedError(
            "--confirm: the configuration in force has never been routed to its end, so there is "
            "nothing to go back to; nothing was touched",
            "run `onionward up` without --confirm, or `onionward down`, first",
        )


def awaited(paths: Paths, previous: Journal | None, seconds: int) -> dict[str, Any]:
    """What the journal gets: when it is undone, and what comes back then (None: off).

    A second one before the first was confirmed goes back to where the first would.
    """
    if (before := pending(previous)) is not None:
        back = before["back"]
    elif previous is not None:
        back = {"name": previous.config, "text": applied.load(paths)}
    else:
        back = None
    return {"deadline": now() + seconds, "boot": _boot(), "pid": 0, "back": back}


def renewed(journal: Journal, seconds: int) -> Journal:
    """The journal with the whole time from now on."""
    changed = {**journal.undo[STEP], "deadline": now() + seconds}
    return replace(journal, undo={**journal.undo, STEP: changed})


def without(journal: Journal) -> Journal:
    """The journal of an activation that stays."""
    undo = {name: how for name, how in journal.undo.items() if name != STEP}
    return replace(journal, undo=undo)


def problems(journal: Journal, paths: Paths) -> list[str]:
    """What is wrong with a confirmation that is awaited."""
    entry = pending(journal)
    if entry is None:
        return []
    found = []
    if failed := entry.get("failed"):
        found.append(f"not confirmed, and undoing it has failed: {failed}; it is tried again")
    if not process.running(paths):
        found.append(
            "NOT CONFIRMED, and the process that would undo it has ended (killed, or a reboot): "
            "`onionward confirm` keeps what is in force, `onionward down` opens the machine, "
            "`onionward up --confirm SECONDS` starts another one"
        )
    return found
