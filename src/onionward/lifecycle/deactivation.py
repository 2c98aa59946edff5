"""`down`: undo every step in an order that opens the network last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from onionward import applied, flows, state
from onionward.backend import nftables as backend
from onionward.confirmation import process as confirm_process
from onionward.dns import file as resolver
from onionward.errors import JournalError, StepError
from onionward.facts import own_addresses
from onionward.lifecycle import leftovers, surroundings
from onionward.lifecycle.reporter import Reporter, words_of
from onionward.paths import Paths
from onionward.render.nftables.flow_memory import MOST
from onionward.render.resolver import resolv_conf
from onionward.state import Journal
from onionward.system import System, temporary_name
from onionward.tor import process as tor_process

T = TypeVar("T")


@contextlib.contextmanager
def at_work(system: System, paths: Paths, report: Reporter) -> Iterator[None]:
    """Hold the lock; its directory goes when the machine is off, whatever has been refused."""
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
        if journal is None:
            journal = _recognised(system, paths)
            if not (backend.blocked_since_boot(system) or leftovers.of_nobody(system, paths)):
                return False
        try:
            undo_everything(system, paths, journal, report, force=force)
        except KeyboardInterrupt:
            raise StepError(
                f"interrupted; the machine is {state_now(system)}",
                "repeat `onionward down`: it goes on from here",
            ) from None
        return True


def state_now(system: System) -> str:
    """What holds at this moment, in words."""
    if backend.read(system) is None and not backend.blocked_since_boot(system):
        return "open: the rules are gone, traffic leaves in clear"
    return "still protected by the rules in force"


def _journal_or_empty(system: System, paths: Paths, *, force: bool) -> Journal | None:
    try:
        return state.load(paths)
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
    if (
        forwarder is None
        and (saved := resolver.recognise(paths.resolv_conf, resolv_conf())) is not None
    ):
        undo["resolver"] = saved
    return Journal(state="blocked", since=0.0, instance="", stamp=0, undo=undo)


def undo_everything(
    system: System, paths: Paths, journal: Journal, report: Reporter, *, force: bool = False
) -> None:
    """Undo every step in an order that opens the network last, past errors, and report them all."""
    undo = journal.undo
    attempts = _Attempts()
    cgroup = Path(undo["tor"]["cgroup"]) if undo.get("tor", {}).get("cgroup") else None
    # while tor can still tell them: nobody else can end the clients' side
    attempts.take("cutting clients' flows", lambda: flows.cut_clients(system))
    attempts.take("stopping tor", lambda: tor_process.stop(system, paths, cgroup))
    if backend.any_table(system):
        attempts.take("cutting redirected flows", lambda: _cut(system, undo))
        left = attempts.take("ending clients' flows", lambda: _end(system, journal))
        if left:
            report.warn(left)
    # else nothing is redirected: a reboot, or an end before there were rules
    if attempts.failures and not force:
        raise StepError(
            f"{attempts.words()}\n  The machine is {state_now(system)}.",
            "mend the cause and repeat `onionward down`, or open it all the same with --force",
        )
    if "resolver" in undo:
        note = attempts.take(
            f"restoring {paths.resolv_conf}",
            lambda: resolver.restore(system, paths.resolv_conf, undo["resolver"]),
        )
        if note:
            report.warn(note)
    for name, (words, restore) in surroundings.restorers(system, paths).items():
        if name in undo:
            note = attempts.take(words, partial(restore, undo[name]["saved"]))
            if note:
                report.warn(note)
    attempts.take("removing the rules", lambda: backend.remove_tables(system))
    attempts.take(
        "forgetting redirected flows",
        lambda: flows.forget_redirected(system),
    )
    # last, so that what fails here is undone by it later
    if not attempts.failures:
        attempts.take(
            "ending what awaits a confirmation", lambda: confirm_process.stop(system, paths)
        )
    if attempts.failures:
        raise StepError(
            f"not everything could be put back: {attempts.words()}\n"
            f"  The machine is {state_now(system)}.",
            "mend the cause and repeat `onionward down`; the journal is kept for it",
        )
    applied.remove(system, paths)
    system.remove_file(paths.journal)
    system.remove_file(temporary_name(paths.journal))


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

    known = client_flows.remembered(system)
    left = client_flows.end(system, journal.stamp)
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


def _cut(system: System, undo: Mapping[str, Any]) -> None:
    flows.cut_redirected(
        system, flows.Reach.from_json(undo.get("rules", {})), own_addresses(system)
    )
