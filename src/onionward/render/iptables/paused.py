"""Paused accounts: before every other rule about what this machine sends."""

from __future__ import annotations

from onionward.render.iptables.family import LOCAL, NOT_OURS, Family, marked, owned
from onionward.render.iptables.text import Rule, nested, rule
from onionward.render.nftables.marks import MARK_REDIRECTED
from onionward.render.nftables.paused import uids
from onionward.rules import Rule as Name


def rules(f: Family) -> tuple[Rule, ...]:
    """The beginning of the chain for what leaves."""
    who = owned(uids(f.policy))
    if not who:
        return ()
    # what ends a connection that was cut reaches tor, or its other half would stay open
    ends = f"-p tcp -m tcp --tcp-flags RST RST {marked(MARK_REDIRECTED)} {LOCAL}"
    judged = (
        rule(ends, "accept"),
        # a reject would answer the forged address
        rule(NOT_OURS, "spoofed"),
        rule("", "refused", comment=Name.PAUSED),
    )
    return (nested(who, "paused", judged),)
