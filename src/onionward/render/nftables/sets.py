"""The sets and maps of the table: networks, accounts, kept connections, circuits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onionward.networks import of_version
from onionward.policy import CIRCUITS4, CIRCUITS6, Flow, Policy
from onionward.render.nftables import flow_memory, queries
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
        lines += of_accounts("users", (uids for user in policy.users for uids in user.uids))
        lines += _circuits(policy)
    if policy.users and policy.route != "tor":
        for version in (4, 6):
            lines += print_set(f"user_flows{version}", _flow_type(version), (), flow_memory.FLAGS)
    return lines + queries.sets(policy)


def of_accounts(name: str, uids: Iterable[tuple[int, int]]) -> list[str]:
    """A set of user ids; a range needs a set of intervals."""
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


def _circuits(policy: Policy) -> list[str]:
    lines: list[str] = []
    for version, network in ((4, CIRCUITS4), (6, CIRCUITS6)):
        # clear of the address that clients of a LAN are sent to
        start = network[1] if version == 4 else network[1 << 16]
        pairs = sorted(
            (uids, start + number) for number, user in enumerate(policy.users) for uids in user.uids
        )
        flags = "interval" if any(first != last for (first, last), _ in pairs) else ""
        elements = (f"{_range(*uids)} : {address}" for uids, address in pairs)
        lines += print_set(
            f"circuits{version}", f"uid : ipv{version}_addr", elements, flags, word="map"
        )
    return lines
