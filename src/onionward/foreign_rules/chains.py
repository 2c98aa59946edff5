"""Chains of rules, whichever tool has written them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal, NamedTuple

Certainty = Literal["yes", "no", "maybe"]
Hook = Literal["prerouting", "input", "forward", "output", "postrouting"]
Key = str
"""Of a packet's property, as nft(8) calls it: "meta oifname", "ct state", "ip daddr", …"""


class Condition(NamedTuple):
    """One thing that a rule asks of a packet.

    Attributes:
        key: which property.
        values: alternatives: words or numbers, networks, ranges "1-9", patterns "eth*"; None: the
            condition is one that is not understood.
        negated: whether none of them may hold.

    """

    key: Key
    values: tuple[str, ...] | None
    negated: bool = False


UNKNOWN = Condition("", None)


class Verdict(NamedTuple):
    """What becomes of a packet.

    Attributes:
        kind: "drop" stands for reject as well, "accept" for all that neither stops a packet nor
            lets the next rule judge it.
        target: the chain that a jump or goto leads to.
        translates: whether it gives the packet another destination.

    """

    kind: Literal["accept", "drop", "return", "jump", "goto"]
    target: str = ""
    translates: bool = False


class Branch(NamedTuple):
    """A verdict and when it holds; a rule with a verdict map has several."""

    conditions: tuple[Condition, ...]
    verdict: Verdict


class Rule(NamedTuple):
    """A rule of a chain.

    Attributes:
        branches: tried in order.
        name: what finds it again: a handle of nft, or the text itself.

    """

    branches: tuple[Branch, ...]
    name: str


class Chain(NamedTuple):
    """A chain of rules.

    Attributes:
        tool: who prints it: "nft", "iptables", "iptables-legacy", …
        family: "inet", "ip" or "ip6".
        table: its table.
        name: its own.
        rules: in order.
        hook: where it is called from; None: by other chains.
        priority: among those of its hook, lowest first.
        drops: whether its policy is to drop.

    """

    tool: str
    family: str
    table: str
    name: str
    rules: tuple[Rule, ...]
    hook: str | None = None
    priority: int = 0
    drops: bool = False


Packet = Mapping[Key, frozenset[str]]
"""The values that each known property can have."""

# what a condition on a header asks of the protocol first (nft(8), implicit dependencies)
_PROTOCOLS = {
    **{name: ("meta l4proto", name) for name in ("tcp", "udp", "udplite", "sctp", "dccp")},
    **{name: ("meta l4proto", name) for name in ("icmp", "icmpv6", "igmp", "esp", "ah", "comp")},
    "ip": ("meta nfproto", "ipv4"),
    "ip6": ("meta nfproto", "ipv6"),
}


def holds(condition: Condition, packet: Packet) -> Certainty:
    """Whether a condition holds for a packet."""
    if condition.values is None:
        return "maybe"
    wanted = _PROTOCOLS.get(condition.key.partition(" ")[0])
    if wanted is not None and packet.get(wanted[0], frozenset({wanted[1]})) != {wanted[1]}:
        # an expression that does not apply breaks, it does not negate
        return "no"
    known = packet.get(condition.key)
    if known is None:
        return "maybe"
    found = {any(_is_in(value, one) for one in condition.values) for value in known}
    if len(found) == 2:
        return "maybe"
    return "yes" if found == {not condition.negated} else "no"


def _is_in(value: str, wanted: str) -> bool:
    if value == wanted:
        return True
    if wanted.endswith("*"):
        return value.startswith(wanted[:-1])
    low, _, high = wanted.partition("-")
    if high and _order(low) and _order(high):
        return _order(low) <= _order(value) <= _order(high)
    if "/" in wanted:
        try:
            network, address = ipaddress.ip_network(wanted, strict=False), _address(value)
        except ValueError:
            return False
        return address is not None and address in network
    return False


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _order(value: str) -> tuple[int, ...]:
    """Numbers and addresses in their order; () for other words."""
    if value.isdecimal():
        return 1, int(value)
    address = _address(value)
    return () if address is None else (address.version, int(address))


def all_hold(conditions: tuple[Condition, ...], packet: Packet) -> Certainty:
    """Whether each of them holds."""
    found = {holds(condition, packet) for condition in conditions}
    if "no" in found:
        return "no"
    return "maybe" if "maybe" in found else "yes"
