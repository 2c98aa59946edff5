"""What is wrong with a configuration whatever the machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from onionward.config.values import Config, LanConfig
from onionward.networks import NAME_PORTS, Network, address_range, bounds, overlapping
from onionward.toml_lines import KeyPath

# tor(1): VirtualAddrNetworkIPv4 and VirtualAddrNetworkIPv6 accept nothing longer
_LONGEST_VIRTUAL = {4: 16, 6: 104}

_PRIVATE = tuple(
    ipaddress.IPv4Network(n)
    for n in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_MULTICAST = (ipaddress.ip_network("224.0.0.0/3"), ipaddress.ip_network("ff00::/8"))
_NOT_FOR_BYPASS = (*_LOOPBACK, *_MULTICAST)

# places below /proc/sys/net/ipv4/conf that are no interface
_NO_NAMES = frozenset({"all", "default", ".", ".."})

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")

# Stands in for an entry that has been reported, so that the positions of the others hold; it is
# recognised by identity.
UNREADABLE = ipaddress.ip_network("192.0.2.0/32")


def contradictions(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Values that do not go together, each with its path."""
    tor = config.tor
    for name, port in _ports(config):
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
    if tor.exit_countries or tor.exclude_exit_countries:
        yield from _country_problems(config)
    if tor.bridges:
        yield from _bridge_problems(config)
    if tor.dns == "full" or tor.resolvers:
        from onionward.config import resolvers

        yield from resolvers.problems(config)
    yield from _virtual_problems(config)
    yield from _bypass_problems(config)
    yield from _scope_problems(config)
    yield from _lan_problems(config)
    yield from _user_problems(config)


def _ports(config: Config) -> tuple[tuple[str, int], ...]:
    tor = config.tor
    found = (("trans_port", tor.trans_port), ("dns_port", tor.dns_port))
    return (*found, ("full_dns_port", tor.full_dns_port)) if tor.dns == "full" else found


def _country_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    from onionward.config import countries

    wanted = config.tor.exit_countries
    for key, codes in (
        ("exit_countries", wanted),
        ("exclude_exit_countries", config.tor.exclude_exit_countries),
    ):
        for index, code in enumerate(codes):
            if words := countries.problem(code):
                yield ("tor", key, index), words
            elif codes is not wanted and code in wanted:
                yield ("tor", key, index), f'"{code}" is among the exit_countries, too'


def _bridge_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    from onionward.config import bridges

    for index, line in enumerate(config.tor.bridges):
        try:
            bridges.read(line)
        except bridges.NoBridgeError as error:
            yield ("tor", "bridges", index), str(error)


def _scope_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    if config.onion and config.host is not None and config.host.route == "direct":
        yield (
            ("onion",),
            'contradicts host.route = "direct": take one of the two away, or write route = "onion"',
        )
    if config.bypass.networks and config.host_route != "tor":
        yield (
            ("bypass", "networks"),
            "nothing is bypassed where this host is not routed; leave [bypass] out, or route it: "
            '[host] with route = "tor"',
        )
    if config.host_route == "direct" and not (config.lan or config.user):
        yield (
            ("host", "route"),
            'with "direct" alone nothing goes through Tor; add [[lan]] or [[user]], or change it',
        )


def _lan_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    first: dict[str, int] = {}
    for index, lan in enumerate(config.lan):
        key = ("lan", index)
        if not lan.interface:
            yield (*key, "interface"), "is missing; which interface are the clients behind?"
        elif (
            not re.fullmatch(r"[A-Za-z0-9_.@-]{1,15}", lan.interface) or lan.interface in _NO_NAMES
        ):
            yield (*key, "interface"), f"{lan.interface!r} cannot be the name of an interface"
        elif lan.interface == "lo":
            yield (*key, "interface"), "lo is loopback; no client is behind it"
        elif lan.interface in first:
            yield (
                (*key, "interface"),
                f"{lan.interface} is that of [[lan]] number {first[lan.interface] + 1} already",
            )
        first.setdefault(lan.interface, index)
        for place, service in enumerate(lan.services):
            if words := _wrong_service(service, config):
                yield (*key, "services", place), words
        if lan.dhcp and "dhcp" not in lan.services:
            yield (*key, "dhcp"), 'is true, but "dhcp" is not among the services'
        yield from _range_problems(lan, key)


