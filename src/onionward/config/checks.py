"""What is wrong with a configuration whatever the machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from onionward.config.values import Config
from onionward.networks import Network, address_range, overlapping
from onionward.toml_lines import KeyPath

# tor(1): VirtualAddrNetworkIPv4 and VirtualAddrNetworkIPv6 accept nothing longer
_LONGEST_VIRTUAL = {4: 16, 6: 104}

_PRIVATE = tuple(
    ipaddress.IPv4Network(n)
    for n in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

# Stands in for an entry that has been reported, so that the positions of the others hold; it is
# recognised by identity.
UNREADABLE = ipaddress.ip_network("192.0.2.0/32")


def contradictions(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Values that do not go together, each with its path."""
    tor = config.tor
    for name, port in (("trans_port", tor.trans_port), ("dns_port", tor.dns_port)):
        if not 1 <= port <= 65535:
            yield ("tor", name), f"{port} is not a port; ports are 1 to 65535"
        elif port == 53:
            yield ("tor", name), "port 53 is what local resolvers listen on; take another one"
    if tor.trans_port == tor.dns_port:
        yield (
            ("tor", "dns_port"),
            f"{tor.dns_port} is the trans_port too; they must differ",
        )
    if not 5 <= tor.bootstrap_timeout <= 86400:
        yield (
            ("tor", "bootstrap_timeout"),
            f"{tor.bootstrap_timeout} is out of range; seconds, 5 to 86400",
        )
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", tor.user):
        yield ("tor", "user"), f"{tor.user!r} is not an account name"
    yield from _virtual_problems(tor.virtual)
    yield from _bypass_problems(config)


def _virtual_problems(networks: tuple[Network, ...]) -> Iterator[tuple[KeyPath, str]]:
    key = ("tor", "virtual_networks")
    versions = [n.version for n in networks if n is not UNREADABLE]
    if len(versions) != len(set(versions)):
        yield key, 'takes "auto", or at most one network of each family'
    for index, network in enumerate(networks):
        if network is UNREADABLE:
            continue
        longest = _LONGEST_VIRTUAL[network.version]
        if network.prefixlen > longest:
            yield (*key, index), f"{network} is too small for tor; at most /{longest}"
        if network.version == 4 and overlapping(network, ipaddress.ip_network("127.0.0.0/16")):
            yield (
                (*key, index),
                f"{network} holds the loopback addresses that programs use; "
                "127.192.0.0/10 is outside them",
            )
        if network.version == 4 and not any(map(network.subnet_of, _PRIVATE)):
            yield (*key, index), f"{network} is not a private range; use 127.192.0.0/10"
        if network.version == 6 and network[0] not in ipaddress.ip_network("fc00::/7"):
            yield (*key, index), f"{network} is not a unique local network (fc00::/7)"


def _bypass_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    virtuals = tuple(n for n in config.tor.virtual if n is not UNREADABLE)
    for index, network in enumerate(config.bypass.networks):
        key = ("bypass", "networks", index)
        if network.prefixlen == 0:
            yield key, f"{network} is everything; nothing would go through Tor"
            continue
        if overlapping(network, ipaddress.ip_network("224.0.0.0/3")) or overlapping(
            network, ipaddress.ip_network("ff00::/8")
        ):
            yield key, f"{network} holds multicast or broadcast addresses, which never leave"
        if any(overlapping(network, loopback) for loopback in _LOOPBACK) and not any(
            overlapping(network, virtual) for virtual in virtuals
        ):
            yield key, f"{network} is loopback, which needs no bypass"
        for virtual in virtuals:
            if overlapping(network, virtual):
                yield (
                    key,
                    f"{network} ({address_range(network)}) overlaps the virtual network {virtual} "
                    "where .onion names are mapped: they would leave in clear; take one of the two "
                    "elsewhere",
                )
