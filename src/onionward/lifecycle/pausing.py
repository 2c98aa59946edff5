"""`pause` and `resume`: `up` with the configuration in force, and another list of who is paused."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from onionward import accounts, applied, pauses, state
from onionward.config.parse import parse_with_network
from onionward.config.values import Config, TorConfig
from onionward.errors import NotRoutedError, RefusedError, StepError
from onionward.facts import find_account
from onionward.flows import Reach
from onionward.lifecycle.activation import Request, up_under_lock
from onionward.lifecycle.deactivation import at_work, load_journal
from onionward.lifecycle.reporter import Reporter
from onionward.paths import Paths
from onionward.pauses import Pause
from onionward.state import Journal
from onionward.status_text import EXIT_STATUS
from onionward.system import System


class _Silent:
    """What `up` would say; what fails is an error all the same."""

    def step(self, words: str) -> None:
        del words

    def warn(self, words: str) -> None:
        del words

    def bootstrap(self, percent: int, words: str) -> None:
        del percent, words


def pause(
    system: System, paths: Paths, name: str, seconds: int | None, report: Reporter
) -> tuple[Pause, bool]:
    """Let nothing of an account's through any more, and cut what it has open.

    Args:
        system: the seam.
        paths: where the journal is.
        name: of the account.
        seconds: after which it ends by itself; None: with `resume`.
        report: told who is waited for.

    Returns:
        The pause, and whether rules say it already: while the machine is blocked they need not.

    Raises:
        NotRoutedError: the machine is off.
        RefusedError: there is no such account, or none of it is routed; nothing was touched.
        StepError: a step failed; the message says what state the machine is in.

    """
    with at_work(system, paths, report):
        journal = _activation(system, paths)
        uids = _uids(name)
        config = _in_force(paths, journal)
        _refuse(journal, config, name, uids)
        now = time.time()
        before = {one.name: one for one in pauses.lasting(journal)}
        since = before[name].since if name in before else now
        made = Pause(name, uids, since, None if seconds is None else now + seconds)
        wanted = (before | {name: made}).values()
        return made, _change(system, paths, journal, config, wanted)


def resume(system: System, paths: Paths, name: str, report: Reporter) -> bool:
    """End the pause of an account.

    Arguments and errors as `pause`.

    Returns:
        Whether it was paused.

    """
    with at_work(system, paths, report):
        journal = _activation(system, paths)
        before = pauses.noted(journal)
        left = [one for one in before if one.name != name]
        if len(left) == len(before):
            _uids(name)
            return False
        _change(system, paths, journal, _in_force(paths, journal), left)
        return True


def _activation(system: System, paths: Paths) -> Journal:
    journal = load_journal(system, paths)
    if journal is None:
        raise NotRoutedError(
            "the machine is off, and nobody is paused; nothing was touched",
            "`onionward up` routes it",
            EXIT_STATUS["off"],
        )
    return journal


def _uids(name: str) -> tuple[tuple[int, int], ...]:
    found = accounts.find_user(name)
    if found is None:
        raise RefusedError(
            f"there is no account {name!r}; nothing was touched",
            "give its login name, as `onionward status` shows it",
        )
    return tuple((uids.first, uids.last) for uids in found.uids)


def _refuse(
    journal: Journal, config: Config | None, name: str, uids: tuple[tuple[int, int], ...]
) -> None:
    def holds(uid: int) -> bool:
        return any(first <= uid <= last for first, last in uids)

    if holds(0):
        raise RefusedError(
            "root is the machine itself and is not paused; nothing was touched",
            "name the account whose programs are to get nothing through",
        )
    tor = find_account((TorConfig() if config is None else config.tor).user)
    if tor is not None and holds(tor.uid):
        raise RefusedError(f"{name} is tor's own account; nothing was touched")
    reach = Reach.from_json(journal.undo.get("rules", {}))
    if not any(map(reach.routes, uids)):
        raise RefusedError(
            f"{name} is not routed, so there is nothing to pause; nothing was touched",
            "`onionward status` says who is",
        )


def _in_force(paths: Paths, journal: Journal) -> Config | None:
    text = applied.load(paths)
    return None if text is None else parse_with_network(text, journal.config)


def _change(
    system: System,
    paths: Paths,
    journal: Journal,
    config: Config | None,
    wanted: Iterable[Pause],
) -> bool:
    """Put another list in force; returns whether the rules have it."""
    if journal.state != "routed":
        # nothing of anybody's passes, and whatever comes next has it
        undo = pauses.undo_with(journal.undo, wanted)
        state.save(system, paths, replace(journal, undo=undo))
        return False
    if config is None:
        raise StepError(
            f"{paths.applied}, the configuration in force, is missing; nothing was touched",
            "run `onionward up`, then try again",
        )
    request = Request(config, accept_cut=True, pauses=tuple(wanted))
    up_under_lock(system, request, paths, _Silent())
    return True
