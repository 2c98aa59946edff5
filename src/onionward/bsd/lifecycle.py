"""`up`, `down` and `check` on BSD."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onionward import state
from onionward.backend import pf as backend
from onionward.bsd import boot, files, pf_conf, process, validation
from onionward.bsd import facts as bsd_facts
from onionward.bsd.kind import Kind
from onionward.bsd.steps import Step, steps
from onionward.config.values import Config
from onionward.describe import scopes
from onionward.errors import CommandError, OnionwardError, RefusedError, StepError, words_of
from onionward.facts import Account
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System, temporary_name

if TYPE_CHECKING:
    from onionward.lifecycle.reporter import Reporter

# in the journal besides the steps of bsd/steps.py
_PF, _MAIN, _BLOCK, _TOR = "pf", "pf_conf", "pf_block", "tor"
# what rules and pf itself stand on: last to go, in this order
_FOUNDATIONS = ("pf_module", "lo1")
# without a journal: what is at most given to outward connections
_ANY_EPHEMERAL = (10000, 65535)


def check(system: System, config: Config, kind: Kind, paths: Paths) -> validation.Plan:
    """Validate, touching nothing; raises RefusedError with every problem."""
    return validation.validate(system, config, kind, paths)


def up(system: System, config: Config, kind: Kind, paths: Paths, report: Reporter) -> Journal:
    """Route, from whatever state the machine is in.

    Raises:
        RefusedError: nothing was touched.
        StepError: a step failed; the message says what state the machine is in.

    """
    with _at_work(system, paths, report):
        previous = state.load(paths)
        plan = validation.validate(system, config, kind, paths)
        for limit in plan.limits:
            report.warn(limit)
        activation = _Activation(system, kind, paths, report, plan, previous)
        return activation.run()


@contextlib.contextmanager
def _at_work(system: System, paths: Paths, report: Reporter) -> Iterator[None]:
    with state.locked(system, paths, tell=report.step):
        try:
            yield
        finally:
            if not paths.journal.exists() and process.running(system, paths) is None:
                system.remove_tree(paths.runtime)


class _Activation:
    """One run of `up`."""

    def __init__(
        self,
        system: System,
        kind: Kind,
        paths: Paths,
        report: Reporter,
        plan: validation.Plan,
        previous: Journal | None,
    ) -> None:
        self._system = system
        self._kind = kind
        self._paths = paths
        self._report = report
        self._plan = plan
        self._was_on = previous is not None
        self._journal = previous or Journal(
            state="blocked", since=0.0, instance="", stamp=0, filters=[backend.NAME]
        )

    def run(self) -> Journal:
        try:
            return self._route()
        except BaseException as error:
            # whatever it is, the machine must not be left half way without a word
            raise self._recover(error) from error

    def _route(self) -> Journal:
        account = self._plan.facts.tor_account
        if account is None:
            raise StepError("tor has no account")
        self._plan = validation.keeping(self._plan, self._system, self._kind, self._paths)
        policy = self._plan.policy
        if not self._paths.state.is_dir():
            self._system.make_directory(self._paths.state, mode=0o711)
        wanted = steps(self._kind, policy, self._plan.facts, self._paths)
        first = [step for step in wanted if step.name in _FOUNDATIONS]
        for step in first:
            self._take(step)
        self._block()
        self._start_tor(account)
        for step in wanted:
            if step not in first:
                self._take(step)
        if boot.taken(self._journal):
            # with the configuration that is in force from now on
            self._journal = boot.take(
                self._system, self._paths, self._journal, self._kind, self._plan.config
            )
        backend.apply(self._system, self._plan.route)
        digest = backend.verify(self._system, self._plan.route)
        self._enter("routed", digest)
        self._report.step(f"routed: {'; '.join(scopes(policy))}")
        return self._journal

    def _note(self, name: str, undo: dict[str, Any]) -> None:
        """Write down what undoes a step, unless an earlier run has."""
        if name not in self._journal.undo:
            self._journal = replace(self._journal, undo={**self._journal.undo, name: undo})
            state.save(self._system, self._paths, self._journal)

    def _renote(self, name: str, undo: dict[str, Any]) -> None:
        """Write down what undoes a step from now on."""
        if self._journal.undo.get(name) != undo:
            self._journal = replace(self._journal, undo={**self._journal.undo, name: undo})
            state.save(self._system, self._paths, self._journal)

    def _take(self, step: Step) -> None:
        present = self._is_present(step)
        undo = [] if present else [list(command) for command in step.undo]
        noted = self._journal.undo.get(step.name, {"file": None, "undo": undo})
        if step.path is not None:
            saved = files.renewed(
                noted["file"], step.path, step.lines, whole=step.whole, mode=step.mode
            )
            noted = {**noted, "file": saved}
        self._renote(step.name, noted)
        if noted["file"] is not None:
            files.write(self._system, noted["file"])
        for command in step.commands:
            if not (present and command[-1] == "create"):
                self._system.change(command)

    def _is_present(self, step: Step) -> bool:
        """Whether the interface or the kernel's module is there already, and so stays."""
        if step.name == "lo1":
            shown = self._system.query(["ifconfig", "-a"])
            return bsd_facts.has_interface(shown, "lo1")
        return step.name == "pf_module" and backend.is_in_kernel(self._system)

    def _block(self) -> None:
        kind, system, policy = self._kind, self._system, self._plan.policy
        loaded = backend.is_in_kernel(system) and bool(backend.main_rules(system))
        self._note(_PF, {"enabled": backend.is_enabled(system), "loaded": loaded, "cut": False})
        noted = self._journal.undo[_PF]
        turned = {
            "ports": list(policy.ephemeral_ports),
            "cut": noted["cut"] or pf_conf.needs_loopback(policy),
        }
        self._journal = replace(
            self._journal, undo={**self._journal.undo, _PF: {**noted, **turned}}
        )
        self._note(_BLOCK, {"file": files.survey(kind.stored_block, "", mode=0o600)})
        before = files.read(kind.pf_conf)
        plain = pf_conf.unhooked(before) if before is not None else None
        saved = files.survey(kind.pf_conf, self._plan.main)
        self._note(_MAIN, {"file": {**saved, "before": plain}})
        for name, text in ((_BLOCK, self._plan.block.text), (_MAIN, self._plan.main)):
            entry = {"file": files.replaced(self._journal.undo[name]["file"], text)}
            self._journal = replace(self._journal, undo={**self._journal.undo, name: entry})
        # not as it was, and not finished
        self._journal = replace(self._journal, state="blocked", digest="")
        state.save(system, self._paths, self._journal)
        files.write(system, self._journal.undo[_BLOCK]["file"])
        files.write(system, self._journal.undo[_MAIN]["file"])
        # the anchor first: then the main ruleset leads to rules at once
        backend.apply(system, self._plan.block)
        backend.load_main(system, kind.pf_conf)
        backend.enable(system)
        # read back what pf.conf has loaded, with the optimizer's hand off it
        backend.apply(system, self._plan.block)
        digest = backend.verify(system, self._plan.block)
        self._enter("blocked", digest)
        self._report.step("blocked: nothing of the routed scopes leaves but tor itself")
        if pf_conf.needs_loopback(policy):
            backend.forget_states(system)
            cut(system, kind, policy.ephemeral_ports)
        else:
            backend.forget_states_of(system, [n for lan in policy.lans for n in lan.networks])

    def _start_tor(self, account: Account) -> None:
        from onionward.tor import control

        self._note(_TOR, {})
        process.stop(self._system, self._paths)
        process.start(self._system, self._plan.torrc, self._paths, account)
        control.wait_for_circuits(
            self._paths,
            self._plan.config.tor.bootstrap_timeout,
            lambda phase: self._report.bootstrap(phase.percent, phase.words()),
            lambda: process.running(self._system, self._paths) is not None,
        )

    def _enter(self, entered: state.State, digest: str) -> None:
        journal = replace(
            self._journal,
            config=self._plan.config.source.name,
            scopes=list(scopes(self._plan.policy)),
        )
        self._journal = state.entered(journal, entered, digest)
        state.save(self._system, self._paths, self._journal)

    def _recover(self, error: BaseException) -> StepError:
        words, hint = words_of(error)
        if self._was_on:
            return StepError(
                f"{words}\n  It was on before, so nothing has been opened.",
                hint or "repeat `onionward up`, or open it with `onionward down`",
            )
        if state.load(self._paths) is None:
            return StepError(f"{words}\n  Nothing was changed.", hint)
        try:
            _undo(self._system, self._kind, self._paths, self._journal, self._report)
        except StepError as second:
            return StepError(f"{words}\n  Putting everything back failed too: {second}", hint)
        return StepError(
            f"{words}\n  Everything was put back: the machine is off, as before.", hint
        )


