"""Policy → documents for iptables-restore and ip6tables-restore, and sets for ipset.

The rules are those of nft (`render/nftables`) in the places that iptables has:

    raw PREROUTING       who may send here at all     mangle OUTPUT        whose flow it is
    raw OUTPUT           queries told apart           mangle POSTROUTING   the last word
    nat                  to tor                       filter               what is refused, and told

What has no place, or no match, is written down in docs/security.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onionward.errors import RefusedError
from onionward.policy import Policy
from onionward.render.iptables import redirect, routed_host, unrouted_host
from onionward.render.iptables.family import INLINE, MOST_INLINE, Family, set_name
from onionward.render.iptables.text import Compiler, Table, document

__all__ = ["Ruleset", "block", "route"]

VERSIONS = (4, 6)
_FLOWS = 65535  # of each family; the memory for one is some 200 bytes


class Set(NamedTuple):
    """A set as ipset(8) restores it.

    Attributes:
        name: its name.
        create: its type and options.
        elements: what is in it; None where packets fill it.

    """

    name: str
    create: str
    elements: tuple[str, ...] | None


class Ruleset(NamedTuple):
    """What is put in place for one state.

    Attributes:
        state: "blocked" or "routed".
        ip4: our tables of IPv4, in the order in which they are committed.
        ip6: our tables of IPv6.
        sets: that they name.
        frames: an nft table that watches frames, or "" where none is wanted.
        devices: interfaces whose egress that table watches.

    """

    state: str
    ip4: tuple[Table, ...]
    ip6: tuple[Table, ...]
    sets: tuple[Set, ...]
    frames: str
    devices: tuple[str, ...]

    def tables(self, version: int) -> tuple[Table, ...]:
        """Those of a family."""
        return self.ip4 if version == 4 else self.ip6

    def text(self) -> str:
        """All of it, for people."""
        parts = [f"# ipset -exist restore\n{sets_text(self.sets)}"] if self.sets else []
        for version, tool in zip(VERSIONS, ("iptables", "ip6tables"), strict=True):
            parts.append(f"# {tool}-restore --noflush\n{document(self.tables(version))}")
        if self.frames:
            parts.append(f"# nft -f -\n{self.frames}")
        return "\n".join(parts)


def from_json(text: str) -> Ruleset:
    """A ruleset that was printed by json.dumps."""
    import json

    state, ip4, ip6, sets, frames, devices = json.loads(text)
    found = [
        tuple(
            Table(name, tuple(map(tuple, hooks)), tuple((c, tuple(r)) for c, r in chains))
            for name, hooks, chains in tables
        )
        for tables in (ip4, ip6)
    ]
    listed = tuple(
        Set(name, create, None if elements is None else tuple(elements))
        for name, create, elements in sets
    )
    return Ruleset(state, found[0], found[1], listed, frames, tuple(devices))


def block(policy: Policy, *, sets: bool, frames: bool) -> Ruleset:
    """Nothing of the policy's scopes leaves but tor itself, and answers to those it admits.

    Args:
        policy: what may leave.
        sets: whether there is ipset.
        frames: whether there is nft, which alone can watch frames.

    Raises:
        RefusedError: the policy cannot be expressed.

    """
    return _ruleset(policy, "blocked", sets=sets, frames=frames)


def route(policy: Policy, *, sets: bool, frames: bool) -> Ruleset:
    """TCP and names go to tor, bypassed networks are reached, everything else is refused.

    Arguments and errors as `block`.
    """
    return _ruleset(policy, "routed", sets=sets, frames=frames)


def _ruleset(policy: Policy, state: str, *, sets: bool, frames: bool) -> Ruleset:
    _refuse_relays(policy)
    _refuse_long_lists(policy, sets=sets)
    routed = state == "routed"
    host = routed_host if policy.route == "tor" else unrouted_host
    tables = []
    for version in VERSIONS:
        f = Family(version, policy, sets)
        hooks = (*host.hooks(f, routed=routed), *redirect.hooks(f, routed=routed))
        tables.append(_stated(Compiler(f.prohibited).tables(hooks), state))
    watched = ""
    if frames and policy.devices:
        from onionward.render.nftables import egress

        watched = egress(policy, state)
    listed = _sets(policy) if sets else ()
    devices = policy.devices if watched else ()
    return Ruleset(state, tables[0], tables[1], listed, watched, devices)


def _stated(tables: tuple[Table, ...], state: str) -> tuple[Table, ...]:
    """With a chain that nothing leads to, whose name is the state."""
    return tuple(
        table._replace(chains=((f"onionward-is-{state}", ()), *table.chains))
        if table.name == "filter"
        else table
        for table in tables
    )


def _refuse_relays(policy: Policy) -> None:
    if policy.reach is not None:
        raise RefusedError(
            "iptables does not hold tor to its bridges or relays; nothing was touched",
            'use nftables ([firewall] backend = "nftables")',
        )


def _refuse_long_lists(policy: Policy, *, sets: bool) -> None:
    for version in VERSIONS:
        count = sum(network.version == version for network in policy.bypass)
        if count > MOST_INLINE and not sets:
            raise RefusedError(
                f"bypass.networks has {count} networks of IPv{version}; without ipset, iptables "
                f"compares every packet with each, and more than {MOST_INLINE} are refused; "
                "nothing was touched",
                "install it: apt install ipset",
            )


def _sets(policy: Policy) -> tuple[Set, ...]:
    found = []
    for version in VERSIONS:
        family = "inet" if version == 4 else "inet6"
        for name, networks in (("bypass", policy.bypass), ("link", policy.link)):
            ours = tuple(str(network) for network in networks if network.version == version)
            if len(ours) > INLINE:
                create = f"hash:net family {family} maxelem {max(len(ours), 65536)}"
                found.append(Set(set_name(name, version), create, ours))
        if policy.users and policy.route != "tor":
            for name, kind in (
                (unrouted_host.USER_FLOWS, "hash:ip,port,ip"),
                (unrouted_host.USER_PORTS, "hash:ip,port"),
            ):
                create = f"{kind} family {family} timeout 7200 maxelem {_FLOWS}"
                found.append(Set(set_name(name, version), create, None))
        if redirect.are_told_apart(policy):
            for name, seconds in (
                (redirect.ASKED_TOR, redirect.REMEMBER),
                (redirect.ASKED_OTHERS, redirect.AWAIT),
            ):
                create = f"hash:ip,port,ip family {family} timeout {seconds} maxelem {_FLOWS}"
                found.append(Set(set_name(name, version), create, None))
    return tuple(found)


def sets_text(sets: Sequence[Set]) -> str:
    """For `ipset -exist restore`: each set is replaced at once by one that is filled."""
    lines: list[str] = []
    for one in sets:
        lines.append(f"create {one.name} {one.create}")
        if one.elements is not None:
            lines += [f"create {one.name}-new {one.create}", f"flush {one.name}-new"]
            lines += (f"add {one.name}-new {element}" for element in one.elements)
            lines += [f"swap {one.name}-new {one.name}", f"destroy {one.name}-new"]
    return "\n".join([*lines, ""])
