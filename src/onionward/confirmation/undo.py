"""Keep what was done, or undo it; under the lock."""

from __future__ import annotations

from dataclasses import replace

from onionward import state
from onionward.config.parse import parse_with_network
from onionward.confirmation import (
    STEP,
    is_of_this_boot,
    now,
    pending,
    process,
    seconds_left,
    without,
)
from onionward.errors import JournalError, OnionwardError
from onionward.lifecycle.activation import Request, up_under_lock
from onionward.lifecycle.deactivation import at_work, undo_everything
from onionward.lifecycle.reporter import Reporter
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System


class NothingToConfirmError(OnionwardError):
    """Nothing waits for `onionward confirm`."""


def confirm(system: System, paths: Paths, report: Reporter) -> tuple[Journal, int]:
    """Let what is in force stay.

    Returns:
        The journal, and how many seconds were left.

    Raises:
        NothingToConfirmError: nothing awaits it.
        JournalError: the journal is damaged.

    """
    with at_work(system, paths, report):
        journal = state.load(paths)
        left = seconds_left(journal)
        if journal is None or left is None:
            raise NothingToConfirmError("there is nothing to confirm", "see `onionward status`")
        process.stop(system, paths)
        return state.save(system, paths, without(journal)), left


def undo_when_due(system: System, paths: Paths, report: Reporter) -> float:
    """What the helper does each time it looks.

    Returns:
        Seconds until it should look again; 0 when there is nothing left to do.

    Raises:
        OnionwardError: it could not be undone; the journal says why.

    """
    if (left := _wait(state.load(paths))) is not None:
        return left
    with at_work(system, paths, report):
        journal = state.load(paths)
        entry = pending(journal)
        # meanwhile it was confirmed, or given more time
        if journal is None or entry is None or (left := _wait(journal)) is not None:
            return left or 0.0
        try:
            if entry["back"] is None:
                report.step("not confirmed in time: everything is put back")
                undo_everything(system, paths, journal, report)
            else:
                name, text = entry["back"]["name"], entry["back"]["text"]
                report.step(f"not confirmed in time: back to {name}")
                request = Request(parse_with_network(text, name), accept_cut=True)
                up_under_lock(system, request, paths, report)
                journal = state.load(paths)
                if journal is not None:
                    state.save(system, paths, without(journal))
        except OnionwardError as error:
            _note_failure(system, paths, error)
            raise
        return 0


def _wait(journal: Journal | None) -> float | None:
    """Seconds to wait, 0 when nothing is awaited any more, None when it is due."""
    entry = pending(journal)
    if entry is None:
        return 0.0
    left = float(entry["deadline"]) - now()
    return left if left > 0 and is_of_this_boot(entry) else None


def _note_failure(system: System, paths: Paths, error: OnionwardError) -> None:
    try:
        journal = state.load(paths)
    except JournalError:
        return
    entry = pending(journal)
    if journal is not None and entry is not None:
        undo = {**journal.undo, STEP: {**entry, "failed": error.message}}
        state.save(system, paths, replace(journal, undo=undo))