def enable(system: System, config: Config, kind: Kind, paths: Paths, report: Reporter) -> None:
    """Have every boot run `up`; until it has, the block of pf.conf is in force.

    Raises:
        RefusedError: there is no such block, because nothing is on, or another configuration is;
            nothing was touched.

    """
    with _at_work(system, paths, report):
        validation.validate(system, config, kind, paths)
        journal = state.load(paths)
        if journal is None:
            raise RefusedError(
                "nothing is on: the block of a boot comes into pf.conf with `onionward up`, and "
                "goes with `onionward down`; nothing was touched",
                "run `onionward up`, then repeat",
            )
        if Path(journal.config).resolve() != Path(config.source.name).resolve():
            raise RefusedError(
                f"{journal.config} is in force, not {config.source.name}; nothing was touched",
                "run `onionward up` with the configuration that is meant, then repeat",
            )
        boot.take(system, paths, journal, kind, config)


def disable(system: System, paths: Paths, report: Reporter) -> bool:
    """Have no boot run `up` any longer; what is in force stays, the block of pf.conf included.

    Returns:
        False when none did.

    """
    with _at_work(system, paths, report):
        journal = state.load(paths)
        if journal is None or not boot.taken(journal):
            return False
        _, notes = boot.give_back(system, paths, journal)
        for note in notes:
            report.warn(note)
        return True


