"""What `onionward status` says: what the journal claims, held against what the machine has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from onionward import backend, state
from onionward import status_checks as checks
from onionward.dns import host as resolver
from onionward.errors import JournalError
from onionward.paths import BLOCKS_AT_BOOT, Paths
from onionward.system import System, at_once
from onionward.tor import process as tor_process

FORMAT = 1  # of the JSON


@dataclass(frozen=True, slots=True)
class Status:
    """The machine as it is.

    Attributes:
        format: version of this structure.
        state: "off", "blocked", "routed", or "open": activated, but the rules are gone.
        since: seconds since the epoch of the last change of state, or None.
        config: where the configuration came from, or None.
        scopes: who is routed, in words.
        tor: "running" or "stopped".
        tor_pid: its process id, or None.
        resolver: "tor", "onion" (only names under .onion go to tor), "changed" by somebody else,
            or "untouched".
        interfaces: those watched below IP.
        forwarded: for each interface of a LAN or bridge (containers, virtual machines) what becomes
            of packets from behind it: "routed", "blocked", "absent", "untouched".
        counters: packets stopped, by reason.
        problems: what is not as it should be, each with what to do.
        guard: whether what puts back what others change is there and holds its own rules.
        guard_events: what it has seen and done, oldest first: "time" in seconds since the epoch,
            "words", "count".
        confirm: seconds until it undoes itself unless it is confirmed, or None.
        since_boot: whether what blocks is the block of the boot, because `up` has not succeeded.
        at_boot: whether a boot is blocked from the beginning and routed then.
        tor_bootstrap: how far tor is, in percent, or None when it does not say.
        tor_phase: the same in its words.
        tor_guards: the first relays of its circuits for traffic.
        tor_exits: the last ones.
        tor_circuits: how many circuits for traffic there are.
        stopped: packets stopped, by sender and reason (`status_attempts.stopped`).
        attempts: who tried what, as far as it was told, the latest last
            (`status_attempts.attempts`).
        attempts_lost: how often there was more to tell than fitted.
        exit_address: what a server sees, if one was asked and has answered.
        tor_places: to how many addresses with a port tor is held: relays of the consensus, or
            bridges; None when it may reach anything.
        consensus_valid_until: UTC, of the consensus that they are from; "" otherwise.
        clock_skew: by how many seconds the clock is ahead of others', negative when behind, as tor
            was told last; None when nobody has said so.
        clock_source: by whose word, or "".
        limits: what is not covered on this machine, each with its reason, as the last `up` found.
        paused: accounts that get nothing through: "account", "since" in seconds since the epoch,
            "until" or None.
        full_dns: whether this host's names are resolved by unbound, whatever the type of record.

    """

    format: int
    state: Literal["off", "blocked", "routed", "open"]
    since: float | None
    config: str | None
    scopes: tuple[str, ...]
    tor: Literal["running", "stopped"]
    tor_pid: int | None
    resolver: Literal["tor", "onion", "changed", "untouched"]
    interfaces: tuple[str, ...]
    forwarded: dict[str, str]
    counters: dict[str, int]
    problems: tuple[str, ...]
    confirm: int | None = None
    guard: Literal["running", "suspended", "ended", "none"] = "none"
    guard_events: tuple[dict[str, Any], ...] = ()
    since_boot: bool = False
    at_boot: Literal["enabled", "disabled"] = "disabled"
    tor_bootstrap: int | None = None
    tor_phase: str = ""
    tor_guards: tuple[str, ...] = ()
    tor_exits: tuple[str, ...] = ()
    tor_circuits: int = 0
    stopped: tuple[dict[str, Any], ...] = ()
    attempts: tuple[dict[str, Any], ...] = ()
    attempts_lost: int = 0
    exit_address: str | None = None
    tor_places: int | None = None
    consensus_valid_until: str = ""
    clock_skew: int | None = None
    clock_source: str = ""
    limits: tuple[str, ...] = ()
    paused: tuple[dict[str, Any], ...] = ()
    full_dns: bool = False


def gather(system: System, paths: Paths) -> Status:
    """Read the machine; changes nothing.

    Raises:
        JournalError: the journal is damaged.

    """
    found, since_boot = at_once(
        lambda: _without_boot(system, paths), lambda: backend.blocked_since_boot(system)
    )
    enabled, problems = _boot()
    state_now = found.state
    if since_boot:
        state_now = "blocked"
        others = () if found.state == "open" else found.problems
        problems = (
            "blocked since the boot, because `onionward up` has not succeeded; "
            "`onionward up` tries again, `onionward down` opens the network",
            *others,
            *problems,
        )
    else:
        problems = (*found.problems, *problems)
    from onionward import saved_rulesets

    return replace(
        found,
        state=state_now,
        problems=(*problems, *saved_rulesets.problems()),
        since_boot=since_boot,
        at_boot="enabled" if enabled else "disabled",
    )


def with_exit_address(found: Status, paths: Paths, url: str) -> Status:
    """The same with the address that a server sees; a problem when none tells.

    Args:
        found: of a machine whose tor may run.
        paths: of tor's SOCKS port.
        url: of the server, or "default".

    Raises:
        RefusedError: it is no URL.

    """
    from onionward.errors import TorError
    from onionward.tor import exit_address

    if found.tor != "running":
        return found
    try:
        asked = exit_address.DEFAULT_URL if url == "default" else url
        return replace(found, exit_address=exit_address.ask(paths, asked))
    except TorError as error:
        words = f"the exit's address is not known: {error.message}; try again"
        return replace(found, problems=(*found.problems, words))


def _boot() -> tuple[bool, tuple[str, ...]]:
    """Whether the boot is protected, and what is wrong with that."""
    if not any(path.exists() for path in BLOCKS_AT_BOOT):
        return False, ()
    from onionward.boot import install

    return install.is_enabled(), install.problems()


def _without_boot(system: System, paths: Paths) -> Status:
    # a machine that is off needs none of these
    from onionward import limits, status_attempts
    from onionward.tor import clock, glance
    from onionward.tor import held as held_to

    try:
        journal = state.load(paths)
    except JournalError:
        from onionward.lifecycle.deactivation import load_journal

        journal = load_journal(system, paths)
    if journal is None:
        present = backend.present(system)
        if not paths.runtime.exists() and not present:
            return _without_journal(paths, None, (), {})
        rules = [(one, held) for one in present if (held := one.read(system)) is not None]
        counters = rules[0][0].counters(rules[0][1]) if rules else {}
        return _without_journal(
            paths, rules[0][1] if rules else None, tor_process.running(paths), counters
        )
    pids = tor_process.running(paths)
    decides = backend.in_force(journal)
    has_guard = "guard" in journal.undo
    # each takes a program of its own
    held, is_guarded = at_once(
        lambda: decides.read(system), lambda: has_guard and backend.is_guarded(system)
    )
    digest = None if held is None else decides.digest(held)
    problems = []
    reach = journal.undo.get("rules", {})
    now: Literal["blocked", "routed", "open"] = (
        ("blocked" if is_guarded else "open")
        if held is None
        else decides.held_state(held) or journal.state
    )
    if held is None and is_guarded:
        problems.append(
            "only the guard's rules are left, which let nothing of the scopes pass: another "
            "program removed the others; `onionward up` puts them back"
        )
    elif held is None:
        problems.append(
            "NOT PROTECTED: the rules are gone (a reboot, or another program removed them); "
            "`onionward up` puts them back, `onionward down` restores the rest"
        )
    else:
        if now == "blocked" or now != journal.state:
            problems.append(
                "not everything is in place; the guard is putting it right, or another command is "
                "at work; if it lasts, `onionward up` goes on"
                if has_guard and is_guarded
                else "`onionward up` or `onionward down` has not finished: `onionward up` goes on, "
                "`onionward down` puts everything back"
            )
        if now == journal.state and journal.digest and digest != journal.digest:
            problems.append(
                "the rules are not the ones that were loaded: an interface is gone, or another "
                "program changed them; `onionward up` puts them right"
            )
        problems += [
            f"a rule of another program runs before ours: {place}; `onionward up` puts ours first "
            "again"
            for place in decides.ahead(held)
        ]
        watches = reach.get("host", True) and backend.has_nft()
        appeared = checks.unwatched(decides.watched_devices(held)) if watches else []
        if appeared:
            problems.append(
                f"{', '.join(appeared)} appeared since: covered as to IP, but packet sockets there "
                "are not watched; `onionward up` includes it"
            )
    if not pids and now != "open":
        now = "blocked"
        problems.append("tor is not running: traffic is blocked; `onionward up` starts it again")
    is_suspended = any(tor_process.is_suspended(pid) for pid in pids)
    if is_suspended:
        problems.append("tor is suspended and carries nothing: `onionward up` starts another one")
    saved = journal.undo.get("resolver")
    resolves: Literal["tor", "onion", "changed", "untouched"] = "untouched"
    if saved is not None and resolver.is_in_force(saved, paths):
        resolves = "tor"
    elif saved is not None and not resolver.is_undone(saved, paths):
        resolves = "changed"
    if "onion" in journal.undo:
        resolves = "onion"
    if saved is not None and resolves in ("tor", "changed"):
        problems += [
            f"{words}; queries still go to Tor or fail; `onionward up` puts it right"
            for words in resolver.problems(system, saved, paths)
        ]
    if saved is not None and resolver.is_covered(saved, paths):
        problems.append(
            f"something has been mounted over {paths.resolv_conf}; queries still go to Tor or "
            f"fail; `umount {paths.resolv_conf}` before `onionward down`, which cannot put the "
            "original back below it"
        )
    guarded: Literal["running", "suspended", "ended", "none"] = "none"
    hold = "the rules hold, but " if digest == journal.digest else ""
    if has_guard:
        guarded = "running" if is_guarded or _is_guarded(system, paths) else "ended"
    if guarded == "running" and _is_guard_suspended(paths):
        guarded = "suspended"
        problems.append(
            f"the guard is suspended: {hold}nothing puts back what others change; "
            "`onionward up` starts another"
        )
    if guarded == "ended":
        problems.append(
            f"the guard has ended: {hold}nothing puts back what others change; `onionward up` "
            "starts it again"
        )
    left = None
    if "confirm" in journal.undo:
        from onionward import confirmation

        left = confirmation.seconds_left(journal)
        problems += confirmation.problems(journal, paths)
    problems += checks.of_surroundings(system, paths, journal)
    stopped = checks.stopped_at_bridges(system, journal)
    problems += checks.of_ports(reach, stopped)
    if held is not None:
        problems += checks.of_lost_ports(reach, journal, stopped)
    seen = glance.look(paths) if pids and not is_suspended else glance.Glance()
    skew, places = clock.read(paths) if pids else None, held_to.load(paths)
    attempts, lost = status_attempts.attempts(paths, reach)
    return Status(
        format=FORMAT,
        state=now,
        since=journal.since or None,
        config=journal.config,
        scopes=tuple(journal.scopes),
        tor="running" if pids else "stopped",
        tor_pid=pids[0] if pids else None,
        resolver=resolves,
        interfaces=decides.watched_devices(held or ""),
        forwarded=checks.forwarded(reach, now, stopped),
        counters=decides.counters(held or ""),
        problems=tuple(problems),
        guard=guarded,
        guard_events=_guard_events(paths) if guarded in ("running", "suspended") else (),
        confirm=left,
        tor_bootstrap=seen.percent,
        tor_phase=seen.phase,
        tor_guards=seen.guards,
        tor_exits=seen.exits,
        tor_circuits=seen.circuits,
        stopped=status_attempts.stopped(held or "", reach),
        attempts=attempts,
        attempts_lost=lost,
        tor_places=places.places if places else None,
        consensus_valid_until=places.valid_until if places else "",
        clock_skew=skew.seconds if skew else None,
        clock_source=skew.source if skew else "",
        limits=limits.load(paths),
        paused=_paused(journal),
        full_dns="full_dns" in journal.undo,
    )


def _paused(journal: state.Journal) -> tuple[dict[str, Any], ...]:
    if "paused" not in journal.undo:
        return ()
    from onionward import pauses

    return tuple(
        {"account": pause.name, "since": pause.since, "until": pause.until}
        for pause in pauses.noted(journal)
    )


def _is_guard_suspended(paths: Paths) -> bool:
    if not paths.guard_record.exists():
        return False
    from onionward.guard import record

    return tor_process.is_suspended(record.pid(paths.guard_record))


def _guard_events(paths: Paths) -> tuple[dict[str, Any], ...]:
    if not paths.guard_record.exists():
        return ()
    from onionward.guard import record

    return tuple(record.load(paths.guard_record))


def _is_guarded(system: System, paths: Paths) -> bool:
    """Its tables tell more than its process, where there is nft for them."""
    if backend.has_nft():
        return backend.is_guarded(system)
    from onionward.guard import process

    return bool(process.running(paths))


def _without_journal(
    paths: Paths, held: str | None, pids: tuple[int, ...], counters: dict[str, int]
) -> Status:
    problems = []
    saved = None if resolver.is_untouched(paths) else resolver.recognise(paths)
    if lost := resolver.lost_original(paths):
        problems.append(lost)
    if held is not None or pids or (saved is not None and not lost):
        problems.append(
            "the journal is missing, but rules, a tor or a resolv.conf of onionward are there; "
            "`onionward down` removes them"
        )
    return Status(
        format=FORMAT,
        state="off" if held is None else "blocked",
        since=None,
        config=None,
        scopes=(),
        tor="running" if pids else "stopped",
        tor_pid=pids[0] if pids else None,
        resolver="tor" if saved and resolver.is_in_force(saved, paths) else "untouched",
        interfaces=(),
        forwarded={},
        counters=counters,
        problems=tuple(problems),
    )
