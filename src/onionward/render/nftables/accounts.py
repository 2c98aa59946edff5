"""Accounts in rules: single user ids in a set, ranges of them each in a rule of its own.

A set of intervals has no elements from the moment at which new rules come into force until the
kernel has committed everything else (Linux 6.18, nf_tables_commit: the generation changes before
nft_set_commit_update). Rules that close something must not ask such a set: in 308 reloads 3,477
packets of a flood passed one, and none passed rules or a set of single values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onionward.policy import CIRCUITS4, CIRCUITS6, Policy
from onionward.render.nftables.text import print_set

Range = tuple[int, int]


def of_users(policy: Policy) -> Iterator[Range]:
    """All user ids of routed accounts."""
    return (uids for user in policy.users for uids in user.uids)


def single(uids: Iterable[Range]) -> list[int]:
    """Those that stand alone."""
    return sorted({first for first, last in uids if first == last})


def ranges(uids: Iterable[Range]) -> list[Range]:
    """The others; what touches is one."""
    merged: list[Range] = []
    for first, last in sorted({pair for pair in uids if pair[0] != pair[1]}):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def matches(name: str, uids: Sequence[Range]) -> tuple[str, ...]:
    """Beginnings of rules that together match these accounts; the set of that name has the rest."""
    in_rules = (f"meta skuid {first}-{last}" for first, last in ranges(uids))
    return (*((f"meta skuid @{name}",) if single(uids) else ()), *in_rules)


def user_rules(policy: Policy, verdict: str) -> tuple[str, ...]:
    """A rule for routed accounts, as many times as it takes."""
    return tuple(f"{match} {verdict}" for match in matches("users", tuple(of_users(policy))))


def single_set(name: str, uids: Iterable[Range]) -> list[str]:
    """The set of those that stand alone."""
    return print_set(name, "uid", map(str, single(uids)))


def _circuits(policy: Policy, version: int) -> list[tuple[Range, str]]:
    network = CIRCUITS4 if version == 4 else CIRCUITS6
    # clear of the address that clients of a LAN are sent to
    start = network[1] if version == 4 else network[1 << 16]
    return sorted(
        (uids, str(start + number))
        for number, user in enumerate(policy.users)
        for uids in user.uids
    )


def circuit_maps(policy: Policy) -> list[str]:
    """Which address each account has at tor."""
    lines: list[str] = []
    for version in (4, 6):
        pairs = _circuits(policy, version)
        elements = (f"{uids[0]} : {address}" for uids, address in pairs if uids[0] == uids[1])
        lines += print_set(f"circuits{version}", f"uid : ipv{version}_addr", elements, word="map")
    return lines


def circuit_rules(policy: Policy) -> tuple[str, ...]:
    """Rules of a chain that gives each account its address."""
    rules: list[str] = []
    for version, ip in ((4, "ip"), (6, "ip6")):
        family = f"meta nfproto ipv{version}"
        pairs = _circuits(policy, version)
        rules.append(f"{family} snat {ip} to meta skuid map @circuits{version}")
        rules += (
            f"{family} meta skuid {first}-{last} snat {ip} to {address}"
            for (first, last), address in pairs
            if first != last
        )
    return tuple(rules)
