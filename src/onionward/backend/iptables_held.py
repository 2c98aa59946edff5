"""What iptables-save and conntrack print, read: which chains are ours, and what leads to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onionward.policy import Flow

PREFIX = "onionward-"
MADE = f"{PREFIX}made"
"""An empty chain in a table that was not there before."""
AHEAD = "# before ours: "
"""Begins a line of `Held.text` that tells of a rule of others in front of ours."""


class Held(NamedTuple):
    """What iptables-save prints of ours.

    Attributes:
        chains: for each (table, chain) of ours its rules, counts aside.
        ways: (table, built-in chain, our chain, place of the rule that leads there, from 1).
        text: the lines, with counts.
        tables: those that exist.
        others: those in which others have something.

    """

    chains: dict[tuple[str, str], tuple[str, ...]]
    ways: tuple[tuple[str, str, str, int], ...]
    text: str
    tables: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @property
    def made(self) -> tuple[str, ...]:
        """Tables that were not there before us."""
        return tuple(table for table, chain in self.chains if chain == MADE)

    @property
    def unhooking(self) -> list[tuple[str, str, str]]:
        """(table, built-in chain, our chain) of each way to ours, for `document`."""
        return [(table, builtin, name) for table, builtin, name, _ in self.ways]


def parse(saved: str, version: int = 4) -> Held:
    """Our part of what iptables-save -c prints, and what comes before it."""
    chains: dict[tuple[str, str], list[str]] = {}
    ways: list[tuple[str, str, str, int]] = []
    lines: list[tuple[str, str, str]] = []
    places: dict[str, int] = {}
    theirs: dict[str, list[str]] = {}
    tables: set[str] = set()
    others: set[str] = set()
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table, places, theirs = line[1:], {}, {}
            tables.add(table)
        elif line.startswith(f":{PREFIX}"):
            chain = line[1:].split()[0]
            chains[table, chain] = []
            if chain != MADE:
                lines.append((table, chain, line))
        elif found := re.match(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)", line):
            chain, rest = found[1], found[2]
            if chain.startswith(PREFIX):
                chains.setdefault((table, chain), []).append(rest)
                lines.append((table, chain, line))
                continue
            places[chain] = places.get(chain, 0) + 1
            others.add(table)
            if led := re.fullmatch(rf"-j ({PREFIX}\S+)", rest):
                ways.append((table, chain, led[1], places[chain]))
                lines.append((table, "", f"# {table} {chain} {places[chain]}: {led[1]}"))
                lines += ((table, "", f"{AHEAD}{words}") for words in theirs.pop(chain, ()))
            else:
                where = f"table {table} of IPv{version}, chain {chain}, rule {places[chain]}"
                theirs.setdefault(chain, []).append(f"{where}: {rest}")
        elif line.startswith(":") and " ACCEPT " not in line:
            others.add(table)
    # in an order of its own: chains are printed in the order in which they were made
    lines.sort(key=lambda each: each[:2])
    text = "\n".join([*(line for _, _, line in lines), ""])
    found_chains = {place: tuple(rules) for place, rules in chains.items()}
    return Held(found_chains, tuple(ways), text, frozenset(tables), frozenset(others))


def tracked(shown: str) -> Iterator[Flow]:
    """Connections that may still be open, of what `conntrack -L` prints."""
    import ipaddress

    from onionward.policy import Flow

    for line in shown.splitlines():
        words = line.split()
        if len(words) < 4 or words[3] in ("CLOSE", "TIME_WAIT"):
            continue
        # the first of each is of the direction in which it was opened
        ends: dict[str, str] = {}
        for word in words:
            key, _, value = word.partition("=")
            ends.setdefault(key, value)
        yield Flow(
            ipaddress.ip_address(ends["src"]),
            int(ends["sport"]),
            ipaddress.ip_address(ends["dst"]),
            int(ends["dport"]),
        )