def cut(system: System, kind: Kind, ephemeral: tuple[int, int]) -> None:
    """End this machine's outward TCP connections (tcpdrop(8)): their programs see an error.

    Raises:
        StepError: some are there still.

    """
    left: tuple[bsd_facts.Connection, ...] = ()
    for _ in range(3):
        left = _outward(system, kind, ephemeral)
        for connection in left:
            # one that has ended meanwhile is no failure
            with contextlib.suppress(CommandError):
                system.change(["tcpdrop", *connection.ends])
        if not left:
            return
    if left := _outward(system, kind, ephemeral):
        words = ", ".join(f"{c.flow.peer} port {c.flow.peer_port}" for c in left[:5])
        raise StepError(f"{len(left)} connections cannot be cut, to {words}")


def _outward(
    system: System, kind: Kind, ephemeral: tuple[int, int]
) -> tuple[bsd_facts.Connection, ...]:
    listening, found = bsd_facts.sockets(system, kind)
    others = bsd_facts.inbound(ephemeral, listening, found)
    return tuple(c for c in found if c not in others and not c.flow.peer.is_loopback)


def down(
    system: System, kind: Kind, paths: Paths, report: Reporter, *, force: bool = False
) -> bool:
    """Put everything back.

    Returns:
        False when there was nothing to put back.

    Raises:
        JournalError: the journal is damaged and `force` was not given.
        StepError: something could not be put back; the message says what.

    """
    with _at_work(system, paths, report):
        try:
            journal = state.load(paths)
        except OnionwardError:
            if not force:
                raise
            journal = _recognised(kind)
        if journal is None:
            journal = _recognised(kind)
            if backend.read(system) is None and not boot.taken(journal):
                return False
        _undo(system, kind, paths, journal, report, force=force)
        return True


