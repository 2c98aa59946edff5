"""What a document for iptables-restore is made of.

What our rules accept must still be judged by the rules that were there before, so no rule of ours
says ACCEPT: it leaves by RETURN. That leaves the innermost chain only, so nested chains are
entered by `-g`, which remembers no way back, and what follows a nested chain is a chain of its own:

    output ─ match ─► tor ─ accepted ─► the rules of others
      └──────┴─────────┴──► output-2 …
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

PREFIX = "onionward-"
"""Of the names of all that is ours."""

TELL, PROHIBIT = "tell", "prohibit"

# how packets end that are counted: the chain's name is the reason
ENDS = ("refused", "spoofed", "invalid", "escaped", "forwarded", "strangers")


class Rule(NamedTuple):
    """One rule.

    Attributes:
        matches: it applies where one of these does; "" always does.
        verdict: "accept", "return", "drop", or the reason under which it is counted and dropped;
            "refused" and what ends in "-told" also tell the sender; "" goes on.
        actions: targets before the verdict, which do not end anything.
        comment: for people.
        into: rules of a nested chain, judged in place of the verdict.
        name: of the nested chain.
        ends: whether what the nested chain does not judge is accepted.

    """

    matches: tuple[str, ...]
    verdict: str = ""
    actions: tuple[str, ...] = ()
    comment: str = ""
    into: tuple[Rule, ...] = ()
    name: str = ""
    ends: bool = False


class Hook(NamedTuple):
    """Our rules at one built-in chain of one table.

    Attributes:
        table: "raw", "mangle", "nat" or "filter".
        builtin: "OUTPUT" and so on.
        name: of our first chain there.
        rules: in order; what none of them judges is accepted.

    """

    table: str
    builtin: str
    name: str
    rules: tuple[Rule, ...]


class Table(NamedTuple):
    """Our part of a table.

    Attributes:
        name: "raw" …
        hooks: for each built-in chain that leads to ours, that chain and ours.
        chains: names of ours and their rules, as iptables-restore reads them.

    """

    name: str
    hooks: tuple[tuple[str, str], ...]
    chains: tuple[tuple[str, tuple[str, ...]], ...]


def rule(match: str | Iterable[str], verdict: str = "", *actions: str, comment: str = "") -> Rule:
    """A rule for a match, or for each of several."""
    matches = (match,) if isinstance(match, str) else tuple(match)
    return Rule(matches, verdict, actions, comment)


def nested(
    match: str | Iterable[str], name: str, rules: Iterable[Rule], *, ends: bool = False
) -> Rule:
    """A nested chain."""
    matches = (match,) if isinstance(match, str) else tuple(match)
    return Rule(matches, into=tuple(rules), name=name, ends=ends)


class Compiler:
    """Rules of one family → tables."""

    def __init__(self, prohibited: str) -> None:
        self._prohibited = prohibited

    def tables(self, hooks: Sequence[Hook]) -> tuple[Table, ...]:
        """In the order in which iptables-restore is to commit them."""
        found = []
        for name in ("raw", "mangle", "nat", "filter"):
            ours = [hook for hook in hooks if hook.table == name]
            chains: dict[str, list[str]] = {}
            for hook in ours:
                self._chain(hook.name, hook.rules, None, chains)
            starts = tuple((hook.builtin, PREFIX + hook.name) for hook in ours)
            printed = tuple((PREFIX + n, tuple(rules)) for n, rules in chains.items())
            found.append(Table(name, starts, printed))
        return tuple(found)

    def _chain(
        self, name: str, rules: Sequence[Rule], rest: str | None, chains: dict[str, list[str]]
    ) -> str:
        """Print rules as a chain; `rest` is where it goes on, None for the rules of others."""
        name = _free(name, chains)
        lines = chains[name] = []
        rules = [each for each in rules if each.matches]
        for place, each in enumerate(rules):
            if each.into:
                following = rules[place + 1 :]
                on = self._chain(_next(name), following, rest, chains) if following else rest
                inner = self._chain(each.name, each.into, None if each.ends else on, chains)
                lines += (_line(match, f"-g {PREFIX}{inner}") for match in each.matches)
                if following:
                    lines.append(_line("", f"-g {PREFIX}{on}"))
                    return name
                continue
            for match in each.matches:
                lines += (_line(match, f"-j {action}", each.comment) for action in each.actions)
                if each.verdict:
                    lines.append(
                        _line(match, self._target(each.verdict, rest, chains), each.comment)
                    )
        if rest is not None:
            lines.append(_line("", f"-g {PREFIX}{rest}"))
        return name

    def _target(self, verdict: str, rest: str | None, chains: dict[str, list[str]]) -> str:
        match verdict:
            case "accept":
                return "-j RETURN"
            case "return":
                return "-j RETURN" if rest is None else f"-g {PREFIX}{rest}"
            case "drop":
                return "-j DROP"
        reason, _, manner = verdict.partition("-")
        if reason not in ENDS:
            return f"-j {verdict}"
        if verdict not in chains:
            told = manner == "told" or verdict == "refused"
            chains[verdict] = self._refusals(reason) if told else ["-j DROP"]
        return f"-g {PREFIX}{verdict}"

    def _refusals(self, reason: str) -> list[str]:
        prohibited = f"-j REJECT --reject-with {self._prohibited}"
        # a reset looks for its way by address alone, and any link may have this one
        nearby = [f"-s fe80::/10 {prohibited}"]
        return [
            *(nearby if reason != "refused" and "icmp6" in self._prohibited else ()),
            "-p tcp -j REJECT --reject-with tcp-reset",
            prohibited,
        ]


def _next(name: str) -> str:
    stem, _, number = name.rpartition("-")
    return f"{stem}-{int(number) + 1}" if number.isdigit() else f"{name}-2"


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name = _next(name)
    return name


def _line(match: str, target: str, comment: str = "") -> str:
    words = f'-m comment --comment "{comment}"' if comment else ""
    return " ".join(part for part in (match, words, target) if part)


def document(
    tables: Iterable[Table],
    unhook: Iterable[tuple[str, str, str]] = (),
    stale: Iterable[tuple[str, str]] = (),
) -> str:
    """For iptables-restore --noflush: our chains anew, and the way to them first of all.

    Args:
        tables: ours.
        unhook: (table, built-in chain, our chain) of ways that are there already.
        stale: (table, chain) of ours that are there and not wanted any more.

    """
    lines: list[str] = []
    ways, obsolete = tuple(unhook), tuple(stale)
    for table in tables:
        old = [name for where, name in obsolete if where == table.name]
        deleted = [f"-D {start} -j {name}" for where, start, name in ways if where == table.name]
        if not (table.chains or old or deleted):
            continue
        lines.append(f"*{table.name}")
        # an empty declaration empties a chain that is there
        lines += (f":{name} - [0:0]" for name, _ in table.chains)
        lines += (f":{name} - [0:0]" for name in old)
        lines += deleted
        for name, rules in table.chains:
            lines += (f"-A {name} {text}" for text in rules)
        lines += (f"-I {builtin} 1 -j {name}" for builtin, name in reversed(table.hooks))
        lines += (f"-X {name}" for name in old)
        lines.append("COMMIT")
    return "\n".join([*lines, ""])
