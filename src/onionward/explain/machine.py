"""Addresses that the kernel has special routes for (`fib daddr type` in the rules)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from onionward.networks import Address, Network, contains
from onionward.policy import Policy

EVERYBODY = ipaddress.ip_address("255.255.255.255")
# the kernel takes 0.0.0.0 and :: for loopback
_LOOPBACK4 = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("0.0.0.0/32"))
_LOOPBACK6 = (ipaddress.ip_network("::1"), ipaddress.ip_network("::/128"))


@dataclass(frozen=True, slots=True)
class Machine:
    """The addresses of this machine.

    Attributes:
        local: its own.
        networks: what is routed to loopback.
        shared: broadcast addresses of IPv4, anycast addresses of IPv6.

    """

    local: frozenset[Address]
    networks: tuple[Network, ...]
    shared: frozenset[Address]

    def is_local(self, address: Address) -> bool:
        """Whether it is delivered on this machine."""
        here = address in self.local or contains(self.networks, address)
        return here and address not in self.shared

    def is_unicast(self, address: Address) -> bool:
        """Whether it belongs to one machine."""
        return not address.is_multicast and address not in self.shared


def machine(policy: Policy, own: Iterable[Address], attached: Iterable[Network]) -> Machine:
    """The machine with these addresses, under a policy."""
    networks = (
        *_LOOPBACK4,
        *(_LOOPBACK6 if policy.ipv6 else ()),
        # loopback already, when it is in 127.0.0.0/8
        *policy.local_routes,
    )
    # a local route makes no broadcast address, as an address of an interface does
    routed = (n for n in networks if n.version == 6 or n.is_loopback)
    shared = (address for n in (*attached, *routed) for address in _shared(n))
    own = (*own, *policy.local_addresses)
    return Machine(frozenset(own), networks, frozenset({EVERYBODY, *shared}))


def _shared(network: Network) -> tuple[Address, ...]:
    """The broadcast address of a network, or the anycast address of its routers."""
    if network.version == 4:
        return (network.broadcast_address,) if network.prefixlen <= 30 else ()
    return (network.network_address,) if network.prefixlen <= 126 else ()
