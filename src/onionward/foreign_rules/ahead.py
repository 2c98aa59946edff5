"""Rules of other programs that get at packets before ours do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from onionward.foreign_rules.chains import Chain, Packet, Rule, all_hold

_BUILT_IN = {"output": "OUTPUT", "prerouting": "PREROUTING"}
_DEEPEST = 16


class Translation(NamedTuple):
    """A rule that gives packets another destination than ours would.

    Attributes:
        chain: it is in.
        rule: it is.
        base: the chain that is called from the hook.
        certain: whether that one surely comes before ours.

    """

    chain: Chain
    rule: Rule
    base: Chain
    certain: bool


def translations(
    chains: Sequence[Chain], packet: Packet, hook: str, own: str
) -> Iterator[Translation]:
    """Rules that translate such packets and come before ours; the first translation holds.

    Args:
        chains: of others.
        packet: that ours turn to tor.
        hook: where they do.
        own: the packet filter, as the journal names it.

    """
    priority = -110 if own == "nftables" else -100
    for base in chains:
        if base.hook != hook or base.priority > priority or _is_shared(base, own):
            continue
        called = {
            other.name: other
            for other in chains
            if (other.tool, other.family, other.table) == (base.tool, base.family, base.table)
        }
        for chain, rule in _translating(base, called, packet, 0):
            yield Translation(chain, rule, base, certain=base.priority < priority)


def _is_shared(base: Chain, own: str) -> bool:
    """Whether it is a built-in chain in which ours are the first rules."""
    if own == "nftables" or base.name != _BUILT_IN[base.hook or ""]:
        return False
    if base.tool == "nft":
        return own == "iptables-nft" and base.family in ("ip", "ip6") and base.table == "nat"
    return own.removeprefix("iptables-") in base.tool


def _translating(
    chain: Chain, called: Mapping[str, Chain], packet: Packet, depth: int
) -> Iterator[tuple[Chain, Rule]]:
    for rule in chain.rules:
        for conditions, verdict in rule.branches:
            holds = all_hold(conditions, packet)
            if holds == "no":
                continue
            if verdict.translates:
                yield chain, rule
            elif (target := called.get(verdict.target)) is not None and depth < _DEEPEST:
                yield from _translating(target, called, packet, depth + 1)
            if holds == "yes" and verdict.kind in ("accept", "drop", "return", "goto"):
                return
