"""Addresses and networks of either family."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Name resolution that a bypassed or attached network would see: DNS, NetBIOS, DNS over TLS, SSDP,
# multicast DNS, LLMNR.
NAME_PORTS = frozenset({53, 137, 138, 853, 1900, 5353, 5355})


def overlapping(one: Network, other: Network) -> bool:
    """Whether two networks share an address; networks of different families never do."""
    return one.version == other.version and one.overlaps(other)


def address_range(network: Network) -> str:
    """First and last address of a network."""
    return f"{network[0]} to {network[-1]}"


def of_version(networks: Iterable[Network], version: int) -> tuple[Network, ...]:
    """The networks of one family, merged and sorted, without overlaps."""
    if version == 4:
        return tuple(
            ipaddress.collapse_addresses(
                n for n in networks if isinstance(n, ipaddress.IPv4Network)
            )
        )
    return tuple(
        ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))
    )


def contains(networks: Iterable[Network], address: Address) -> bool:
    """Whether an address is in any of the networks."""
    return any(address.version == n.version and address in n for n in networks)


def holding(networks: Iterable[Network], address: Address) -> Network | None:
    """The first network that an address is in."""
    return next((n for n in networks if contains((n,), address)), None)
