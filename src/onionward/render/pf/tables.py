"""The tables of the anchor: networks of the policy by name."""

from __future__ import annotations

import ipaddress

from onionward.networks import Address, Network
from onionward.policy import Lan, Policy
from onionward.render.pf.rule import Table

_LINK_LOCAL = ipaddress.ip_network("fe80::/64")
EVERYBODY = ipaddress.ip_address("255.255.255.255")
_MULTICAST = ("224.0.0.0/4", "ff00::/8")


def tables(policy: Policy) -> tuple[Table, ...]:
    """All of them; those that no rule asks are not written."""
    return (
        _table("virtual", ".onion names are mapped here", policy.virtual),
        _table("bypass", "reached directly, never for names", policy.bypass),
        _table("unroutable", "Tor cannot reach these", policy.unroutable),
        _table("link", "directly attached networks", policy.link),
        Table(
            "shared",
            "nobody's alone: multicast, broadcast, and IPv6 addresses of any router",
            (*_MULTICAST, *map(str, shared(policy))),
        ),
        *(
            _table(clients_of(place), f"clients behind {lan.interface}", of_clients(lan))
            for place, lan in enumerate(policy.lans)
        ),
    )


def clients_of(place: int) -> str:
    """Name of the table with the networks of a LAN; an interface's name may be none for pf."""
    return f"clients{place}"


def of_clients(lan: Lan) -> tuple[Network, ...]:
    """Where clients' addresses are from."""
    return (*lan.networks, *(() if _LINK_LOCAL in lan.networks else (_LINK_LOCAL,)))


def broadcasts(networks: tuple[Network, ...]) -> tuple[Address, ...]:
    """Broadcast addresses of the IPv4 networks that have one."""
    return tuple(n.broadcast_address for n in networks if n.version == 4 and n.prefixlen <= 30)


def shared(policy: Policy) -> tuple[Address, ...]:
    """Addresses of attached networks that belong to no one machine."""
    attached = (*policy.link, *(n for lan in policy.lans for n in lan.networks))
    anycast = (n.network_address for n in attached if n.version == 6 and n.prefixlen <= 126)
    return tuple(dict.fromkeys((EVERYBODY, *broadcasts(attached), *anycast)))


def _table(name: str, words: str, networks: tuple[Network, ...]) -> Table:
    return Table(name, words, tuple(map(str, networks)))
