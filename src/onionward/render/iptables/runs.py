"""Applications of `onionward run`, as the policy's rules see them; cf. `render/nftables/runs.py`.

What turns them to tor and judges them are tables of nft (`onionward.app.root.rules`), which are
there only while somebody runs, whatever the machine's own filter is.
"""

from __future__ import annotations

from onionward.app.root.places import INTERFACE, RUNS4, RUNS6, TOR4, TOR6
from onionward.render.iptables.family import Family, is_reply, marked, state
from onionward.render.iptables.text import Rule, rule
from onionward.render.nftables.marks import MARK_RUN
from onionward.rules import Rule as Name

_OF_RUN, _TO_RUN = f"-i {INTERFACE}+", f"-o {INTERFACE}+"
_TURNED = f"{marked(MARK_RUN)} {state('DNAT')}"


def arriving(f: Family) -> tuple[Rule, ...]:
    """In the table raw: where they go is anybody's address, until it is tor's."""
    return (rule(f"{_OF_RUN} -s {RUNS4 if f.n == 4 else RUNS6}", "accept"),)


def from_elsewhere(f: Family) -> tuple[Rule, ...]:
    """In the table raw, after `arriving`: nobody else speaks to runs, or to tor where they do."""
    ours = (TOR4, RUNS4) if f.n == 4 else (TOR6, RUNS6)
    return (rule((f"-d {address}" for address in ours), "drop", comment=Name.RUNS),)


def entering() -> tuple[Rule, ...]:
    """What arrives at tor."""
    return (rule(f"{_OF_RUN} {_TURNED}", "accept"), rule(_OF_RUN, "strangers"))


def outgoing() -> tuple[Rule, ...]:
    """What tor answers; for output and for the last word."""
    # of two tests of connection tracking's, one match can make only one of its states
    return (rule(f"{_TO_RUN} {_TURNED} {is_reply('ESTABLISHED')}", "accept"),)
