"""Paused accounts: before every other rule about what this machine sends."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.nftables import accounts
from onionward.render.nftables.marks import MARK_REDIRECTED
from onionward.render.nftables.text import Chain
from onionward.rules import Rule, commented

SET = "paused"


def uids(policy: Policy) -> tuple[accounts.Range, ...]:
    """Of everybody who is paused."""
    return tuple(uids for user in policy.paused for uids in user.uids)


def rules(policy: Policy) -> tuple[str, ...]:
    """The beginning of the output chain."""
    return tuple(f"{match} goto paused" for match in accounts.matches(SET, uids(policy)))


def chains(policy: Policy) -> tuple[Chain, ...]:
    """What judges them."""
    if not policy.paused:
        return ()
    # what ends a connection that was cut reaches tor, or its other half would stay open
    ends = f"tcp flags & rst == rst ct mark {MARK_REDIRECTED:#x} fib daddr type local accept"
    refused = "counter name refused reject with"
    return (
        Chain(
            "paused",
            "",
            (
                ends,
                # a reject would answer the forged address
                "fib saddr type != local counter name spoofed drop",
                commented(f"meta l4proto tcp {refused} tcp reset", Rule.PAUSED),
                commented(f"{refused} icmpx type admin-prohibited", Rule.PAUSED),
            ),
        ),
    )
