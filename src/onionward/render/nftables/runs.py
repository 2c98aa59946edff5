"""Applications of `onionward run`, as the policy's rules see them.

What they may do is judged by tables of their own (`onionward.app.root.rules`), which are there only
while somebody runs; here they pass, as far as those have turned them to tor, and no further.
"""

from __future__ import annotations

from onionward.app.root.places import INTERFACE, RUNS4, RUNS6, TOR4, TOR6
from onionward.render.nftables.marks import MARK_RUN
from onionward.rules import Rule, commented

_OF_RUN, _TO_RUN = f'iifname "{INTERFACE}*"', f'oifname "{INTERFACE}*"'


def arriving() -> tuple[str, ...]:
    """Rules of the strong_host chain: where they go is anybody's address, until it is tor's."""
    return (f"{_OF_RUN} ip saddr {RUNS4} return", f"{_OF_RUN} ip6 saddr {RUNS6} return")


def from_elsewhere() -> tuple[str, ...]:
    """Rules after those: nobody else speaks to runs, or to tor where they do."""
    found = (("ip", TOR4), ("ip", RUNS4), ("ip6", TOR6), ("ip6", RUNS6))
    return tuple(
        commented(f"{family} daddr {address} drop", Rule.RUNS) for family, address in found
    )


def entering() -> tuple[str, ...]:
    """Rules of the input chain."""
    return (
        f"{_OF_RUN} ct mark {MARK_RUN:#x} ct status dnat accept",
        f"{_OF_RUN} counter name strangers drop",
    )


def outgoing() -> str:
    """A rule of the output and wire chains: tor answers."""
    return (
        f"{_TO_RUN} ct mark {MARK_RUN:#x} ct direction reply ct status dnat "
        "ct state established accept"
    )