def _range_problems(lan: LanConfig, key: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if not lan.dhcp_range:
        return
    path = (*key, "dhcp_range")
    if len(lan.dhcp_range) != 2:
        yield path, "takes two addresses: the first and the last to give away"
    elif any(address.version == 6 for address in lan.dhcp_range):
        yield (
            path,
            "takes IPv4 addresses; with IPv6, clients choose their own",
        )
    elif int(lan.dhcp_range[0]) > int(lan.dhcp_range[1]):
        yield path, f"{lan.dhcp_range[0]} comes after {lan.dhcp_range[1]}"
    elif not lan.dhcp:
        yield path, "has no meaning without dhcp = true"


def _wrong_service(service: str, config: Config) -> str:
    if service in ("dhcp", "ping", "ssh"):
        return ""
    found = re.fullmatch(r"(tcp|udp)/(\d{1,5})", service, re.ASCII)
    if not found or not 1 <= int(found[2]) <= 65535:
        return f'{service!r} is not known; known: "dhcp", "ping", "ssh", "tcp/PORT", "udp/PORT"'
    if int(found[2]) in (config.tor.trans_port, config.tor.dns_port):
        return f"{service} is a port of tor, which is reached by redirection only"
    if int(found[2]) in NAME_PORTS:
        return f"{service} resolves names, which go to Tor wherever they are asked for"
    return ""


def _user_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    first: dict[str, int] = {}
    for index, user in enumerate(config.user):
        path = ("user", index, "name")
        if not user.name:
            yield path, "is missing; which account?"
        elif not re.fullmatch(r"[a-z_][a-z0-9_.-]{0,30}\$?", user.name):
            yield path, f"{user.name!r} is not an account name"
        elif user.name == config.tor.user:
            yield path, f"{user.name} is tor's own account, whose traffic is what leaves"
        elif user.name == "root":
            yield path, "root is never held by rules that it can remove; route another account"
        elif user.name in first:
            yield path, f"{user.name} is [[user]] number {first[user.name] + 1} already"
        first.setdefault(user.name, index)
        if user.route == "direct" and config.host_route != "tor":
            yield (
                ("user", index, "route"),
                '"direct" is for accounts of a routed host; this host is not routed, so everybody '
                "who is not named is direct",
            )
        if user.route == "direct" and user.accept:
            yield ("user", index, "accept"), 'has no meaning with route = "direct"'


def _virtual_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    networks = config.virtual
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
        if config.lan and network.version == 4 and overlapping(network, _LOOPBACK[0]):
            yield (
                (*key, index),
                f"{network} is loopback, where clients of a [[lan]] send nothing over the wire; "
                "10.192.0.0/10 can be reached",
            )
        if network.version == 4 and not any(map(network.subnet_of, _PRIVATE)):
            yield (*key, index), f"{network} is not a private range; use 127.192.0.0/10"
        if network.version == 6 and network[0] not in ipaddress.ip_network("fc00::/7"):
            yield (*key, index), f"{network} is not a unique local network (fc00::/7)"


def _bypass_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    virtuals = tuple(n for n in config.virtual if n is not UNREADABLE)
    suspects = (*_NOT_FOR_BYPASS, *virtuals)
    ranges = {v: [bounds(n) for n in suspects if n.version == v] for v in (4, 6)}
    for index, network in enumerate(config.bypass.networks):
        first, last = bounds(network)
        # there may be thousands, and hardly one is suspect
        if any(first <= end and start <= last for start, end in ranges[network.version]):
            yield from _bypassed_problems(network, ("bypass", "networks", index), virtuals)


def _bypassed_problems(
    network: Network, key: KeyPath, virtuals: tuple[Network, ...]
) -> Iterator[tuple[KeyPath, str]]:
    if network.prefixlen == 0:
        yield key, f"{network} is everything; nothing would go through Tor"
        return
    if any(overlapping(network, multicast) for multicast in _MULTICAST):
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
