"""up and down as ordered, reversible steps.

    up:    validate ─► journal ─► block ─► cut flows ─► tor ─► resolver ─► route ─► read back
    down:  stop tor ─► cut flows ─► resolver ─► rules ─► journal

What undoes a step is in the journal before the step is taken. Until `block` nothing has changed;
from then on a failure puts everything back, except on a machine that was routed before: there the
block stays, because opening it is nobody's choice but the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from onionward import flows, preflight, state
from onionward.backend import nftables as backend
from onionward.config.values import Config
from onionward.dns import file as resolver
from onionward.errors import (
    ConfigError,
    JournalError,
    OnionwardError,
    RefusedError,
    StepError,
)
from onionward.facts import Account, Facts, gather, own_addresses
from onionward.paths import Paths
from onionward.policy import ControlGroup, Flow, Policy, derive
from onionward.render import nftables as render
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import torrc
from onionward.state import Journal
from onionward.system import System
from onionward.tor import account as tor_account
from onionward.tor import process as tor_process

T = TypeVar("T")

# Stands in for the account while it does not exist, in checks only.
_PROVISIONAL_UID = 65533


class Reporter(Protocol):
    """What the steps say while they go on."""

    def step(self, words: str) -> None:
        """Something was done."""

    def warn(self, words: str) -> None:
        """Something that the user should know."""

    def bootstrap(self, percent: int, words: str) -> None:
        """How far tor is."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `up` was asked for.

    Attributes:
        config: read and free of contradictions.
        accept_cut: go on though the SSH session it was typed in will be cut.

    """

    config: Config
    accept_cut: bool = False


def validate(system: System, config: Config, paths: Paths) -> tuple[Facts, tuple[str, ...]]:
    """Read the machine and refuse what cannot work on it, touching nothing.

    Returns:
        The facts, and what is not covered here.

    Raises:
        ConfigError: every problem at once.
        RefusedError: nft or tor do not accept what was rendered.

    """
    facts = gather(system, config.tor.user)
    found = preflight.problems(config, facts, _listeners(system, config, facts, paths))
    if found:
        raise ConfigError(found)
    uid = facts.tor_account.uid if facts.tor_account else _PROVISIONAL_UID
    policy = derive(config, facts, tor_uid=uid, tor_cgroup=None)
    for ruleset in (render.block(policy), render.route(policy)):
        backend.check(system, ruleset)
    name = facts.tor_account.name if facts.tor_account else None
    # not the real data, which may still belong to an account of old: `start` hands it over
    elsewhere = replace(paths, state=paths.runtime / "unused")
    tor_process.verify_config(
        system, torrc(policy, elsewhere, account=name, network=config.network_lines)
    )
    return facts, preflight.warnings(config, facts)


def _listeners(system: System, config: Config, facts: Facts, paths: Paths) -> dict[str, str]:
    """Who listens on tor's ports, onionward's own tor aside."""
    if "ss" in facts.missing_tools:
        return {}
    taken: dict[str, str] = {}
    for protocol, option, port in (
        ("tcp", "-Hltnp", config.tor.trans_port),
        ("udp", "-Hlunp", config.tor.dns_port),
    ):
        own = {f"pid={pid}," for pid in tor_process.running(paths)}
        for line in system.query(["ss", option, f"sport = :{port}"]).splitlines():
            if not any(pid in line for pid in own):
                taken[f"{protocol}:{port}"] = line.split("users:")[-1].strip()
    return taken


def up(system: System, request: Request, paths: Paths, report: Reporter) -> Journal:
    """Route, from whatever state the machine is in.

    Raises:
        RefusedError: nothing was touched.
        StepError: a step failed; the message says what state the machine is in.

    """
    if os.geteuid() != 0:
        validate(system, request.config, paths)
    with _at_work(system, paths):
        previous = state.load(paths)
        facts, limits = validate(system, request.config, paths)
        for limit in limits:
            report.warn(limit)
        activation = _Activation(system, request, paths, report, facts, previous)
        activation.refuse_to_cut_ssh()
        return activation.run()


@contextlib.contextmanager
def _at_work(system: System, paths: Paths) -> Iterator[None]:
    """Hold the lock; its directory goes when the machine is off, whatever has been refused."""
    with state.locked(system, paths):
        try:
            yield
        finally:
            if not paths.journal.exists() and not tor_process.running(paths):
                system.remove_tree(paths.runtime)


class _Activation:
    """One run of `up`."""

    def __init__(
        self,
        system: System,
        request: Request,
        paths: Paths,
        report: Reporter,
        facts: Facts,
        previous: Journal | None,
    ) -> None:
        self._system = system
        self._config = request.config
        self._accept_cut = request.accept_cut
        self._paths = paths
        self._report = report
        self._facts = facts
        self._was_on = previous is not None
        self._journal = previous or Journal(
            state="blocked",
            since=0.0,
            instance=secrets.token_hex(4),
            stamp=secrets.randbits(32) | 1,
        )
        self._own = facts.addresses

    def refuse_to_cut_ssh(self) -> None:
        """Say so before anything is touched when this would cut the session it is typed in."""
        peer = preflight.ssh_peer(
            os.environ, preflight.ancestor_environments(Path("/proc"), os.getpid())
        )
        if peer is None or self._accept_cut:
            return
        address = ipaddress.ip_address(peer.split("%")[0])
        policy = self._policy(_PROVISIONAL_UID, ())
        if address.is_loopback or address in self._own or policy.admits_inbound(address):
            return
        raise RefusedError(
            f"this would cut the SSH session it is typed in: {peer} is not among those whom "
            f'host.inbound = "{self._config.host.inbound}" lets in; nothing was touched',
            'add the address to [bypass] networks, set inbound = "all", or repeat with --yes',
        )

    def run(self) -> Journal:
        try:
            account = tor_account.ensure(self._system, self._config.tor.user, self._paths)
        except OnionwardError as error:
            raise StepError(f"{error.message}; nothing else was touched", error.hint) from error
        try:
            return self._route(account)
        except (OnionwardError, OSError, KeyboardInterrupt) as error:
            raise self._recover(error) from error

    def _policy(self, uid: int, kept: tuple[Flow, ...]) -> Policy:
        cgroup = self._cgroup()
        group = None
        if cgroup is not None and self._facts.cgroup_mount is not None:
            name = str(cgroup.relative_to("/sys/fs/cgroup"))
            group = ControlGroup(name, len(cgroup.relative_to(self._facts.cgroup_mount).parts))
        return derive(
            self._config,
            self._facts,
            tor_uid=uid,
            tor_cgroup=group,
            kept=kept,
            stamp=self._journal.stamp,
        )

    def _cgroup(self) -> Path | None:
        mount = self._facts.cgroup_mount
        return None if mount is None else mount / f"onionward-{self._journal.instance}"

    def _note(self, step: str, undo: object) -> None:
        """Write down what undoes a step, unless an earlier run has."""
        if step not in self._journal.undo:
            self._journal = replace(self._journal, undo={**self._journal.undo, step: undo})
            state.save(self._system, self._paths, self._journal)

    def _route(self, account: Account) -> Journal:
        open_policy = self._policy(account.uid, ())
        kept = flows.surviving(open_policy, flows.open_inbound(self._system), self._own)
        policy = self._policy(account.uid, kept)
        text = torrc(policy, self._paths, account=account.name, network=self._config.network_lines)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if not self._keeps_running(fingerprint):
            self._block(policy, account, text, fingerprint)
        self._resolve()
        self._spare_later(policy)
        ruleset = render.route(policy)
        backend.apply(self._system, ruleset)
        flows.forget_resolver_flows(self._system)
        digest = backend.verify(self._system, ruleset)
        self._journal = state.entered(self._journal, "routed", digest)
        state.save(self._system, self._paths, self._journal)
        self._report.step("routed: everything goes through Tor, the rest is refused")
        return self._journal

    def _spare_later(self, policy: Policy) -> None:
        """Write down which networks are reached directly: `down` leaves their flows alone."""
        rules = {"bypass": [str(network) for network in policy.bypass]}
        if self._journal.undo.get("rules") != rules:
            self._journal = replace(self._journal, undo={**self._journal.undo, "rules": rules})
            state.save(self._system, self._paths, self._journal)

    def _keeps_running(self, fingerprint: str) -> bool:
        """Whether this is a change of rules only, which needs no block in between."""
        return (
            self._journal.state == "routed"
            and self._journal.torrc == fingerprint
            and bool(tor_process.running(self._paths))
            and backend.read(self._system) is not None
        )

    def _block(self, policy: Policy, account: Account, text: str, fingerprint: str) -> None:
        system, paths = self._system, self._paths
        if not paths.state.is_dir():
            system.make_directory(paths.state, mode=0o711)
        self._journal = replace(
            self._journal, state="blocked", torrc="", digest="", config=self._config.source.name
        )
        cgroup = self._cgroup()
        self._note("rules", {"bypass": []})
        self._note("tor", {"cgroup": None if cgroup is None else str(cgroup)})
        if cgroup is not None:
            # nft resolves the group when the rules are loaded, so it must exist by then
            system.make_directory(cgroup)
        block = render.block(policy)
        backend.apply(system, block)
        digest = backend.verify(system, block)
        self._journal = state.entered(self._journal, "blocked", digest)
        state.save(system, paths, self._journal)
        self._report.step("blocked: nothing leaves but tor itself")
        flows.forget_tracked(system)
        flows.cut_sockets(system, flows.Spared(self._own, policy.bypass, policy.kept))
        self._virtual_route(policy)
        tor_process.stop(system, paths, None)
        tor_process.start(system, text, paths, account, cgroup)
        self._bootstrap()
        self._journal = replace(self._journal, torrc=fingerprint)
        state.save(system, paths, self._journal)

    def _virtual_route(self, policy: Policy) -> None:
        """Make addresses of .onion names local, so that a machine without IPv6 reaches them."""
        if not policy.ipv6:
            return
        network = str(policy.virtual6)
        earlier = self._journal.undo.get("virtual_route")
        if earlier is not None and earlier["network"] != network:
            _remove_virtual_route(self._system, earlier["network"])
            undo = {k: v for k, v in self._journal.undo.items() if k != "virtual_route"}
            self._journal = replace(self._journal, undo=undo)
        self._note("virtual_route", {"network": network})
        self._system.change(
            ["ip", "-6", "route", "replace", "local", network, "dev", "lo", "table", "local"]
        )

    def _bootstrap(self) -> None:
        from onionward.tor import control

        control.wait_for_circuits(
            self._paths,
            self._config.tor.bootstrap_timeout,
            lambda phase: self._report.bootstrap(phase.percent, phase.words()),
            lambda: bool(tor_process.running(self._paths)),
        )

    def _resolve(self) -> None:
        path = self._paths.resolv_conf
        saved = self._journal.undo.get("resolver")
        if saved is None:
            saved = resolver.survey(self._system, path, resolv_conf())
            self._note("resolver", saved)
        elif resolver.is_ours(path, saved):
            return
        else:
            # somebody has written it since: what returns later is theirs
            undo = {k: v for k, v in self._journal.undo.items() if k != "resolver"}
            self._journal = replace(self._journal, undo=undo)
            saved = resolver.survey(self._system, path, resolv_conf())
            self._note("resolver", saved)
        resolver.replace(self._system, path, saved)
        self._report.step(f"{path} points to Tor")

    def _recover(self, error: BaseException) -> StepError:
        words, hint = _words(error)
        if self._was_on:
            return StepError(
                f"{words}\n  The machine is {_state_now(self._system)}: it was on before, so it "
                "has not been opened.",
                hint or "repeat `onionward up`, or open it with `onionward down`",
            )
        if state.load(self._paths) is None:
            return StepError(f"{words}\n  Nothing was changed.", hint)
        try:
            _undo_everything(self._system, self._paths, self._journal, self._report)
        except StepError as second:
            return StepError(f"{words}\n  Putting everything back failed too: {second}", hint)
        return StepError(
            f"{words}\n  Everything was put back: the machine is off, as before.", hint
        )


def _words(error: BaseException) -> tuple[str, str]:
    if isinstance(error, OnionwardError):
        return error.message, error.hint
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ""
    return str(error), ""


def _state_now(system: System) -> str:
    held = backend.read(system)
    return (
        "NOT protected: the rules are gone" if held is None else "protected by the rules in force"
    )


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
    with _at_work(system, paths):
        journal = _journal_or_empty(paths, force=force)
        if journal is None:
            leftover = backend.any_table(system) or bool(tor_process.running(paths))
            if not leftover:
                return False
            journal = _empty_journal()
        _undo_everything(system, paths, journal, report, force=force)
        return True


def _journal_or_empty(paths: Paths, *, force: bool) -> Journal | None:
    try:
        return state.load(paths)
    except JournalError:
        if not force:
            raise
        return _empty_journal()


def _empty_journal() -> Journal:
    return Journal(state="blocked", since=0.0, instance="", stamp=0)


def _undo_everything(
    system: System, paths: Paths, journal: Journal, report: Reporter, *, force: bool = False
) -> None:
    """Undo every step in an order that opens the network last, past errors, and report them all."""
    undo = journal.undo
    attempts = _Attempts()
    cgroup = Path(undo["tor"]["cgroup"]) if undo.get("tor", {}).get("cgroup") else None
    attempts.take("stopping tor", lambda: tor_process.stop(system, paths, cgroup))
    if backend.any_table(system):
        attempts.take("cutting redirected flows", lambda: _cut(system, undo))
    # else nothing is redirected: a reboot, or an end before there were rules
    if attempts.failures and not force:
        raise StepError(
            f"{attempts.words()}\n  The machine is still closed: nothing leaves in clear.",
            "mend the cause and repeat `onionward down`, or open it all the same with --force",
        )
    if "resolver" in undo:
        note = attempts.take(
            f"restoring {paths.resolv_conf}",
            lambda: resolver.restore(system, paths.resolv_conf, undo["resolver"]),
        )
        if note:
            report.warn(note)
    if "virtual_route" in undo:
        attempts.take(
            "removing the route of .onion addresses",
            lambda: _remove_virtual_route(system, undo["virtual_route"]["network"]),
        )
    attempts.take("removing the rules", lambda: backend.remove_tables(system))
    attempts.take(
        "forgetting redirected flows",
        lambda: flows.forget_redirected(system, render.MARK_REDIRECTED),
    )
    if attempts.failures:
        raise StepError(
            f"not everything could be put back: {attempts.words()}",
            "mend the cause and repeat `onionward down`; the journal is kept for it",
        )
    system.remove_file(paths.journal)


class _Attempts:
    """Steps that are all taken, whatever becomes of the others."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def take(self, words: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except (OnionwardError, OSError) as error:
            self.failures.append(f"{words}: {_words(error)[0]}")
            return None

    def words(self) -> str:
        return "; ".join(self.failures)


def _cut(system: System, undo: Mapping[str, Any]) -> None:
    bypass = (ipaddress.ip_network(n) for n in undo.get("rules", {}).get("bypass", ()))
    spared = flows.Spared(own_addresses(system), tuple(bypass), flows.open_inbound(system))
    flows.cut_redirected(system, spared)


def _remove_virtual_route(system: System, network: str) -> None:
    shown = system.query(["ip", "-6", "route", "show", "table", "local", "type", "local", network])
    if shown.strip():
        system.change(["ip", "-6", "route", "del", "local", network, "dev", "lo", "table", "local"])
