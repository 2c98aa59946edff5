"""What `onionward status` says: what the journal claims, held against what the machine has."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from onionward import state
from onionward.backend import nftables as backend
from onionward.dns import file as resolver
from onionward.paths import BLOCKS_AT_BOOT, Paths
from onionward.render.resolver import resolv_conf
from onionward.system import System
from onionward.tor import process as tor_process

FORMAT = 1  # of the JSON
_DEVICES = Path("/proc/self/net/dev")
_INTERFACES = Path("/sys/class/net")


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
        confirm: seconds until it undoes itself unless it is confirmed, or None.
        since_boot: whether what blocks is the block of the boot, because `up` has not succeeded.
        at_boot: whether a boot is blocked from the beginning and routed then.

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
    since_boot: bool = False
    at_boot: Literal["enabled", "disabled"] = "disabled"


def gather(system: System, paths: Paths) -> Status:
    """Read the machine; changes nothing.

    Raises:
        JournalError: the journal is damaged.

    """
    found = _without_boot(system, paths)
    enabled, problems = _boot()
    since_boot = backend.blocked_since_boot(system)
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
    return replace(
        found,
        state=state_now,
        problems=problems,
        since_boot=since_boot,
        at_boot="enabled" if enabled else "disabled",
    )


def _boot() -> tuple[bool, tuple[str, ...]]:
    """Whether the boot is protected, and what is wrong with that."""
    if not any(path.exists() for path in BLOCKS_AT_BOOT):
        return False, ()
    from onionward.boot import install

    return install.is_enabled(), install.problems()


def _without_boot(system: System, paths: Paths) -> Status:
    journal = state.load(paths)
    if journal is None and not paths.runtime.exists() and not backend.any_table(system):
        return _without_journal(paths, None, ())
    pids = tor_process.running(paths)
    held = backend.read(system)
    if journal is None:
        return _without_journal(paths, held, pids)
    problems = []
    reach = journal.undo.get("rules", {})
    now: Literal["blocked", "routed", "open"] = (
        "open" if held is None else backend.held_state(held) or journal.state
    )
    if held is None:
        problems.append(
            "NOT PROTECTED: the rules are gone (a reboot, or another program removed them); "
            "`onionward up` puts them back, `onionward down` restores the rest"
        )
    else:
        if now == "blocked" or now != journal.state:
            problems.append(
                "`onionward up` or `onionward down` has not finished: `onionward up` goes on, "
                "`onionward down` puts everything back"
            )
        if now == journal.state and journal.digest and backend.digest(held) != journal.digest:
            problems.append(
                "the rules are not the ones that were loaded: an interface is gone, or another "
                "program changed them; `onionward up` puts them right"
            )
        appeared = _unwatched(backend.watched_devices(held)) if reach.get("host", True) else []
        if appeared:
            problems.append(
                f"{', '.join(appeared)} appeared since: covered as to IP, but packet sockets there "
                "are not watched; `onionward up` includes it"
            )
    if not pids and now != "open":
        now = "blocked"
        problems.append("tor is not running: traffic is blocked; `onionward up` starts it again")
    if any(tor_process.is_suspended(pid) for pid in pids):
        problems.append("tor is suspended and carries nothing: `onionward up` starts another one")
    saved = journal.undo.get("resolver")
    resolves: Literal["tor", "onion", "changed", "untouched"] = "untouched"
    if saved is not None and resolver.is_ours(paths.resolv_conf, saved):
        resolves = "tor"
    elif saved is not None and not resolver.is_original(paths.resolv_conf, saved):
        resolves = "changed"
    if "onion" in journal.undo:
        resolves = "onion"
    if resolves == "changed":
        problems.append(
            f"{paths.resolv_conf} was changed by another program; queries still go to Tor or fail; "
            "`onionward up` points it to Tor again"
        )
    left = None
    if "confirm" in journal.undo:
        from onionward import confirmation

        left = confirmation.seconds_left(journal)
        problems += confirmation.problems(journal, paths)
    problems += _of_surroundings(system, paths, journal)
    problems += [
        f"IN CLEAR: {name} has become a port of {master}, and what its clients send arrives there; "
        f"take it out of {master}, or name {master} in the configuration"
        for name in reach.get("lans", ())
        if (master := _master(name))
    ]
    return Status(
        format=FORMAT,
        state=now,
        since=journal.since or None,
        config=journal.config,
        scopes=tuple(journal.scopes),
        tor="running" if pids else "stopped",
        tor_pid=pids[0] if pids else None,
        resolver=resolves,
        interfaces=backend.watched_devices(held or ""),
        forwarded=_forwarded(reach, now),
        counters=backend.counters(held or ""),
        problems=tuple(problems),
        confirm=left,
    )


def _of_surroundings(system: System, paths: Paths, journal: state.Journal) -> list[str]:
    found: list[str] = []
    if (saved := journal.undo.get("onion")) is not None:
        from onionward.dns import onion

        found += onion.problems(system, saved["saved"], paths)
    if (noted := journal.undo.get("masks")) is not None:
        found += _open_services(noted["key"])
    if "dhcp" in journal.undo:
        from onionward.lan import dhcp_server

        if not dhcp_server.running(dhcp_server.config_path(paths)):
            found.append("the DHCP server has ended: clients get no addresses")
    if "control" in journal.undo:
        from onionward.tor import control_filter

        if not control_filter.running(paths):
            found.append("the filter of tor's control port has ended")
    return [f"{words}; `onionward up` puts it right" for words in found]


def _open_services(accepted: list[tuple[int, list[str]]]) -> list[str]:
    """Services that act for routed accounts and are (again) open to them."""
    import pwd

    from onionward import accounts, exposure, masks

    names = {uid: pwd.getpwuid(uid).pw_name for uid, _ in accepted}
    users = [(accounts.find_user(names[uid]), tuple(accept)) for uid, accept in accepted]
    known = [(user, accept) for user, accept in users if user is not None]
    return list(masks.open_places(exposure.look(), known))


def _forwarded(reach: Mapping[str, Any], now: str) -> dict[str, str]:
    """What becomes of what comes from behind interfaces (sysfs-class-net, bridge)."""
    if now == "open":
        return {}
    lans = reach.get("lans", [])
    bridges = [path.parent.name for path in _INTERFACES.glob("*/bridge")]
    others = "blocked" if reach.get("host", True) else "untouched"
    found = dict.fromkeys(sorted(bridges), others)
    for name in lans:
        master = _master(name)
        present = f"NOT COVERED: a port of {master}" if master else now
        found[name] = present if (_INTERFACES / name).exists() else "absent"
    return found


def _master(interface: str) -> str:
    """The bridge, bond or VRF that an interface is a port of; "" when it is none."""
    place = _INTERFACES / interface / "master"
    return place.readlink().name if place.is_symlink() else ""


def _unwatched(watched: tuple[str, ...]) -> list[str]:
    """Interfaces that have appeared since the rules were loaded (proc_pid_net(5), dev)."""
    lines = _DEVICES.read_text().splitlines()
    present = {line.split(":")[0].strip() for line in lines if ":" in line}
    return sorted(present - {"lo"} - set(watched))


def _without_journal(paths: Paths, held: str | None, pids: tuple[int, ...]) -> Status:
    problems = []
    saved = resolver.recognise(paths.resolv_conf, resolv_conf())
    if held is not None or pids or saved is not None:
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
        resolver="tor" if saved and resolver.is_ours(paths.resolv_conf, saved) else "untouched",
        interfaces=(),
        forwarded={},
        counters=backend.counters(held or ""),
        problems=tuple(problems),
    )


def to_json(status: Status) -> str:
    """For programs."""
    return json.dumps(asdict(status), indent=2)


_STATES = {
    "off": "off: traffic leaves in clear",
    "blocked": "blocked: nothing of the scopes below leaves but tor itself",
    "routed": "routed: the scopes below go through Tor or nowhere",
    "open": "OPEN: traffic leaves in clear",
}
_SINCE_BOOT = "blocked since boot: nothing of the scopes leaves, tor included"


def to_text(status: Status) -> str:
    """For people."""
    lines = [_SINCE_BOOT if status.since_boot else _STATES[status.state]]
    if status.since:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.since))
        lines.append(f"  since     {moment}")
    if status.confirm is not None:
        lines.append(f"  confirm   undone in {status.confirm} s without `onionward confirm`")
    if status.state != "off":
        process = f" (process {status.tor_pid})" if status.tor_pid else ""
        lines += [
            *(f"  scope     {words}" for words in status.scopes),
            *(f"  clients   behind {name}: {what}" for name, what in status.forwarded.items()),
            f"  tor       {status.tor}{process}",
            f"  resolver  {status.resolver}",
            *([f"  watched   {', '.join(status.interfaces)}"] if status.interfaces else []),
            "  stopped   "
            + (", ".join(f"{n} {name}" for name, n in status.counters.items()) or "nothing"),
        ]
    if status.at_boot == "enabled":
        lines.append("  at boot   blocked before there is a network, then routed")
    lines += [f"  problem   {problem}" for problem in status.problems]
    return "\n".join(lines)
