"""What `status` says on BSD: the journal, held against what pf has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from onionward import state
from onionward.backend import pf as backend
from onionward.bsd import boot, files, process
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Status:
    """The machine as it is.

    Attributes:
        format: version of this structure.
        state: "off", "blocked", "routed", or "open": activated, but the rules do not hold.
        since: seconds since the epoch of the last change of state, or None.
        config: where the configuration came from, or None.
        scopes: who is routed, in words.
        tor: "running" or "stopped".
        tor_pid: its process id, or None.
        problems: what is not as it should be.
        at_boot: whether a boot runs `up`.

    """

    format: int
    state: Literal["off", "blocked", "routed", "open"]
    since: float | None
    config: str | None
    scopes: tuple[str, ...]
    tor: Literal["running", "stopped"]
    tor_pid: int | None
    problems: tuple[str, ...]
    at_boot: Literal["enabled", "disabled"] = "disabled"


def status(system: System, paths: Paths) -> Status:
    """Read the machine; changes nothing.

    Raises:
        JournalError: the journal is damaged.

    """
    journal = state.load(paths)
    pid = process.running(system, paths)
    running: Literal["running", "stopped"] = "stopped" if pid is None else "running"
    held = backend.read(system)
    if journal is None:
        left = held is not None
        words = ("rules of an activation without a journal; `onionward down` removes them",)
        where: Literal["off", "blocked"] = "blocked" if left else "off"
        return Status(FORMAT, where, None, None, (), running, pid, words if left else ())
    problems = [*_of_rules(system, journal, held), *_of_files(journal)]
    opened = bool([*_openings(system, held)])
    now: Literal["blocked", "routed", "open"] = journal.state
    if opened:
        now = "open"
    elif pid is None and journal.state == "routed":
        now = "blocked"
        problems.append("tor is not running: nothing passes; repeat `onionward up`")
    return Status(
        FORMAT,
        now,
        journal.since,
        journal.config,
        tuple(journal.scopes),
        running,
        pid,
        tuple(problems),
        "enabled" if boot.taken(journal) else "disabled",
    )


def _openings(system: System, held: str | None) -> tuple[str, ...]:
    """Why rules do not hold at all."""
    if not backend.is_enabled(system):
        return ("OPEN: pf is off; `onionward up` switches it on",)
    if held is None:
        return ("OPEN: the anchor is empty; repeat `onionward up`",)
    translated = held.lstrip().startswith(("rdr", "no rdr"))
    wrong = backend.unhooked(system, translated=translated)
    return (f"OPEN: {wrong}; repeat `onionward up`",) if wrong else ()


def _of_rules(system: System, journal: Journal, held: str | None) -> tuple[str, ...]:
    if found := _openings(system, held):
        return found
    if held is not None and journal.digest and backend.digest(held) != journal.digest:
        return (
            "the anchor holds other rules than were loaded (after a boot, or a reload of pf.conf, "
            "those are the block); repeat `onionward up`",
        )
    return ()


def _of_files(journal: Journal) -> tuple[str, ...]:
    found = []
    for entry in journal.undo.values():
        saved: Any = entry.get("file")
        if saved and saved["after"] and not files.is_in_place(saved):
            found.append(f"{saved['path']} was changed by somebody else; `onionward up` mends it")
    return tuple(found)