def _recognised(kind: Kind) -> Journal:
    """What can be undone without a journal: the anchor, and its lines in pf.conf."""
    undo: dict[str, Any] = {_TOR: {}}
    now = files.read(kind.pf_conf)
    if now is not None and pf_conf.unhooked(now) != now:
        saved = files.survey(kind.pf_conf, now)
        undo[_MAIN] = {"file": {**saved, "before": pf_conf.unhooked(now)}}
    undo |= boot.recognised(kind)
    return Journal(
        state="blocked", since=0.0, instance="", stamp=0, undo=undo, filters=[backend.NAME]
    )


def _undo(
    system: System,
    kind: Kind,
    paths: Paths,
    journal: Journal,
    report: Reporter,
    *,
    force: bool = False,
) -> None:
    """Undo every step in an order that opens the network last, past errors; report them all.

    States stay: those of connections through tor lead to its closed port, not out.
    """
    failures: list[str] = []

    def take(words: str, step: Callable[[], object]) -> None:
        try:
            if note := step():
                report.warn(str(note))
        except Exception as error:  # noqa: BLE001  # the other steps must be taken all the same
            failures.append(f"{words}: {words_of(error)[0]}")

    undo = journal.undo
    take("stopping tor", lambda: process.stop(system, paths))
    noted = undo.get(_PF, {"cut": True})
    if noted["cut"] and backend.read(system) is not None:
        low, high = noted.get("ports", _ANY_EPHEMERAL)
        # what went through tor must not go on in clear
        take("cutting connections", lambda: cut(system, kind, (low, high)))
    if failures and not force:
        raise StepError(
            f"{'; '.join(failures)}\n  The machine is still protected by the rules in force.",
            "mend the cause and repeat `onionward down`, or open it all the same with --force",
        )
    for name in reversed(boot.NAMES):
        if name in undo:
            take(f"undoing {name}", partial(boot.restore, system, undo[name]))
    for name, entry in reversed([*undo.items()]):
        if name not in (_PF, _MAIN, _BLOCK, _TOR, *boot.NAMES, *_FOUNDATIONS):
            take(f"undoing {name}", partial(_restore_step, system, entry))
    if _MAIN in undo:
        take("restoring pf.conf", lambda: _restore_main(system, kind, undo))
    take("emptying the anchor", lambda: backend.remove(system))
    if _BLOCK in undo:
        saved_block = undo[_BLOCK]["file"]
        take("removing the stored block", lambda: files.restore(system, saved_block))
    if not undo.get(_PF, {"enabled": True})["enabled"]:
        take("switching pf off", lambda: backend.disable(system))
    for name in _FOUNDATIONS:
        if name in undo:
            take(f"undoing {name}", partial(_restore_step, system, undo[name]))
    if failures:
        raise StepError(
            f"not everything could be put back: {'; '.join(failures)}",
            "mend the cause and repeat `onionward down`; the journal is kept for it",
        )
    system.remove_file(paths.journal)
    system.remove_file(temporary_name(paths.journal))


def _restore_main(system: System, kind: Kind, undo: dict[str, Any]) -> str:
    saved = undo[_MAIN]["file"]
    now = files.read(kind.pf_conf)
    if now is not None and now not in (saved["after"], saved["before"]):
        # others have edited it: ours goes, theirs stays
        system.write_file(kind.pf_conf, pf_conf.unhooked(now), mode=saved["mode"])
        note = f"{kind.pf_conf} was changed by somebody else meanwhile; only ours was taken out"
    else:
        note = files.restore(system, saved)
    if not backend.is_in_kernel(system):
        return note
    if kind.pf_conf.exists() and undo.get(_PF, {"loaded": True})["loaded"]:
        backend.load_main(system, kind.pf_conf)
    else:
        backend.forget_main(system)
    return note


def _restore_step(system: System, entry: Mapping[str, Any]) -> str:
    for command in entry["undo"]:
        # what is gone already needs no undoing
        with contextlib.suppress(CommandError):
            system.change(command)
    return files.restore(system, entry["file"]) if entry["file"] else ""
