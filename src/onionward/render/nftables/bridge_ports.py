"""Clients whose interface has become a port of a bridge: nothing of theirs passes the bridge.

What arrives at a port is the bridge's from then on: the rules of the IP layer see the bridge's name
and number, and what the bridge hands on to another port they do not see at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onionward.policy import Lan
from onionward.render.nftables.text import Chain, print_chain
from onionward.tables import BRIDGE_TABLE, remove_bridge

COUNTER = "ports"
# before the bridge learns where anybody is, or hands anything on (nf_tables, bridge family)
_HOOK = "type filter hook prerouting priority -310; policy accept;"


def render(lans: Iterable[Lan]) -> str:
    """Text that replaces the table in one transaction."""
    return "\n".join(
        [
            f"{remove_bridge()}table {' '.join(BRIDGE_TABLE)} {{",
            f"\tcounter {COUNTER} {{ }}",
            print_chain(Chain("ports", _HOOK, tuple(_rules(lans)))),
            "}",
            "",
        ]
    )


def named(interface: str) -> str:
    """How the rule for an interface begins, as nft prints it too."""
    return f'iifname "{interface}" counter name'


def _rules(lans: Iterable[Lan]) -> Iterator[str]:
    for lan in lans:
        yield f"{named(lan.interface)} {COUNTER} drop"
        # a new name is no way around, as in the chain strong_host
        if lan.number:
            yield f"iif {lan.number} counter name {COUNTER} drop"
