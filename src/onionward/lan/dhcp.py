"""DHCP and router advertisements for clients: which addresses, and dnsmasq's configuration.

Pure; options are those of dnsmasq(8), DHCP's are of RFC 2132, the announced ones of RFC 4861 and
RFC 8106.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from onionward.config.values import Config
from onionward.errors import RefusedError
from onionward.facts import Link
from onionward.networks import Address, Network, address_range
from onionward.toml_lines import KeyPath

# dnsmasq gives away no more than this at a time (--dhcp-lease-max)
_MOST_LEASES = 1000
# a network with fewer usable addresses is given away whole, without a half for fixed addresses
_SMALL = 14
_SLAAC_PREFIX = 64
# narrower ones have neither a network nor a broadcast address (RFC 3021)
_NARROWEST = 30


@dataclass(frozen=True, slots=True)
class Segment:
    """An interface whose clients get addresses from this machine.

    Attributes:
        interface: its name.
        addresses: this machine's there; empty while the interface does not exist.
        networks: attached to it.
        wanted: first and last address to give away, or empty: they are chosen here.
        hotplug: whether it may appear, or get its address, later.

    """

    interface: str
    addresses: tuple[Address, ...]
    networks: tuple[Network, ...]
    wanted: tuple[Address, ...] = ()
    hotplug: bool = False


@dataclass(frozen=True, slots=True)
class Leases:
    """Addresses to give away.

    Attributes:
        first: the lowest.
        last: the highest.
        network: which they are in, or None while the interface does not exist.

    """

    first: ipaddress.IPv4Address
    last: ipaddress.IPv4Address
    network: ipaddress.IPv4Network | None


@dataclass(frozen=True, slots=True)
class Listener:
    """A program that holds UDP port 67.

    Attributes:
        address: that it is bound to; unspecified for all.
        device: the interface that it is bound to, or "" for all.
        who: as `ss -p` names it.

    """

    address: Address
    device: str
    who: str


def segments(config: Config, links: Iterable[Link]) -> dict[int, Segment]:
    """Where DHCP is to be served, by the place among the [[lan]] tables."""
    present = {link.name: link for link in links}
    found = {}
    for place, lan in enumerate(config.lan):
        if lan.dhcp:
            link = present.get(lan.interface, Link(lan.interface, (), ()))
            found[place] = Segment(
                lan.interface, link.addresses, link.networks, lan.dhcp_range, lan.hotplug
            )
    return found


def leases(segment: Segment) -> Leases:
    """The addresses that clients get: those wanted, checked, or the upper half of what is free.

    Raises:
        RefusedError: there is nothing that can be given away; with the reason.

    """
    networks = [n for n in segment.networks if isinstance(n, ipaddress.IPv4Network)]
    if segment.wanted:
        return _wanted(segment, networks)
    if not networks:
        raise RefusedError(
            f"{segment.interface} has no network yet; name the addresses to give away"
            if segment.hotplug
            else f"{segment.interface} has no IPv4 network to give addresses from"
        )
    for network in networks:
        if network.prefixlen <= _NARROWEST and (chosen := _chosen(segment, network)):
            return chosen
    raise RefusedError(
        f"{', '.join(map(str, networks))} of {segment.interface} has no room for clients"
    )


def _wanted(segment: Segment, networks: Sequence[ipaddress.IPv4Network]) -> Leases:
    first, last = _pair(segment.wanted)
    if first > last:
        raise RefusedError(f"{first} comes after {last}")
    own = {a for a in segment.addresses if a.version == 4}
    if first == last and first in own:
        raise RefusedError(f"{first} is this machine's own address")
    if not networks:
        if segment.hotplug and not own:
            return Leases(first, last, None)
        raise RefusedError(f"{segment.interface} has no IPv4 network that {first} is in")
    for network in networks:
        if first in network and last in network:
            break
    else:
        stranger = first if not any(first in n for n in networks) else last
        attached = " or ".join(f"{n} ({address_range(n)})" for n in networks)
        raise RefusedError(f"{stranger} is not in {attached}, the network of {segment.interface}")
    if network.prefixlen > _NARROWEST:
        raise RefusedError(f"{network} of {segment.interface} has no room for clients")
    for address, name in ((network[0], "network"), (network[-1], "broadcast")):
        if address in (first, last):
            raise RefusedError(f"{address} is the {name} address of {network}")
    return Leases(first, last, network)


def _pair(wanted: Sequence[Address]) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    found = [a for a in wanted if isinstance(a, ipaddress.IPv4Address)]
    if len(wanted) != 2 or len(found) != 2:
        raise RefusedError("takes two IPv4 addresses: the first and the last to give away")
    return found[0], found[1]


def _chosen(segment: Segment, network: ipaddress.IPv4Network) -> Leases | None:
    """The upper half of the widest gap between our own addresses; the lower is for fixed ones."""
    low, high = int(network[1]), int(network[-2])
    own = sorted(int(a) for a in segment.addresses if a in network)
    edges = [low - 1, *own, high + 1]
    gaps = [(one + 1, other - 1) for one, other in pairwise(edges)]
    first, last = max(gaps, key=lambda gap: (gap[1] - gap[0], gap))
    if last < first:
        return None
    if last - first + 1 > _SMALL:
        first = max((first + last + 1) // 2, last - _MOST_LEASES + 1)
    return Leases(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last), network)


def announces(segment: Segment) -> bool:
    """Whether clients can make themselves addresses there (SLAAC, RFC 4862): it takes a /64."""
    prefixes = [n for n in segment.networks if n.version == 6 and not n.is_link_local]
    if not prefixes:
        return segment.hotplug and not segment.networks
    return any(n.prefixlen == _SLAAC_PREFIX for n in prefixes)


def configuration(
    segments: Iterable[Segment],
    *,
    lease_file: Path,
    log: Path,
    account: str,
    group: str,
    ipv6: bool = True,
) -> str:
    """The dnsmasq.conf of a server that knows no names and asks nobody.

    Args:
        segments: where to serve.
        lease_file: who has which address, kept over restarts.
        log: complaints only; clients are not listed.
        account: whom dnsmasq becomes after it has opened its ports.
        group: that account's group.
        ipv6: whether this machine has IPv6.

    Raises:
        RefusedError: a segment has nothing to give away.

    """
    served = tuple(segments)
    announcing = [s for s in served if ipv6 and announces(s)]
    lines = [
        "# Written by onionward: DHCP and router advertisements, no DNS.",
        "port=0",
        "no-resolv",
        "no-poll",
        "no-hosts",
        f"user={account}",
        f"group={group}",
        # an empty name: none is written
        "pid-file=",
        f"log-facility={log}",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        # also serves an interface that appears later
        "bind-dynamic",
        *(f"interface={s.interface}" for s in served),
        "dhcp-authoritative",
        # a probe would leave as a packet of this machine's own, and be refused
        "no-ping",
        f"dhcp-lease-max={_MOST_LEASES}",
        f"dhcp-leasefile={lease_file}",
        # names of clients are nobody's business: neither kept nor told
        "dhcp-ignore-names",
        *(_range_line(leases(s)) for s in served),
        # 0.0.0.0 stands for our address on the interface where the request came in
        "dhcp-option=option:router,0.0.0.0",
        "dhcp-option=option:dns-server,0.0.0.0",
    ]
    if announcing:
        lines += [
            "enable-ra",
            # neither the managed nor the other-configuration flag: there is no DHCPv6
            *(
                f"dhcp-range=::,constructor:{s.interface},ra-only,{_SLAAC_PREFIX},1h"
                for s in announcing
            ),
            # in the same way our global address and our unique local one, of those that exist
            "dhcp-option=option6:dns-server,[::],[fd00::]",
        ]
    return "\n".join(lines) + "\n"


def _range_line(chosen: Leases) -> str:
    mask = "" if chosen.network is None else f"{chosen.network.netmask},"
    return f"dhcp-range={chosen.first},{chosen.last},{mask}1h"


def problems(
    segments: Mapping[int, Segment], listeners: Sequence[Listener], *, dnsmasq: str | None
) -> Iterator[tuple[KeyPath, str]]:
    """Why clients cannot be served on this machine, each with the key that is concerned.

    Args:
        segments: by their place among the [[lan]] tables.
        listeners: who holds UDP port 67 already; onionward's own server is not among them.
        dnsmasq: the program, or None.

    """
    if segments and dnsmasq is None:
        yield (
            ("lan", min(segments), "dhcp"),
            "dnsmasq is missing; install it: apt install dnsmasq-base",
        )
    for place, segment in segments.items():
        key: KeyPath = ("lan", place)
        interface = segment.interface
        if not segment.hotplug and not any(a.version == 4 for a in segment.addresses):
            yield (
                (*key, "interface"),
                f"{interface} has no IPv4 address, so it has none to give away either; give it "
                f"one: ip address add ADDRESS/LENGTH dev {interface}",
            )
        else:
            try:
                leases(segment)
            except RefusedError as error:
                yield (*key, "dhcp_range"), error.message
        for listener in listeners:
            if _is_in_the_way(listener, segment):
                yield (
                    (*key, "dhcp"),
                    f"UDP port 67 is taken already by {listener.who}; stop that server or leave "
                    "dhcp out here",
                )


def _is_in_the_way(listener: Listener, segment: Segment) -> bool:
    if listener.device:
        return listener.device == segment.interface
    return listener.address.is_unspecified or listener.address in segment.addresses


def parse_listeners(text: str, own: Iterable[int]) -> tuple[Listener, ...]:
    """Who holds UDP port 67, out of `ss -Hlunp`.

    Args:
        text: its output.
        own: process ids of onionward's own server, which is left out.

    """
    marks = tuple(f"pid={pid}," for pid in own)
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or any(mark in line for mark in marks):
            continue
        if match := re.fullmatch(r"\[?([0-9a-fA-F.:*]+?)\]?(?:%([^:\]]+)\]?)?:67", fields[3]):
            address = "::" if match[1] == "*" else match[1]
            who = line.partition("users:")[2].strip() or "a program that does not show itself"
            found.append(Listener(ipaddress.ip_address(address), match[2] or "", who))
    return tuple(found)
