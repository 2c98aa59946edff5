"""Addresses and networks of either family."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Name resolution that a bypassed or attached network would see: DNS, NetBIOS, DNS over TLS, SSDP,
# multicast DNS, LLMNR.
NAME_PORTS = frozenset({53, 137, 138, 853, 1900, 5353, 5355})

# Where tor(1) would refuse to connect to (address.c, tor_addr_is_internal): refused here at once
# instead of being accepted by TransPort and closed. Loopback never gets that far.
UNROUTABLE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)


def overlapping(one: Network, other: Network) -> bool:
    """Whether two networks share an address; networks of different families never do."""
    return one.version == other.version and one.overlaps(other)


def address_range(network: Network) -> str:
    """First and last address of a network."""
    return f"{network[0]} to {network[-1]}"


def bounds(network: Network) -> tuple[int, int]:
    """First and last address of a network, as numbers."""
    # for thousands of networks: `ipaddress` makes an object for each of the two
    first = int(network.network_address)
    return first, first | (1 << (network.max_prefixlen - network.prefixlen)) - 1


def of_version(networks: Iterable[Network], version: int) -> tuple[Network, ...]:
    """The networks of one family, merged and sorted, without overlaps."""
    ordered = sorted((*bounds(n), n) for n in networks if n.version == version)
    apart = all(one[1] + 1 < two[0] for one, two in pairwise(ordered))
    if apart:
        return tuple(network for _, _, network in ordered)
    if version == 4:
        return tuple(
            ipaddress.collapse_addresses(
                n for _, _, n in ordered if isinstance(n, ipaddress.IPv4Network)
            )
        )
    return tuple(
        ipaddress.collapse_addresses(
            n for _, _, n in ordered if isinstance(n, ipaddress.IPv6Network)
        )
    )


class AddressSet:
    """The addresses of any number of networks; to look one up takes no longer with thousands."""

    def __init__(self, networks: Iterable[Network]) -> None:
        listed = tuple(networks)
        ranges = {v: [bounds(n) for n in of_version(listed, v)] for v in (4, 6)}
        self._firsts = {v: [first for first, _ in found] for v, found in ranges.items()}
        self._lasts = {v: [last for _, last in found] for v, found in ranges.items()}

    def __contains__(self, address: Address) -> bool:
        place = bisect_right(self._firsts[address.version], int(address)) - 1
        return place >= 0 and int(address) <= self._lasts[address.version][place]


def contains(networks: Iterable[Network], address: Address) -> bool:
    """Whether an address is in any of the networks."""
    return any(address.version == n.version and address in n for n in networks)


def holding(networks: Iterable[Network], address: Address) -> Network | None:
    """The first network that an address is in."""
    return next((n for n in networks if contains((n,), address)), None)
