"""`up`: block, tor, resolver, route; what undoes a step is on disk before it is taken."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from onionward import applied, backend, confirmation, flows, pauses, state
from onionward import limits as known_limits
from onionward.config.values import Config
from onionward.confirmation import process as confirm_process
from onionward.describe import scopes
from onionward.dns import host as resolver
from onionward.errors import CommandError, ConfigError, OnionwardError, RefusedError, StepError
from onionward.facts import Account, Facts
from onionward.guard import process as guard
from onionward.lifecycle import cutting, surroundings
from onionward.lifecycle.deactivation import at_work, load_journal, state_now, undo_everything
from onionward.lifecycle.reporter import Reporter, words_of
from onionward.lifecycle.surroundings import Surrounding
from onionward.lifecycle.validation import refuse_to_cut_ssh, validate, ways_around
from onionward.paths import OF_RUNS, Paths
from onionward.pauses import Pause
from onionward.policy import ControlGroup, Flow, Policy, derive, reach
from onionward.render.torrc import relays, torrc
from onionward.state import Journal
from onionward.system import System, at_once, find_tool
from onionward.tor import account as tor_account
from onionward.tor import held as held_to
from onionward.tor import process as tor_process
from onionward.tor.following import Following, consensuses


class Request(NamedTuple):
    """What `up` was asked for.

    Attributes:
        config: read and free of contradictions.
        accept_cut: go on though the SSH session it was typed in will be cut.
        create_users: create accounts that the configuration names and that do not exist.
        confirm: undo it after so many seconds unless `onionward confirm` comes; None: it stays.
        resolver: who manages resolv.conf, whatever the configuration says; "": as it says.
        pauses: who gets nothing through; None: as before.

    """

    config: Config
    accept_cut: bool = False
    create_users: bool = False
    confirm: int | None = None
    resolver: str = ""
    pauses: tuple[Pause, ...] | None = None


def up(system: System, request: Request, paths: Paths, report: Reporter) -> Journal:
    """Route, from whatever state the machine is in.

    Raises:
        RefusedError: nothing was touched.
        StepError: a step failed; the message says what state the machine is in.

    """
    if os.geteuid() != 0:
        _validate(system, request, paths)
    with at_work(system, paths, report):
        return up_under_lock(system, request, paths, report)


def up_under_lock(system: System, request: Request, paths: Paths, report: Reporter) -> Journal:
    """As `up`, for whoever holds the lock already."""
    previous = load_journal(system, paths)
    facts, limits, since_boot = _look(system, request, paths)
    if not request.accept_cut:
        refuse_to_cut_ssh(request.config, facts)
    if request.confirm is not None:
        if since_boot:
            raise RefusedError(
                "--confirm: the machine is blocked since its boot, and there is no other way back "
                "than an open network; nothing was touched",
                "run `onionward up` without --confirm",
            )
        confirmation.refuse_without_a_way_back(paths, previous)
    for limit in limits:
        report.warn(limit)
    _look_at_boot(request.config, facts, report)
    if previous is not None and previous.config not in ("", (place := request.config.source.place)):
        report.step(f"{previous.config} was in force; {place} takes its place")
    activation = _Activation(
        system, request, paths, report, facts, previous, limits=limits, since_boot=since_boot
    )
    return activation.run()


def _validate(system: System, request: Request, paths: Paths) -> tuple[Facts, tuple[str, ...]]:
    return validate(
        system,
        request.config,
        paths,
        create_users=request.create_users,
        resolver=request.resolver,
    )


def _look(system: System, request: Request, paths: Paths) -> tuple[Facts, tuple[str, ...], bool]:
    """Validate, and see whether the machine is blocked since its boot."""
    validated, since_boot = at_once(
        lambda: _validate(system, request, paths), lambda: backend.blocked_since_boot(system)
    )
    return *validated, since_boot


def _look_at_boot(config: Config, facts: Facts, report: Reporter) -> None:
    from onionward.boot import way_out

    if not way_out.is_enabled():
        return
    from onionward.boot import prepare

    if prepare.is_stale(config, facts):
        report.warn(
            "the block of the boot is not that of this configuration: repeat `onionward enable`"
        )


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
        *,
        limits: tuple[str, ...],
        since_boot: bool,
    ) -> None:
        self._system = system
        self._limits = limits
        self._config = request.config
        self._paths = paths
        self._report = report
        self._facts = facts
        self._previous = previous
        self._was_on = previous is not None
        self._confirm = request.confirm
        self._resolver = request.resolver
        self._since_boot = since_boot
        self._filter = backend.chosen(request.config)
        self._journal = previous or Journal(
            state="blocked",
            since=0.0,
            instance=os.urandom(4).hex(),
            stamp=int.from_bytes(os.urandom(4)) | 1,
            filters=[self._filter.NAME],
        )
        self._own = facts.addresses
        # those that have ended by themselves are given up here
        self._pauses = pauses.lasting(previous) if request.pauses is None else request.pauses
        self._has_pauses = bool(self._pauses or pauses.noted(previous))

    def run(self) -> Journal:
        try:
            account = tor_account.ensure(self._system, self._config.tor.user, self._paths)
            self._create_users()
        except OnionwardError as error:
            raise StepError(f"{error.message}; nothing else was touched", error.hint) from error
        try:
            self._await_confirmation()
            return self._route(account)
        except BaseException as error:
            # whatever it is, the machine must not be left half way without a word
            raise self._recover(error) from error

    def _await_confirmation(self) -> None:
        if self._confirm is None:
            return
        if not self._paths.state.is_dir():
            self._system.make_directory(self._paths.state, mode=0o711)
        entry = confirmation.awaited(self._paths, self._previous, self._confirm)
        self._note_confirmation(entry)
        self._note_confirmation({**entry, "pid": confirm_process.start(self._system, self._paths)})

    def _note_confirmation(self, entry: Mapping[str, object]) -> None:
        undo = {**self._journal.undo, confirmation.STEP: entry}
        self._journal = replace(self._journal, undo=undo)
        state.save(self._system, self._paths, self._journal)

    def _create_users(self) -> None:
        if not self._config.user:
            return
        from onionward import accounts

        found = {user.account.name: user for user in self._facts.users}
        names = [user.name for user in self._config.user]
        users = tuple(found.get(name) or accounts.create(self._system, name) for name in names)
        self._facts = replace(self._facts, users=users)
        created = [name for name in names if name not in found]
        for name in created:
            self._report.step(f"account {name} created; it stays after `onionward down`")
        if created and (ways := ways_around(self._system, self._config, self._facts)):
            raise ConfigError(ways)

    def _policy(self, uid: int) -> Policy:
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
            stamp=self._journal.stamp,
            paused=(pause.user() for pause in self._pauses),
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
        without_kept = self._policy(account.uid)
        after = flows.Reach.of(without_kept)
        before = self._reach_before()
        if before is not None and after.lacks(before):
            self._give_up(before)
            self._name_the_given_up(without_kept)
        policy = without_kept.keeping(
            flows.kept(self._system, without_kept, self._own), self._client_flows(before)
        )
        lines = relays(self._config, self._facts.installed)
        text = torrc(policy, self._paths, account=account.name, network=lines)
        fingerprint = backend.fingerprint(text)
        around = surroundings.of(
            self._system, self._paths, self._config, policy, self._facts, account
        )
        first = [surrounding for surrounding in around if surrounding.before_rules]
        later = [surrounding for surrounding in around if not surrounding.before_rules]
        if before is not None and self._keeps_running(fingerprint):
            self._expect(after)
            self._surround(first)
            digest = self._load(policy)
            if self._has_pauses:
                cutting.cut(self._system, self._paths, self._pauses)
            self._guard(policy)
            if before.lacks(after):
                flows.cut_from_before(self._system, policy, self._own, before)
            self._put_back(policy, around)
            self._surround(later)
            self._resolve(policy)
        else:
            self._expect(after)
            self._block(policy)
            self._guard(policy)
            self._put_back(policy, around)
            self._surround(first)
            policy = self._start_tor(account, text, fingerprint, policy)
            if self._has_pauses:
                cutting.close_runs(self._system, self._paths, self._pauses)
            self._surround(later)
            self._resolve(policy)
            digest = self._load(policy.keeping(policy.kept, self._client_flows(before)))
        flows.forget_resolver_flows(self._system)
        self._enter("routed", policy, digest)
        guard.settle(self._system, self._paths)
        self._report.step(f"routed: {'; '.join(scopes(policy))}")
        return self._journal

    def _reach_before(self) -> flows.Reach | None:
        """What is routed now; None when nothing is."""
        noted = self._journal.undo.get("rules")
        if noted is None or not backend.any_table(self._system, backend.noted(self._journal)):
            return None
        return flows.Reach.from_json(noted)

    def _client_flows(self, before: flows.Reach | None) -> tuple[Flow, ...]:
        """What the rules know of clients, which the next rules must not forget."""
        if before is None or not before.lans:
            return ()
        return backend.in_force(self._journal).client_flows(self._system)

    def _give_up(self, before: flows.Reach) -> None:
        """Cut what goes through tor, as `down` does it: the rest of it would be sent in clear."""
        flows.cut_clients(self._system)
        # nothing new is redirected after that, and the old rules refuse it
        tor_process.stop(self._system, self._paths, None)
        flows.cut_redirected(self._system, before, self._own)
        if before.lans:
            from onionward.lan import client_flows

            remembered = backend.in_force(self._journal).client_flows
            client_flows.end(self._system, remembered, self._journal.stamp)
        self._report.step("cut: connections through Tor, because not everything stays routed")

    def _name_the_given_up(self, policy: Policy) -> None:
        stays = scopes(policy)
        if gone := [words for words in self._journal.scopes if words not in stays]:
            self._report.warn(f"no longer so: {'; '.join(gone)}")

    def _expect(self, after: flows.Reach) -> None:
        """Write down what will be routed, before it is: `down` cuts that."""
        if not self._paths.state.is_dir():
            self._system.make_directory(self._paths.state, mode=0o711)
        rules = after.to_json()
        others = [name for name in self._journal.filters if name != self._filter.NAME]
        filters = [*others, self._filter.NAME]
        undo = pauses.undo_with({**self._journal.undo, "rules": rules}, self._pauses)
        if self._journal.undo != undo or self._journal.filters != filters:
            # not as it was, and not finished
            self._journal = replace(self._journal, state="blocked", undo=undo, filters=filters)
            state.save(self._system, self._paths, self._journal)

    def _remove_others(self) -> None:
        """Remove what another packet filter holds, now that this one blocks."""
        for other in backend.noted(self._journal)[:-1]:
            other.remove_tables(self._system)
        self._journal = replace(self._journal, filters=[self._filter.NAME])

    def _load(self, policy: Policy) -> str:
        return self._apply(self._filter.route(policy))

    def _apply(self, ruleset: Any) -> str:
        # for the guard, should others remove them
        self._system.write_file(self._paths.rules, self._filter.text(ruleset), mode=0o600)
        self._filter.apply(self._system, ruleset)
        if self._was_on and self._journal.undo["rules"]["lans"]:
            from onionward.lan import client_flows

            client_flows.catch_up(self._system, self._filter)
        return self._filter.verify(self._system, ruleset)

    def _guard(self, policy: Policy) -> None:
        """Have a guard with rules of its own for what is routed now."""
        from onionward.render.nftables import lock

        self._note("guard", {})
        has_nft = find_tool("nft") is not None
        document = lock.NOTHING
        if has_nft:
            lists = consensuses(self._config, self._paths.tor_data)
            document = lock.document(policy, self._config.log.attempts, lists)
        guard.ensure(self._system, self._paths, document)

    def _enter(self, entered: state.State, policy: Policy, digest: str) -> None:
        """Write down which rules are in force."""
        journal = replace(
            self._journal, config=self._config.source.place, scopes=list(scopes(policy))
        )
        if entered == "routed":
            applied.save(self._system, self._paths, self._config)
            known_limits.save(self._system, self._paths, self._limits)
            self._save_reach(policy)
            if self._confirm is not None:
                journal = confirmation.renewed(journal, self._confirm)
        self._journal = state.entered(journal, entered, digest)
        state.save(self._system, self._paths, self._journal)

    def _save_reach(self, policy: Policy) -> None:
        held = None
        if policy.reach is not None:
            held = held_to.Held(len(policy.reach), self._facts.directory.valid_until)
        held_to.save(self._system, self._paths, held)

    def _keeps_running(self, fingerprint: str) -> bool:
        """Whether this is a change of rules only, which needs no block in between."""
        return (
            self._journal.state == "routed"
            and self._journal.torrc == fingerprint
            and self._tor_works()
            and self._journal.filters == [self._filter.NAME]
            and self._filter.read(self._system) is not None
        )

    def _tor_works(self) -> bool:
        pids = tor_process.running(self._paths)
        return (
            bool(pids)
            and not any(map(tor_process.is_suspended, pids))
            and self._paths.control_socket.is_socket()
            and all(tor_process.own_group_of(pid) == self._group_name() for pid in pids)
        )

    def _group_name(self) -> str | None:
        cgroup = self._cgroup()
        return None if cgroup is None else str(cgroup)

    def _block(self, policy: Policy) -> None:
        cgroup = self._cgroup()
        self._note("tor", {"cgroup": self._group_name()})
        if cgroup is not None:
            # nft resolves the group when the rules are loaded, so it must exist by then
            self._system.make_directory(cgroup)
        digest = self._apply(self._filter.block(policy))
        self._remove_others()
        self._journal = replace(self._journal, torrc="")
        self._enter("blocked", policy, digest)
        self._report.step(f"blocked: {_blocked_words(policy)}")
        flows.cut_from_before(self._system, policy, self._own)

    def _start_tor(self, account: Account, text: str, fingerprint: str, policy: Policy) -> Policy:
        """Start it, and return the policy by what it has heard of relays."""
        tor_process.stop(self._system, self._paths, None)
        # it has the data that this one wants; who runs something is served by this one then
        tor_process.stop(self._system, OF_RUNS, None)
        tor_process.start(self._system, text, self._paths, account, self._cgroup())
        policy = self._bootstrap(policy)
        self._journal = replace(self._journal, torrc=fingerprint)
        state.save(self._system, self._paths, self._journal)
        return policy

    def _put_back(self, policy: Policy, around: Sequence[Surrounding]) -> None:
        """Put back what an earlier configuration changed and this one does not want, or otherwise.

        In the order of `down`, when rules for what is routed now are in force.
        """
        if policy.route != "tor" and (saved := self._journal.undo.get("resolver")) is not None:
            self._tell(resolver.restore(self._system, saved, self._paths))
            self._forget("resolver")
            state.save(self._system, self._paths, self._journal)
        for surrounding in reversed(around):
            noted = self._journal.undo.get(surrounding.name)
            if noted is None:
                continue
            kept, gone = surrounding.part(noted)
            if gone is None:
                continue
            self._tell(surrounding.restore(gone))
            self._forget(surrounding.name)
            if kept is not None:
                undo = {**self._journal.undo, surrounding.name: {**noted, "saved": kept}}
                self._journal = replace(self._journal, undo=undo)
            state.save(self._system, self._paths, self._journal)

    def _surround(self, around: Sequence[Surrounding]) -> None:
        """Change what surrounds the packet rules, each when what undoes it is written down."""
        for wanted in around:
            if wanted.key is None:
                continue
            noted = self._journal.undo.get(wanted.name)
            found = wanted.survey(noted["saved"] if noted else None)
            entry = {"key": wanted.key, "saved": found}
            if entry != noted:
                undo = {**self._journal.undo, wanted.name: entry}
                self._journal = replace(self._journal, undo=undo)
                state.save(self._system, self._paths, self._journal)
            wanted.apply(found)

    def _tell(self, note: str) -> None:
        if note:
            self._report.warn(note)

    def _bootstrap(self, policy: Policy) -> Policy:
        from onionward.foreign_rules import trace
        from onionward.tor import clock, control, exits

        def stopping() -> str:
            exits.refuse_none(self._paths, self._config.tor)
            try:
                words = trace.words(trace.stopped(self._system, policy.tor_uid))
            except CommandError:
                # tor's own reason is the better one
                return ""
            if words:
                self._report.warn(f"tor does not get on; {words}")
            return words

        following = Following(
            self._config, self._paths.tor_data, self._facts.tor_path, self._facts.directory
        )

        def follow() -> None:
            # a relay that tor has just heard of is silent until the rules know it, too
            nonlocal policy
            if (found := following.changed()) is not None:
                self._facts = replace(self._facts, directory=found)
                policy = replace(policy, reach=reach(self._config, found))
                self._enter("blocked", policy, self._apply(self._filter.block(policy)))

        control.wait_for_circuits(
            self._paths,
            self._config.tor.bootstrap_timeout,
            lambda phase: self._report.bootstrap(phase.percent, phase.words()),
            lambda: bool(tor_process.running(self._paths)),
            stopping,
            follow,
        )
        if (skew := clock.read(self._paths)) is not None:
            self._report.warn(f"the clock of this machine is {skew.words()}")
        return policy

    def _resolve(self, policy: Policy) -> None:
        if policy.route != "tor":
            return
        saved = self._journal.undo.get("resolver")
        # what was asked for holds until `down`
        asked = self._resolver or (saved["asked"] if saved else "")
        wanted = asked or self._config.resolver
        if saved is not None and resolver.is_stale(self._system, saved, wanted, self._paths):
            self._tell(resolver.restore(self._system, saved, self._paths))
            self._forget("resolver")
            saved = None
        found = resolver.survey(self._system, wanted, saved, self._paths, asked=asked)
        if found != saved:
            self._journal = replace(self._journal, undo={**self._journal.undo, "resolver": found})
            state.save(self._system, self._paths, self._journal)
        if resolver.apply(self._system, found, self._paths):
            self._report.step(resolver.words(found, self._paths))

    def _recover(self, error: BaseException) -> StepError:
        words, hint = words_of(error)
        if self._since_boot:
            from onionward.boot.way_out import WAY_OUT

            words = f"{words}\n  The machine was blocked since its boot: {WAY_OUT}"
            return StepError(words, hint)
        if self._was_on:
            return StepError(
                f"{words}\n  The machine is {state_now(self._system, self._journal)}. It was on "
                f"before, so nothing has been opened.{self._way_back()}",
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

    def _way_back(self) -> str:
        left = confirmation.seconds_left(self._journal)
        return "" if left is None else f" In {left} s what was in force before comes back."


def _blocked_words(policy: Policy) -> str:
    if policy.route == "tor":
        return "nothing leaves but tor itself"
    return "nothing of the routed scopes leaves"
