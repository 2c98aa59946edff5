"""A rule of pf before it is written in one of the dialects."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from onionward.networks import Address
from onionward.rules import Rule

Action = Literal["pass", "drop", "return"]


class Redirect(NamedTuple):
    """What comes in is handed to a port of tor.

    Attributes:
        address: loopback's, of the packet's family.
        port: TransPort or DNSPort.
        keeps_destination: whether tor must learn where it was going (TransPort).

    """

    address: Address
    port: int
    keeps_destination: bool


class PfRule(NamedTuple):
    """One rule; what is left empty matches everything.

    Attributes:
        action: "pass", "drop" in silence, or "return" an error at once.
        direction: "in", "out" or "" for both.
        interface: its name, "! name", or "".
        family: 4, 6, or None.
        protocols: names as pf knows them.
        source: an address, network, table, list or `(interface)`, as pf reads it.
        source_port: a port, range or list.
        to: as `source`.
        port: as `source_port`.
        user: whose socket it is, as pf reads it; has a meaning on the way out only.
        icmp_types: names of the ICMP of the family.
        options: what else pf is told, verbatim.
        redirect: where it is handed to.
        turned: whether it goes to lo1 instead of out.
        rule: what `explain` calls it.

    """

    action: Action
    direction: Literal["in", "out", ""]
    interface: str = ""
    family: int | None = None
    protocols: tuple[str, ...] = ()
    source: str = "any"
    source_port: str = ""
    to: str = "any"
    port: str = ""
    user: str = ""
    icmp_types: tuple[str, ...] = ()
    options: str = ""
    redirect: Redirect | None = None
    turned: bool = False
    rule: Rule | None = None

    @property
    def tables(self) -> frozenset[str]:
        """Names of the tables that it asks."""
        return frozenset(re.findall(r"<(\w+)>", f"{self.source} {self.to}"))


class Group(NamedTuple):
    """Rules that stand together under a comment; of several that match the first decides."""

    words: str
    rules: tuple[PfRule, ...]


class Table(NamedTuple):
    """A table of the anchor.

    Attributes:
        name: as rules have it.
        words: what is in it.
        entries: addresses and networks.

    """

    name: str
    words: str
    entries: tuple[str, ...]


def listed(words: tuple[str, ...]) -> str:
    """One word as it is, several as pf's list."""
    return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"


def owners(uids: tuple[tuple[int, int], ...]) -> str:
    """Accounts as pf reads them: `><` leaves out both ends, and there is no account -1."""
    words = []
    for first, last in uids:
        if first == last:
            words.append(str(first))
        elif first == 0:
            words.append(f"<= {last}")
        else:
            words.append(f"{first - 1} >< {last + 1}")
    return listed(tuple(words))
