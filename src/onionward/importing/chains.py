"""Rules of iptables by options, and where chains of a script's own lead: each rule at its hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from onionward.importing.words import TooLongError

BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_DEEPEST = 8  # chains that are jumped to from each other; a loop has no end
_MOST = 10_000  # rules


@dataclass
class Parsed:
    """One rule, by options in their short form.

    Attributes:
        has: option → value.
        negated: options that stand behind "!".

    """

    has: dict[str, str] = field(default_factory=dict)
    negated: set[str] = field(default_factory=set)

    def get(self, option: str) -> str:
        """The value of an option, or "" where it is not given, or behind "!"."""
        return "" if option in self.negated else self.has.get(option, "")

    def excepted(self, option: str) -> str:
        """The value of an option behind "!", or ""."""
        return self.has.get(option, "") if option in self.negated else ""

    @property
    def table(self) -> str:
        """Its table."""
        return self.has.get("-t") or "filter"

    @property
    def chain(self) -> str:
        """The chain that it is added to, or ""."""
        return self.has.get("-A", "")

    @property
    def target(self) -> str:
        """What is done."""
        return self.has.get("-j") or self.has.get("-g", "")


@dataclass(frozen=True)
class Rule:
    """A rule and where it stands.

    Attributes:
        parsed: what it says.
        place: file and line.
        ip6: whether it is of ip6tables.

    """

    parsed: Parsed
    place: str
    ip6: bool


def at_hooks(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Rules of built-in chains, and those of others with what leads there; without the jumps."""
    own = {(r.parsed.table, r.parsed.chain) for r in rules if r.parsed.chain not in ("", *BUILT_IN)}
    left = _MOST
    for rule in rules:
        if (rule.parsed.table, rule.parsed.target) in own:
            continue
        for found in _led_to(rule, rules, _DEEPEST):
            left -= 1
            if left < 0:
                raise TooLongError(f"{rule.place}: chains lead to more than {_MOST} rules")
            yield found


def _led_to(rule: Rule, rules: Sequence[Rule], depth: int) -> Iterator[Rule]:
    own = rule.parsed
    jumps = [
        jump.parsed
        for jump in rules
        if jump.parsed.target == own.chain
        and jump.parsed.table == own.table
        and jump.ip6 == rule.ip6
        and jump.parsed.chain != own.chain
    ]
    if not own.chain or own.chain in BUILT_IN or not jumps:
        yield rule
        return
    for jump in jumps if depth else ():
        has = {**jump.has, **own.has, "-A": jump.chain}
        negated = {n for n in jump.negated if n not in own.has} | own.negated
        yield from _led_to(replace(rule, parsed=Parsed(has, negated)), rules, depth - 1)
