"""The sets and maps of the table: networks, accounts, kept connections, circuits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onionward.networks import of_version
from onionward.policy import Endpoint, Flow, Policy
from onionward.render.nftables import accounts, flow_memory, paused, queries
from onionward.render.nftables.text import print_set


def of_policy(policy: Policy) -> list[str]:
    """All of them."""
    lines: list[str] = []
    unroutable = (*of_version(policy.unroutable, 4), *of_version(policy.unroutable, 6))
    for name, networks in (
        # derived merged, and perhaps too many to look at again
        ("bypass", policy.bypass),
        ("link", policy.link),
        ("unroutable", unroutable),
    ):
        for version in (4, 6):
            family = (str(network) for network in networks if network.version == version)
            lines += print_set(f"{name}{version}", f"ipv{version}_addr", family, "interval")
    for version in (4, 6):
        lines += print_set(f"kept{version}", _flow_type(version), _flows(policy.kept, version))
    lines += of_accounts("dhcp_accounts", ((uid, uid) for uid in policy.dhcp_uids))
    if policy.reach is not None:
        lines += _relays(policy.reach)
    if policy.lans:
        lines += print_set("lans", "ifname", (f'"{lan.interface}"' for lan in policy.lans))
        for version in (4, 6):
            lines += print_set(
                f"client_flows{version}",
                _flow_type(version),
                _flows(policy.client_flows, version),
                flow_memory.FLAGS,
            )
            lines += print_set(
                f"client_closing{version}", _flow_type(version), (), flow_memory.FLAGS_CLOSING
            )
    if policy.direct_users:
        lines += of_accounts(
            "direct_users", (uids for user in policy.direct_users for uids in user.uids)
        )
    if policy.users:
        lines += accounts.single_set("users", accounts.of_users(policy))
        lines += accounts.circuit_maps(policy)
    if policy.paused:
        lines += accounts.single_set(paused.SET, paused.uids(policy))
    if policy.users and policy.route != "tor":
        for version in (4, 6):
            lines += print_set(f"user_flows{version}", _flow_type(version), (), flow_memory.FLAGS)
    return lines + queries.sets(policy)


def of_scopes(policy: Policy) -> list[str]:
    """Those that tell whom the scopes of a machine that is not routed itself are about."""
    lines: list[str] = []
    if policy.lans:
        lines += print_set("lans", "ifname", (f'"{lan.interface}"' for lan in policy.lans))
        for version in (4, 6):
            lines += print_set(f"kept{version}", _flow_type(version), _flows(policy.kept, version))
    if policy.users:
        lines += accounts.single_set("users", accounts.of_users(policy))
    if policy.paused:
        lines += accounts.single_set(paused.SET, paused.uids(policy))
    return lines


def _relays(reach: Sequence[Endpoint]) -> Iterator[str]:
    # of single values: what closes never asks a set of intervals (docs/architecture.md)
    for version in (4, 6):
        places = (f"{a} . {port}" for a, port in reach if a.version == version)
        yield from print_set(f"relays{version}", f"ipv{version}_addr . inet_service", places)


def of_accounts(name: str, uids: Iterable[tuple[int, int]]) -> list[str]:
    """A set of user ids for rules that open something (`onionward.render.nftables.accounts`)."""
    ranges = sorted(set(uids))
    flags = "interval" if any(first != last for first, last in ranges) else ""
    return print_set(name, "uid", (_range(*pair) for pair in ranges), flags)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _flows(flows: Iterable[Flow], version: int) -> Iterator[str]:
    return (
        f"{f.peer} . {f.peer_port} . {f.local} . {f.local_port}"
        for f in flows
        if f.peer.version == version
    )


def _flow_type(version: int) -> str:
    return f"ipv{version}_addr . inet_service . ipv{version}_addr . inet_service"
