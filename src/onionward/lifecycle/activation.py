"""`up`: block, tor, resolver, route; what undoes a step is on disk before it is taken."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from onionward import flows, state
from onionward.backend import nftables as backend
from onionward.config.values import Config
from onionward.dns import file as resolver
from onionward.errors import OnionwardError, StepError
from onionward.facts import Account, Facts
from onionward.lifecycle.deactivation import (
    at_work,
    remove_virtual_route,
    state_now,
    undo_everything,
)
from onionward.lifecycle.reporter import Reporter, words_of
from onionward.lifecycle.validation import refuse_to_cut_ssh, validate
from onionward.paths import Paths
from onionward.policy import ControlGroup, Flow, Policy, derive
from onionward.render import nftables as render
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import torrc
from onionward.state import Journal
from onionward.system import System
from onionward.tor import account as tor_account
from onionward.tor import process as tor_process


@dataclass(frozen=True, slots=True)
class Request:
    """What `up` was asked for.

    Attributes:
        config: read and free of contradictions.
        accept_cut: go on though the SSH session it was typed in will be cut.

    """

    config: Config
    accept_cut: bool = False


def up(system: System, request: Request, paths: Paths, report: Reporter) -> Journal:
    """Route, from whatever state the machine is in.

    Raises:
        RefusedError: nothing was touched.
        StepError: a step failed; the message says what state the machine is in.

    """
    if os.geteuid() != 0:
        validate(system, request.config, paths)
    with at_work(system, paths):
        previous = state.load(paths)
        facts, limits = validate(system, request.config, paths)
        if not request.accept_cut:
            refuse_to_cut_ssh(request.config, facts)
        for limit in limits:
            report.warn(limit)
        activation = _Activation(system, request, paths, report, facts, previous)
        return activation.run()


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

    def run(self) -> Journal:
        try:
            account = tor_account.ensure(self._system, self._config.tor.user, self._paths)
        except OnionwardError as error:
            raise StepError(f"{error.message}; nothing else was touched", error.hint) from error
        try:
            return self._route(account)
        except BaseException as error:
            # whatever it is, the machine must not be left half way without a word
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

    def _forget(self, step: str) -> None:
        """Drop what undoes a step; the next `_note` writes the journal."""
        undo = {name: how for name, how in self._journal.undo.items() if name != step}
        self._journal = replace(self._journal, undo=undo)

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
            and self._tor_works()
            and backend.read(self._system) is not None
        )

    def _tor_works(self) -> bool:
        pids = tor_process.running(self._paths)
        return bool(pids) and not any(map(tor_process.is_suspended, pids))

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
            remove_virtual_route(self._system, earlier["network"])
            self._forget("virtual_route")
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
        if saved is not None:
            if resolver.is_ours(path, saved):
                return
            # somebody has written it since: what returns later is theirs
            self._forget("resolver")
        saved = resolver.survey(self._system, path, resolv_conf())
        self._note("resolver", saved)
        resolver.replace(self._system, path, saved)
        self._report.step(f"{path} points to Tor")

    def _recover(self, error: BaseException) -> StepError:
        words, hint = words_of(error)
        if self._was_on:
            return StepError(
                f"{words}\n  The machine is {state_now(self._system)}. It was on before, so "
                "nothing has been opened.",
                hint or "repeat `onionward up`, or open it with `onionward down`",
            )
        if state.load(self._paths) is None:
            return StepError(f"{words}\n  Nothing was changed.", hint)
        try:
            undo_everything(self._system, self._paths, self._journal, self._report)
        except StepError as second:
            return StepError(f"{words}\n  Putting everything back failed too: {second}", hint)
        # tor's log went with everything else
        hint = "" if str(self._paths.tor_log) in hint else hint
        return StepError(
            f"{words}\n  Everything was put back: the machine is off, as before.", hint
        )
