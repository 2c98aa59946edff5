"""`down`: undo every step in an order that opens the network last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from onionward import applied, backend, flows, saved_rulesets, state
from onionward.confirmation import process as confirm_process
from onionward.dns import host as resolver
from onionward.errors import JournalError, StepError
from onionward.facts import own_addresses
from onionward.guard import process as guard
from onionward.lifecycle import leftovers, surroundings
from onionward.lifecycle.reporter import Reporter, words_of
from onionward.paths import Paths
from onionward.render.nftables.flow_memory import MOST
from onionward.state import Journal
from onionward.system import System, temporary_name
from onionward.tor import process as tor_process

T = TypeVar("T")


@contextlib.contextmanager
def at_work(
    system: System, paths: Paths, report: Reporter, *, first: bool = True
) -> Iterator[None]:
    """Hold the lock; its directory goes when the machine is off, whatever has been refused.

    Args:
        system: the seam.
        paths: where things are.
        report: told who is waited for.
        first: whether the guard is to give way, which may be waiting for tor for minutes.

    """
    if first:
        guard.make_way(system, paths)
    with state.locked(system, paths, tell=report.step):
        try:
            yield
        finally:
            if not paths.journal.exists() and not tor_process.running(paths):
                system.remove_tree(paths.runtime)


def down(system: System, paths: Paths, report: Reporter, *, force: bool = False) -> bool:
    """Put everything back.

    Args:
        system: the seam.
        paths: where the journal is.
        report: told of each step.
        force: go on without a readable journal, removing what can be recognised.

    Returns:
        False when there was nothing to put back.

    Raises:
        JournalError: the journal is damaged and `force` was not given.
        StepError: something could not be put back; the message says what.

    """
    with at_work(system, paths, report):
        journal = _journal_or_empty(system, paths, force=force)
        saved = _take_out_saved(system, report)
        if journal is None:
            journal = _recognised(system, paths)
            if not (backend.blocked_since_boot(system) or leftovers.of_nobody(system, paths)):
                if lost := resolver.lost_original(paths):
                    report.warn(lost)
                return saved
        try:
            undo_everything(system, paths, journal, report, force=force)
        except KeyboardInterrupt:
            raise StepError(
                f"interrupted; the machine is {state_now(system, journal)}",
                "repeat `onionward down`: it goes on from here",
            ) from None
        return True


def _take_out_saved(system: System, report: Reporter) -> bool:
    """Let no file of others bring our rules back; returns whether one would have."""
    outcomes = saved_rulesets.take_out(system)
    for words, done in outcomes:
        (report.step if done else report.warn)(words)
    return bool(outcomes)


def state_now(system: System, journal: Journal | None) -> str:
    """What holds at this moment, in words; without a journal, by what the machine has."""
    filters = backend.present(system) if journal is None else backend.noted(journal)
    held = any(one.read(system) is not None for one in filters)
    if not held and backend.is_guarded(system):
        return "blocked by the guard's rules alone, the others are gone"
    if not held and not backend.blocked_since_boot(system):
        return "open: the rules are gone, traffic leaves in clear"
    return "still protected by the rules in force"


def load_journal(system: System, paths: Paths) -> Journal | None:
    """The journal; when it is none that can be used, the error says what state the machine is in.

    Raises:
        JournalError: it is damaged.

    """
    try:
        return state.load(paths)
    except JournalError as error:
        message = f"{error.message}\n  The machine is {state_now(system, None)}."
        raise JournalError(message, error.hint) from error


def _journal_or_empty(system: System, paths: Paths, *, force: bool) -> Journal | None:
    try:
        return load_journal(system, paths)
    except JournalError:
        if not force:
            raise
        return _recognised(system, paths)


def _recognised(system: System, paths: Paths) -> Journal:
    """What an activation without a readable journal must have done, by what it left."""
    undo: dict[str, Any] = {}
    if pids := tor_process.running(paths):
        undo["tor"] = {"cgroup": tor_process.own_group_of(pids[0])}
    undo |= surroundings.recognised(system, paths)
    forwarder = undo.get("onion", {"saved": {"forwarder": None}})["saved"]["forwarder"]
    # the original that waits is either's
    if forwarder is None and (saved := resolver.recognise(paths)) is not None:
        undo["resolver"] = saved
    filters = [one.NAME for one in backend.present(system)] or [backend.NAMES[0]]
    return Journal(state="blocked", since=0.0, instance="", stamp=0, undo=undo, filters=filters)


def undo_everything(
    system: System, paths: Paths, journal: Journal, report: Reporter, *, force: bool = False
) -> None:
    """Undo every step in an order that opens the network last, past errors, and report them all."""
    undo = journal.undo
    attempts = _Attempts()
    filters = backend.noted(journal)
    cgroup = Path(undo["tor"]["cgroup"]) if undo.get("tor", {}).get("cgroup") else None
    # it would put back what goes now
    attempts.take("ending the guard", lambda: guard.stop(system, paths))
    # while tor can still tell them: nobody else can end the clients' side
    attempts.take("cutting clients' flows", lambda: flows.cut_clients(system))
    attempts.take("stopping tor", lambda: tor_process.stop(system, paths, cgroup))
    if backend.any_table(system, filters):
        whole = any(one.read(system) is not None for one in filters)
        attempts.take("cutting redirected flows", lambda: _cut(system, undo, whole=whole))
        left = attempts.take("ending clients' flows", lambda: _end(system, journal))
        if left:
            report.warn(left)
    # else nothing is redirected: a reboot, or an end before there were rules
    if attempts.failures and not force:
        # what stays in force is to be guarded as before
        attempts.take("starting the guard again", lambda: _guard_again(system, paths))
        raise StepError(
            f"{attempts.words()}\n  The machine is {state_now(system, journal)}.",
            "mend the cause and repeat `onionward down`, or open it all the same with --force",
        )
    if "resolver" in undo:
        note = attempts.take(
            f"restoring {paths.resolv_conf}",
            lambda: resolver.restore(system, undo["resolver"], paths),
        )
        if note:
            report.warn(note)
    for name, (words, restore) in surroundings.restorers(system, paths).items():
        if name in undo:
            note = attempts.take(words, partial(restore, undo[name]["saved"]))
            if note:
                report.warn(note)
    for one in filters:
        attempts.take("removing the rules", partial(one.remove_tables, system))
    attempts.take(
        "forgetting redirected flows",
        lambda: flows.forget_redirected(system),
    )
    # last, so that what fails here is undone by it later
    if not attempts.failures:
        attempts.take(
            "ending what awaits a confirmation", lambda: confirm_process.stop(system, paths)
        )
    if not attempts.failures:
        attempts.take("removing the journal", lambda: _forget(system, paths))
    if attempts.failures:
        raise StepError(
            f"not everything could be put back: {attempts.words()}\n"
            f"  The machine is {state_now(system, journal)}.",
            "mend the cause and repeat `onionward down`; the journal is kept for it",
        )


def _guard_again(system: System, paths: Paths) -> None:
    if paths.lock_rules.exists():
        guard.ensure(system, paths, paths.lock_rules.read_text())


def _forget(system: System, paths: Paths) -> None:
    applied.remove(system, paths)
    for path in (paths.journal, temporary_name(paths.journal)):
        if path.is_dir() and not path.is_symlink():
            system.remove_tree(path)  # somebody has made it
        else:
            system.remove_file(path)


class _Attempts:
    """Steps that are all taken, whatever becomes of the others."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def take(self, words: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001  # the other steps must be taken all the same
            self.failures.append(f"{words}: {words_of(error)[0]}")
            return None

    def words(self) -> str:
        return "; ".join(self.failures)


def _end(system: System, journal: Journal) -> str:
    """What is to be said of clients whose connections cannot be ended."""
    if not flows.Reach.from_json(journal.undo.get("rules", {})).lans:
        return ""
    from onionward.lan import client_flows

    remembered = backend.in_force(journal).client_flows
    known = remembered(system)
    left = client_flows.end(system, remembered, journal.stamp)
    if len(known) >= MOST:
        return (
            "clients had more connections than are remembered: if their programs still hold some, "
            "the last packets of these may be forwarded in clear"
        )
    if not left:
        return ""
    clients = ", ".join(sorted({str(flow.peer) for flow in left}))
    return (
        f"{len(left)} connections of clients that do not answer ({clients}): if these clients "
        "come back with them, the last packets may be forwarded in clear"
    )


def _cut(system: System, undo: Mapping[str, Any], *, whole: bool) -> None:
    """Cut what went through tor; `whole`: whether nothing can begin anew in clear meanwhile."""
    reach = flows.Reach.from_json(undo.get("rules", {}))
    try:
        flows.cut_redirected(system, reach, own_addresses(system))
    except StepError:
        # rules of one family are left (iptables, killed between the two): what the other has
        # begun in clear since then is nobody's tail
        if whole:
            raise
