"""What is in force on this machine, as far as the caller may know."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from onionward import applied, config, pauses, state, status
from onionward.accounts import find_user
from onionward.errors import RefusedError
from onionward.facts import Facts, cgroup_mount, gather
from onionward.paths import Paths
from onionward.policy import ControlGroup, Policy, derive
from onionward.system import System
from onionward.tor import process as tor_process
from onionward.verify import plan

_NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Machine:
    """What is in force here, as far as the caller may know.

    Attributes:
        state: "routed", "blocked", "open" or "unknown".
        policy: None when it may not be read.
        facts: the same.
        tor_account: its name, or "".
        group: the control group of tor's service, or None.
        rights: of the caller.
        ordinary: an account without rights that no rule names; the caller's own without root.
        problems: what `status` finds wrong.

    """

    state: str
    policy: Policy | None
    facts: Facts | None
    tor_account: str
    group: Path | None
    rights: plan.Rights
    ordinary: str
    problems: tuple[str, ...] = ()


def look(system: System, paths: Paths) -> Machine:
    """What is in force.

    Raises:
        RefusedError: nothing is.
        JournalError: the journal is damaged.

    """
    nothing = RefusedError(
        "nothing is routed on this machine: there is nothing to verify", "onionward up"
    )
    if os.geteuid() != 0:
        if not paths.runtime.exists():
            raise nothing
        return Machine("unknown", None, None, "", None, "own", pwd.getpwuid(os.geteuid()).pw_name)
    journal = state.load(paths)
    if journal is None or applied.load(paths) is None:
        raise nothing
    read = config.load(paths.applied)
    facts = gather(system, read)
    account = facts.tor_account
    group = _group(paths)
    policy = derive(
        read,
        facts,
        tor_uid=account.uid if account else 0,
        tor_cgroup=ControlGroup(str(group.relative_to("/sys/fs/cgroup")), 1) if group else None,
        stamp=journal.stamp,
        paused=(pause.user() for pause in pauses.lasting(journal)),
    )
    name = account.name if account else ""
    now = status.gather(system, paths)
    ordinary, problems = _ordinary(policy), tuple(now.problems)
    return Machine(now.state, policy, facts, name, group, "root", ordinary, problems)


def _group(paths: Paths) -> Path | None:
    """The control group of the running tor, where nft looks for it."""
    mount = cgroup_mount(Path("/proc/self/mountinfo").read_text())
    for pid in tor_process.running(paths) if mount else ():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                if mount and line.startswith("0::/") and len(line) > len("0::/"):
                    return mount / line.removeprefix("0::/")
    return None


def _ordinary(policy: Policy) -> str:
    """Whoever called sudo, unless some rule is about that account."""
    named = os.environ.get("SUDO_USER", "")
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(named).pw_uid
        if uid and not policy.is_direct(uid) and policy.user_of(uid) is None:
            return named
    return _NOBODY


def people(machine: Machine) -> tuple[plan.Who, ...]:
    """Who tries."""
    policy = machine.policy
    if policy is None:
        users: list[tuple[str, int]] = []
    else:
        users = [(user.name, _subordinate(user.name)) for user in policy.users]
    return plan.people(
        route=policy.route if policy else "direct",
        users=users,
        rights=machine.rights,
        ordinary=machine.ordinary,
        tor=machine.tor_account,
    )


def _subordinate(name: str) -> int:
    """A user id of the account's containers, or 0."""
    found = find_user(name)
    uids = found.uids if found else ()
    own = found.account.uid if found else 0
    return next((ids.last for ids in uids if not ids.first <= own <= ids.last), 0)


def ephemeral(machine: Machine) -> int:
    """The first local port that the kernel gives out by itself."""
    if machine.facts is not None:
        return machine.facts.ephemeral_ports[0]
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def interfaces(machine: Machine, uplink: str) -> list[str]:
    """Those that lead outside: not to clients, and not without any address."""
    behind = {lan.interface for lan in machine.policy.lans} if machine.policy else set()
    links = machine.facts.links if machine.facts else ()
    found = [link.name for link in links if link.is_uplink or link.addresses]
    return sorted({uplink, *(name for name in found if name not in behind)})


def networks6(machine: Machine) -> tuple[str, ...]:
    """The IPv6 networks of the link."""
    policy = machine.policy
    return tuple(str(n) for n in policy.link if n.version == 6) if policy else ()


def allowed(machine: Machine) -> tuple[str, ...]:
    """Filters of what the policy lets out besides tor: bypassed networks, answers to the link."""
    policy = machine.policy
    if policy is None:
        return ()
    networks = [*policy.bypass, *(policy.link if policy.inbound == "link" else ())]
    return (
        *(f"dst net {network}" for network in networks),
        *(f"dst host {f.peer} and dst port {f.peer_port}" for f in policy.kept),
    )


def notes(machine: Machine) -> tuple[str, ...]:
    """What whoever reads a report should know."""
    policy = machine.policy
    if policy is None:
        return ("which policy is in force only root may know: this account alone was tried",)
    return (
        *(f"status: {words}" for words in machine.problems),
        *(
            f"clients behind {lan.interface} were not tried: what they send begins with them"
            for lan in policy.lans
        ),
        *(
            f"{user.name} leaves in clear, as the policy says, and was not tried"
            for user in policy.direct_users
        ),
        *(
            ("only what is routed was tried; whatever else this machine sends leaves in clear",)
            if policy.route != "tor"
            else ()
        ),
    )
