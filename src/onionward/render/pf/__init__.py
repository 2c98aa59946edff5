"""Policy → text of the pf anchor `onionward`, one rule a line, every rule `quick`.

    loopback   what was turned round comes in on lo1 and is handed to tor; names asked on lo0, too
    clients    what comes in from each LAN: to tor, to a service, or refused before it is forwarded
    accounts   on a machine that is not routed: what single accounts send
    host       on one that is: what leaves, by identity; what comes in, by `inbound`

pf has no redirection on the way out. What is for tor is routed to lo1 instead (`route-to`), comes
in there, and is redirected then. The first rule that matches decides, also over the rules of the
machine's own pf.conf, because the anchor stands before them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from onionward.policy import Policy
from onionward.render.pf import accounts, clients, host, loopback
from onionward.render.pf.dialects import DIALECTS, Dialect, DialectName
from onionward.render.pf.rule import Group, Table
from onionward.render.pf.tables import tables

ANCHOR = "onionward"

__all__ = ["ANCHOR", "DIALECTS", "Dialect", "DialectName", "Ruleset", "block", "route"]


class Ruleset(NamedTuple):
    """An anchor's whole text.

    Attributes:
        state: for which it is.
        dialect: whose pf reads it.
        text: what pfctl loads into the anchor, in one transaction.

    """

    state: Literal["blocked", "routed"]
    dialect: DialectName
    text: str


def route(policy: Policy, dialect: DialectName) -> Ruleset:
    """What is for tor goes there, the rest is refused."""
    groups = (
        *loopback.routed(policy),
        *clients.groups(policy, routed=True),
        *accounts.groups(policy, routed=True),
        *host.groups(policy, routed=True),
    )
    return Ruleset("routed", dialect, _text(policy, groups, dialect, "routed"))


def block(policy: Policy, dialect: DialectName) -> Ruleset:
    """Nothing of the routed scopes leaves but tor itself."""
    groups = (
        *loopback.blocked(policy),
        *clients.groups(policy, routed=False),
        *accounts.groups(policy, routed=False),
        *host.groups(policy, routed=False),
    )
    return Ruleset("blocked", dialect, _text(policy, groups, dialect, "blocked"))


def _text(policy: Policy, groups: tuple[Group, ...], name: DialectName, state: str) -> str:
    dialect = DIALECTS[name]
    used = {word for group in groups for rule in group.rules for word in rule.tables}
    lines = [f"# onionward: {state}; pf of {dialect.title}"]
    for table in tables(policy):
        if table.name in used:
            lines += ["", f"# {table.words}", *_table(table)]
    translation = [
        (group.words, found) for group in groups if (found := dialect.translation(group))
    ]
    filters = [(group.words, found) for group in groups if (found := dialect.filter(group))]
    if translation and dialect.translates_first:
        filters = [(f"{words} (filter)", found) for words, found in filters]
    for words, rules in (*translation, *filters):
        lines += ["", f"# {words}", *rules]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    lines = [f"table <{table.name}> const {{"]
    line = ""
    for entry in table.entries:
        if line and len(line) + len(entry) > 90:
            lines.append(f"\t{line}")
            line = ""
        line = f"{line}, {entry}" if line else entry
        # a comma ends what goes on in the next line
    lines.append(f"\t{line}")
    lines[1:] = [text + ("," if n < len(lines) - 2 else "") for n, text in enumerate(lines[1:])]
    return [*lines, "}"]
