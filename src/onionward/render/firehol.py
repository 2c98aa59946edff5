"""Policy → firehol.conf(5): firehol's own words for the rest, and our chains before all of it.

firehol has no word for "by this account and not to that destination, or nothing", so what decides
is handed to iptables as it is (firehol-iptables(5)). firehol loads all of it at once, with its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from onionward.errors import RefusedError
from onionward.policy import Policy
from onionward.render import iptables
from onionward.render.iptables.text import Table

_HEAD = """\
# firehol.conf of the same policy, for firehol 3. What is not ours to judge is accepted: put rules
# of your own in the place of the interface and the router at the end.
version 6
"""
_REST = """
interface any others
	policy accept

router forwarded inface any outface any
	policy accept
"""


# firehol keeps marks of its own in these bits, and copies them from packets to flows
_FIREHOL_MARKS = 0x1FFF
_OUR_MARK = re.compile(r"\b0x746f72(0[0-9a-f])\b")


def render(policy: Policy) -> str:
    """The file.

    Raises:
        RefusedError: the policy has a scope, or so many networks, that firehol is not given.

    """
    _refuse(policy)
    unmarked = replace(policy, stamp=policy.stamp & ~_FIREHOL_MARKS)
    ruleset = iptables.route(unmarked, sets=False, frames=False)
    lines = [_HEAD]
    for tool, version in (("iptables", 4), ("ip6tables", 6)):
        lines += _commands(tool, ruleset.tables(version))
    return "\n".join([*lines, _REST])


def _refuse(policy: Policy) -> None:
    refused = [
        *(f"[[user]] {user.name}" for user in (*policy.users, *policy.direct_users)),
        *(f"paused: {user.name}" for user in policy.paused),
        *(['dns = "full"'] if policy.full_dns else []),
        *(["the scope onion"] if policy.route == "onion" else []),
    ]
    if refused:
        raise RefusedError(
            f"firehol: {', '.join(refused)}: it has no rules for single accounts or names, and "
            "starts no unbound",
            'use [firewall] backend = "iptables", which has, or nftables',
        )


def _commands(tool: str, tables: tuple[Table, ...]) -> Iterator[str]:
    for table in tables:
        where = f"{tool} -t {table.name}"
        yield from (f"{where} -N {name}" for name, _ in table.chains)
        for name, rules in table.chains:
            yield from (f"{where} -A {name} {_words(text)}" for text in rules)
        yield from (f"{where} -I {builtin} 1 -j {name}" for builtin, name in reversed(table.hooks))


def _words(text: str) -> str:
    """A rule for a script; firehol cannot hand through words with blanks, so comments stay here."""
    comment = re.search(r'-m comment --comment "([^"]*)" ', text)
    bare = text.replace(comment[0], "") if comment else text
    quoted = _OUR_MARK.sub(r"0x\g<1>746000", shlex.join(shlex.split(bare)))
    return f"{quoted}  # {comment[1]}" if comment else quoted
