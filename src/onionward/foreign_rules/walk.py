"""A packet on its way through chains: where it is dropped, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from onionward.foreign_rules.chains import Chain, Packet, Rule, Verdict, all_hold

_DEEPEST = 16  # jumps within jumps (nf_tables.h, NFT_JUMP_STACK_SIZE)


class Obstacle(NamedTuple):
    """What drops a packet.

    Attributes:
        chain: that has dropped it.
        rule: of that chain; None: its policy.
        certain: whether no rule before may have let it through.
        base: the chain that is called from the hook.

    """

    chain: Chain
    rule: Rule | None
    certain: bool
    base: Chain


class _Way(NamedTuple):
    """How a packet gets somewhere.

    Attributes:
        doubted: a rule before may have let it through.
        conditional: a rule that may not hold has led here, so what is dropped here may be others'.

    """

    doubted: bool = False
    conditional: bool = False


def obstacles(chains: Iterable[Chain], packet: Packet, hook: str) -> Iterator[Obstacle]:
    """What drops the packet on a hook: at most one thing in each chain that is called there.

    Drops that hold for some packets only, as far as can be told, are not among them.
    """
    known = tuple(chains)
    for chain in known:
        if chain.hook != hook:
            continue
        called = {
            other.name: other
            for other in known
            if (other.tool, other.family, other.table) == (chain.tool, chain.family, chain.table)
        }
        if not (chain.drops or any(map(_has_drop, called.values()))):
            continue
        walk = _Walk(called, packet, chain)
        way = walk.through(chain, _Way(), 0)
        if walk.found is not None:
            yield walk.found
        elif way is not None and chain.drops:
            yield Obstacle(chain, None, certain=not way.doubted, base=chain)


def _has_drop(chain: Chain) -> bool:
    return any(branch.verdict.kind == "drop" for rule in chain.rules for branch in rule.branches)


class _Walk:
    """One packet in one chain and those that it calls."""

    def __init__(self, called: Mapping[str, Chain], packet: Packet, base: Chain) -> None:
        self._base = base
        self._called = called
        self._packet = packet
        self._accepting: dict[str, bool] = {}
        self.found: Obstacle | None = None

    def through(self, chain: Chain, way: _Way, depth: int) -> _Way | None:
        """How the packet leaves the chain at its end; None: it never does."""
        returned: _Way | None = None
        for rule in chain.rules:
            for conditions, verdict in rule.branches:
                holds = all_hold(conditions, self._packet)
                if holds == "no":
                    continue
                if holds == "yes":
                    after, ends = self._surely(chain, rule, verdict, way, depth)
                    if ends:
                        return _either(returned, after)
                    if after is None:
                        return returned
                    way = after
                elif verdict.kind == "return":
                    returned = _either(returned, way)
                    way = way._replace(doubted=True)
                else:
                    way = self._perhaps(verdict, way, depth)
        return _either(returned, way)

    def _surely(
        self, chain: Chain, rule: Rule, verdict: Verdict, way: _Way, depth: int
    ) -> tuple[_Way | None, bool]:
        """What follows a rule that holds: how the packet goes on, and whether this chain ends."""
        match verdict.kind:
            case "accept":
                return None, True
            case "drop":
                if not way.conditional and self.found is None:
                    self.found = Obstacle(chain, rule, certain=not way.doubted, base=self._base)
                return None, True
            case "return":
                return way, True
        target = self._called.get(verdict.target)
        if target is None or depth >= _DEEPEST:
            return _Way(doubted=True, conditional=way.conditional), verdict.kind == "goto"
        return self.through(target, way, depth + 1), verdict.kind == "goto"

    def _perhaps(self, verdict: Verdict, way: _Way, depth: int) -> _Way:
        """How the packet goes on after a rule that may not hold."""
        if verdict.kind == "accept":
            return way._replace(doubted=True)
        if verdict.kind == "drop":
            return way
        target = self._called.get(verdict.target)
        if target is None or depth >= _DEEPEST:
            return way._replace(doubted=True)
        inside = self.through(target, way._replace(conditional=True), depth + 1)
        if target.name not in self._accepting:
            self._accepting[target.name] = self._may_accept(target, depth + 1)
        let_through = self._accepting[target.name]
        doubted = way.doubted or let_through or (inside is not None and inside.doubted)
        return way._replace(doubted=doubted)

    def _may_accept(self, chain: Chain, depth: int) -> bool:
        """Whether some rule of the chain, or of those it calls, may let the packet through."""
        for rule in chain.rules:
            for conditions, verdict in rule.branches:
                holds = all_hold(conditions, self._packet)
                if holds == "no":
                    continue
                if verdict.kind == "accept":
                    return True
                target = self._called.get(verdict.target)
                if target is not None and (
                    depth >= _DEEPEST or self._may_accept(target, depth + 1)
                ):
                    return True
                if holds == "yes" and verdict.kind in ("drop", "return"):
                    return False
        return False


def _either(one: _Way | None, other: _Way | None) -> _Way | None:
    if one is None or other is None:
        return one or other
    return _Way(one.doubted or other.doubted, one.conditional or other.conditional)
