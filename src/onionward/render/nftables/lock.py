"""Policy → the guard's own tables: what the policy's rules let through passes here as well.

They come after the policy's own rules and drop without a word what those should have stopped, so
they matter only while those are gone or changed. Tables with the owner flag (nft(8), table flags)
belong to the process that made them: nobody else can change or flush them, and they end with it.

On a routed host one rule does it: what the policy's rules have passed bears their stamp. Elsewhere
no mark may be put on other people's packets, so the rules about the scopes stand here once more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onionward.policy import Policy
from onionward.render.nftables import frames, lan, sets, unrouted_host
from onionward.render.nftables.text import Chain, print_chain
from onionward.tables import LOCK_EGRESS_TABLE, LOCK_TABLE

DEVICES = "@devices@"
"""Stands for the interfaces that are there when the text is loaded."""

NOTHING = '{"routing": "", "frames": "", "log": "", "lists": []}'
"""The document of a machine without nft, which alone can keep tables for one process."""

_COUNTERS = ("refused", "spoofed", "invalid", "escaped", "forwarded", "strangers")
_WIRE = "type filter hook postrouting priority 400; policy {policy};"
_LATER = {
    "output": "type filter hook output priority 10; policy accept;",
    "wire": _WIRE.format(policy="accept"),
    "forwarded": "type filter hook forward priority 10; policy accept;",
}
_CALLED = ("paused", "user", "onion_query_left", "onion_names_left", "clients")


def document(policy: Policy, log: Path | None = None, lists: Sequence[Path] = ()) -> str:
    """What the guard is told, as JSON.

    Args:
        policy: of its tables, "routing" and "frames", which is "" where no frames are judged.
        log: a file for what is stopped: "log", "" for none.
        lists: files after whose change the rules are rendered anew.

    """
    tables = {"routing": routing(policy), "frames": egress(policy)}
    return json.dumps({**tables, "log": str(log or ""), "lists": [*map(str, lists)]})


def routing(policy: Policy) -> str:
    """The table that judges packets."""
    if policy.route == "tor":
        stamped = ('oifname "lo" accept', f"meta mark {policy.stamp:#x} accept")
        chains = [
            Chain("wire", _WIRE.format(policy="drop"), (*stamped, "counter name escaped drop"))
        ]
        lines = ["\tcounter escaped { }"]
    else:
        chains = _of_scopes(policy)
        lines = [*sets.of_scopes(policy), *(f"\tcounter {name} {{ }}" for name in _COUNTERS)]
    return _table(LOCK_TABLE, [*lines, *map(print_chain, chains)])


def egress(policy: Policy) -> str:
    """The table that judges frames of the interfaces that `DEVICES` stands for, or ""."""
    if policy.route != "tor":
        return ""
    chains = frames.on_devices([DEVICES], policy.stamp, priority=10)
    accounts = sets.of_accounts("dhcp_accounts", ((uid, uid) for uid in policy.dhcp_uids))
    lines = [*accounts, "\tcounter escaped { }", *map(print_chain, chains)]
    return _table(LOCK_EGRESS_TABLE, lines)


def _table(name: tuple[str, str], lines: list[str]) -> str:
    return "\n".join([f"table {' '.join(name)} {{", "\tflags owner", *lines, "}", ""])


def _of_scopes(policy: Policy) -> list[Chain]:
    policy = replace(policy, reach=None)  # where tor goes is the policy's own rules' affair
    judged = (*unrouted_host.chains(policy, routed=True), *lan.chains(policy, routed=True))
    found = {chain.name: chain for chain in judged}
    chains = [found[name] for name in _CALLED if name in found]
    for name, hook in _LATER.items():
        if name in found:
            # the policy's own rules say this before routing
            first = lan.renamed(policy, "forwarded") if name == "forwarded" else ()
            chains.append(found[name]._replace(hook=hook, rules=(*first, *found[name].rules)))
    if policy.lans:
        renamed = lan.renamed(policy, "strangers")
        entering = ('iifname "lo" accept', *renamed, *lan.entering(policy))
        chains.append(
            Chain("input", "type filter hook input priority 10; policy accept;", entering)
        )
    return chains
