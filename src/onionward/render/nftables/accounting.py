"""What is stopped is counted for each account and each client, and some of it told to the guard.

A rule that stops something keeps its match and its verdict; what is added comes before the verdict
and has none of its own:

    … counter name refused reject   ─►  … jump note_refused_by
                                        … counter name refused reject
    … counter name spoofed drop     ─►  … goto drop_spoofed_by   (note; counter name spoofed drop)

Rejects, and what ends a chain, keep their rule in sight; before other drops stand look-ups that
every packet pays, and are paid once. A set that is full, or a sender above the limit, ends the rule
that counts and nothing else. Sets are of single values (`onionward.render.nftables.accounts`), so a
thousand accounts cost no rule more than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from onionward.attempts.group import BYTES, GROUP, PER_REASON, PER_SENDER
from onionward.render.nftables.text import Chain, print_set

_STOPS = re.compile(
    r"(?P<match>.*?) ?counter name (?P<reason>\w+) (?P<verdict>drop|reject[^\"]*?)"
    r"(?P<comment> comment \".*\")?"
)
# packets there come from elsewhere; in all others this machine sends them
_OF_CLIENTS = frozenset(
    {"strong_host", "client_sources", "clients_refused", "clients", "forwarded", "input"}
)
# hours: addresses of clients can be invented, and must not stand in the way of others for long
_REMEMBER = {"by": "1d", "from": "1h"}
_MOST = {"by": 16384, "from": 2048}
_LOG = f'log prefix "{{reason}}" group {GROUP} snaplen {BYTES}'


def counted(chains: Sequence[Chain], *, nflog: bool) -> tuple[tuple[Chain, ...], list[str]]:
    """Chains of the `inet` table that count by sender, and the sets that they need.

    Args:
        chains: with rules that end with `counter name … drop` or `reject`.
        nflog: whether the kernel can tell the guard (nfnetlink_log).

    """
    used: dict[str, None] = {}
    changed = tuple(
        chain._replace(rules=tuple(_rules(chain.name, chain.rules, used))) for chain in chains
    )
    kinds = sorted({name.partition("_")[2] for name in used})
    called = (chain for kind in kinds for chain in _called(kind, used, nflog=nflog))
    return (*changed, *called), [line for kind in kinds for line in _sets(kind)]


def counted_frames(chains: Sequence[Chain], *, nflog: bool) -> tuple[tuple[Chain, ...], list[str]]:
    """The same for the `netdev` table, where a packet socket's owner is known, and its protocol."""
    used: dict[str, None] = {}
    changed = tuple(chain._replace(rules=tuple(_rules("", chain.rules, used))) for chain in chains)
    if not used:
        return changed, []
    note = _notes("escaped", (("escaped_by", "meta skuid . meta protocol"),), nflog=nflog)
    called = (Chain("note_escaped_by", "", note), _drop("escaped_by"))
    return (*changed, *called), _set("escaped_by", "uid . ether_type")


def _rules(chain: str, rules: Iterable[str], used: dict[str, None]) -> Iterator[str]:
    side = "from" if chain in _OF_CLIENTS else "by"
    for rule in rules:
        found = _STOPS.fullmatch(rule)
        # who knocks from outside tries nothing that concerns a scope
        if found is None or (chain == "input" and not found["match"]):
            yield rule
            continue
        match = f"{found['match']} " if found["match"] else ""
        kind = f"{found['reason']}_{side}"
        used[f"note_{kind}"] = None
        # a chain that closes ends with a verdict of its own
        if match and found["verdict"] == "drop":
            used[f"drop_{kind}"] = None
            yield f"{match}goto drop_{kind}{found['comment'] or ''}"
        else:
            yield f"{match}jump note_{kind}"
            yield rule


def _called(kind: str, used: dict[str, None], *, nflog: bool) -> Iterator[Chain]:
    keys = tuple((name, key) for name, key, _ in _keys(kind))
    yield Chain(f"note_{kind}", "", _notes(kind.partition("_")[0], keys, nflog=nflog))
    if f"drop_{kind}" in used:
        yield _drop(kind)


def _drop(kind: str) -> Chain:
    reason = kind.partition("_")[0]
    return Chain(f"drop_{kind}", "", (f"jump note_{kind}", f"counter name {reason} drop"))


def _notes(reason: str, keys: tuple[tuple[str, str], ...], *, nflog: bool) -> tuple[str, ...]:
    if not nflog:
        return tuple(f"update @{name} {{ {key} counter }}" for name, key in keys)
    log = _LOG.format(reason=reason)
    rules = [
        f"update @{name} {{ {key} counter {PER_SENDER} }} {PER_REASON} {log}" for name, key in keys
    ]
    if keys[0][0].endswith("_by"):
        # the kernel's own packets, and what is left of a socket, have no owner
        rules += ["meta skuid >= 0 return", f"{PER_SENDER} {log}"]
    return tuple(rules)


def _keys(kind: str) -> tuple[tuple[str, str, str], ...]:
    """Names of sets, what is looked up in them, and its type."""
    if kind.endswith("_by"):
        return ((kind, "meta skuid . meta l4proto", "uid . inet_proto"),)
    return tuple(
        (
            f"{kind}{version}",
            f"iifname . {ip} saddr . meta l4proto",
            f"ifname . ipv{version}_addr . inet_proto",
        )
        for version, ip in ((4, "ip"), (6, "ip6"))
    )


def _sets(kind: str) -> Iterator[str]:
    for name, _, types in _keys(kind):
        yield from _set(name, types)


def _set(name: str, types: str) -> list[str]:
    side = "by" if name.endswith("_by") else "from"
    flags = f"dynamic,timeout; timeout {_REMEMBER[side]}; size {_MOST[side]}"
    return print_set(name, types, (), flags)
