"""Policy → nftables text: one `inet` table and one `netdev` table, replaced together.

A machine that is routed itself (everything must be allowed by name):

    nat output    to_tor     TCP to TransPort, UDP 53 to DNSPort
    filter output output     judges by identity: tor, answers, bypass; everything else is refused
    postrouting   wire       the last word: sees the true device, stamps what may leave
    netdev egress egress     only stamped packets pass; packet sockets have no stamp
    filter input  input      silence towards those the policy does not admit
    forward       forwarded  nothing

A machine that is not (accounts, names under .onion): the same hooks, but only what belongs to those
scopes is judged, and the rest is accepted. Clients of a LAN, on either:

    prerouting    strong_host      spoofed sources and addresses of other interfaces: dropped
    nat           clients_to_tor   TCP and UDP 53 to where tor listens for clients
    prerouting    clients_refused  what was not redirected and is for somewhere else
    input         clients          what clients may reach on this machine

Every chain that drops ends with a verdict of its own: the kernel puts a drop policy in force only
at the end of a commit (nf_tables_api.c, nft_chain_commit_drop_policy); until then a new chain's
end accepts.

What stops something also counts it for whoever sent it (`onionward.render.nftables.accounting`).
The reasons are in docs/security.md. nft(8) is the reference; version 1.0.6 is the oldest tried:
it has no `destroy`, and wants a newline or semicolon before a closing brace.
"""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.nftables import (
    accounting,
    frames,
    lan,
    redirect,
    routed_host,
    sets,
    unrouted_host,
)
from onionward.render.nftables.marks import (
    MARK_CLIENT,
    MARK_INBOUND,
    MARK_REDIRECTED,
    MARK_TOR,
    MARKS_OF_TOR,
)
from onionward.render.nftables.text import Chain, Ruleset, print_chain
from onionward.tables import EGRESS_TABLE, TABLE, remove

__all__ = [
    "MARKS_OF_TOR",
    "MARK_CLIENT",
    "MARK_INBOUND",
    "MARK_REDIRECTED",
    "MARK_TOR",
    "Chain",
    "Ruleset",
    "block",
    "egress",
    "route",
]

_COUNTERS = ("refused", "spoofed", "invalid", "escaped", "forwarded", "strangers")


def block(policy: Policy) -> Ruleset:
    """Nothing of the policy's scopes leaves but tor itself, and answers to those it admits."""
    return _ruleset(policy, "blocked", _filter_chains(policy, routed=False))


def route(policy: Policy) -> Ruleset:
    """TCP and names go to tor, bypassed networks are reached, everything else is refused."""
    chains = (*redirect.chains(policy), *_filter_chains(policy, routed=True))
    return _ruleset(policy, "routed", chains)


def _filter_chains(policy: Policy, *, routed: bool) -> tuple[Chain, ...]:
    host = routed_host if policy.route == "tor" else unrouted_host
    return (*host.chains(policy, routed=routed), *lan.chains(policy, routed=routed))


def egress(policy: Policy, state: str) -> str:
    """The table that watches frames, alone: for a machine whose packets iptables judges."""
    family, name = EGRESS_TABLE
    # adding first makes the deletion succeed always
    head = f"table {family} {name}\ndelete table {family} {name}"
    return "\n".join([head, *_egress_table(policy, state, *_frames(policy)), ""])


def _frames(policy: Policy) -> tuple[tuple[Chain, ...], list[str]]:
    return accounting.counted_frames(frames.chains(policy), nflog=policy.nflog)


def _egress_table(
    policy: Policy, state: str, chains: tuple[Chain, ...], counted: list[str]
) -> list[str]:
    return [
        f"table {' '.join(EGRESS_TABLE)} {{",
        f'\tcomment "onionward: {state}"',
        *sets.of_accounts("dhcp_accounts", ((uid, uid) for uid in policy.dhcp_uids)),
        *counted,
        "\tcounter escaped { }",
        *map(print_chain, chains),
        "}",
    ]


def _ruleset(policy: Policy, state: str, judging: tuple[Chain, ...]) -> Ruleset:
    chains, counted = accounting.counted(judging, nflog=policy.nflog)
    frame_chains, frame_sets = _frames(policy)
    text = [
        remove(),
        f"table {' '.join(TABLE)} {{",
        f'\tcomment "onionward: {state}"',
        *sets.of_policy(policy),
        *counted,
        *(f"\tcounter {name} {{ }}" for name in _COUNTERS),
        *map(print_chain, chains),
        "}",
        *_egress_table(policy, state, frame_chains, frame_sets),
        "",
    ]
    held = [(TABLE[1], c.name, len(c.rules)) for c in chains]
    held += [(EGRESS_TABLE[1], c.name, len(c.rules)) for c in frame_chains]
    return Ruleset(state, "\n".join(text), tuple(held), policy.devices)
