"""Machines and their policies: any combination of scopes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import strategies as st

from onionward.accounts import Uids, User
from onionward.config import parse
from onionward.deputies import DEPUTIES
from onionward.facts import Account as Login
from onionward.facts import Facts, Link
from onionward.networks import Address, Network, contains, overlapping
from onionward.policy import ControlGroup, Flow, Policy, derive
from onionward.policy import User as Paused
from tests.support import FACTS, addr, net

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

UPLINK = "up0"
TOR, DHCP, ORDINARY = 62100, 62101, 62000
# takes the place of the group of the test run, so that cases are the same in every run
GROUP = ControlGroup("onionward-kernel", 1)


@dataclass(frozen=True, slots=True)
class Account:
    """Who sends: a user id, and whether its sockets are made in tor's control group."""

    uid: int
    in_group: bool = False


# accounts that configurations name, with the ids of their containers
USERS = {
    "bob": (62010, Uids(2_000_000, 2_065_535)),
    "carol": (62011, None),
    "dave": (62012, Uids(3_000_000_000, 3_000_065_535)),
}
PAUSABLE = (
    Paused("ordinary", ((ORDINARY, ORDINARY),)),
    Paused("bob", ((62010, 62010), (2_000_000, 2_065_535))),
    Paused("carol", ((62011, 62011),)),
)
ACCOUNTS = {
    "root": Account(0),
    "ordinary": Account(ORDINARY),
    "tor": Account(TOR, in_group=True),
    "not tor": Account(TOR),
    "dhcp": Account(DHCP),
    "ordinary in the group": Account(ORDINARY, in_group=True),
    "bob": Account(62010),
    "bob's container": Account(2_000_500),
    "carol": Account(62011),
    "dave": Account(62012),
    "dave's container": Account(3_000_065_535),
}


@dataclass(frozen=True, slots=True)
class Device:
    """An interface of the machine, as far as it is the same in every case.

    Attributes:
        name: of the interface.
        hardware: its Ethernet address.
        link_local: the IPv6 address that the kernel makes of it.
        first: the addresses that it always has.

    """

    name: str
    hardware: str
    link_local: Address
    first: tuple[Interface, ...]


def _interfaces(text: str) -> tuple[Interface, ...]:
    return tuple(map(ipaddress.ip_interface, text.split()))


DEVICES = (
    Device(
        UPLINK,
        "02:00:5e:00:00:01",
        addr("fe80::5eff:fe00:1"),
        _interfaces("198.18.0.2/24 2001:db8:18::2/64"),
    ),
    Device(
        "lan0",
        "02:00:5e:00:00:02",
        addr("fe80::5eff:fe00:2"),
        _interfaces("198.18.8.1/24 2001:db8:8::1/64"),
    ),
    Device(
        "lan1",
        "02:00:5e:00:00:03",
        addr("fe80::5eff:fe00:3"),
        _interfaces("192.168.44.1/24 fd00:44::1/64"),
    ),
)
GATEWAYS = (addr("198.18.0.1"), addr("fe80::1"))

# besides those, on the uplink; 198.18.1.2 is adjacent to the first, so that the policy merges them
_ON_UPLINK = _interfaces(
    """
    198.18.1.2/24 192.168.7.2/24 10.9.3.2/16 198.19.4.1/30 198.19.8.0/31 198.19.8.2/31
    203.0.113.9/32 100.64.3.2/22 169.254.8.2/16 fd00:7::2/64 2001:db8:19::2/127 fec0::2/64
    """
)
_ON_LAN = _interfaces("198.18.9.1/24 203.0.113.33/28 10.8.0.1/16 2001:db8:88::1/64 fd00:8::1/127")

_VIRTUAL4 = ("127.192.0.0/10", "10.192.0.0/10", "172.20.0.0/16")
_VIRTUAL6 = ("fd5a:7011::/32", "fd12:3456::/48", "fc00:1::/32")
_BYPASS_TEXT = """
    198.18.0.0/24 198.18.0.1/32 198.18.1.0/24 198.18.0.0/15 198.19.4.0/30 192.168.0.0/16
    192.168.7.0/24 192.168.7.9/32 192.168.7.8/32 10.0.0.0/8 10.0.0.0/24 10.0.1.0/24
    172.16.0.0/12 100.64.0.0/10 169.254.0.0/16 169.254.169.254/32 1.1.1.1/32 0.0.0.0/8
    2001:db8::/32 2001:db8:18::/64 2001:db8:18::1/128 fd00::/16 fd00:7::/64 fe80::/10 fe80::/64
    fec0::/10 2606:4700::1111/128 2000::/3 64:ff9b::/96
"""
_BYPASS = tuple(net(text) for text in _BYPASS_TEXT.split())
_ANYWHERE = st.builds(
    lambda base, length: ipaddress.ip_network((base, length), strict=False),
    st.sampled_from(["198.18.77.200", "1.1.1.1", "192.168.7.200", "10.9.77.1", "100.64.3.7"]),
    st.integers(9, 32),
) | st.builds(
    lambda base, length: ipaddress.ip_network((base, length), strict=False),
    st.sampled_from(["2001:db8:18::2", "2001:db8:ff::7", "fd00:7::9", "2606:4700::1111"]),
    st.integers(9, 128),
)
_PLACES_TEXT = """
    1.1.1.1 2606:4700::1111 198.18.200.1 2001:db8:ff::1 198.18.0.1 2001:db8:18::1 fe80::1
    127.0.0.1 ::1 127.0.0.53 127.255.255.254 127.255.255.255 0.0.0.0 :: 0.0.0.1 224.0.0.1
    224.0.0.251 239.255.255.250 255.255.255.255 240.0.0.1 ff02::1 ff02::fb ff02::1:2 ff02::1:3
    ff05::2 ff0e::1 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 fc00::1 fd00::1
    fe80::5 fec0::1 ::7 64:ff9b::101:101 198.18.8.9 192.168.44.9
"""
PLACES = tuple(addr(text) for text in _PLACES_TEXT.split())

SERVICES = ("ping", "ssh", "dhcp", "tcp/8080", "udp/69", "udp/8080", "tcp/443")


# services that connect for others, of those that are asked by TCP
_DEPUTIES = tuple(deputy.name for deputy in DEPUTIES if deputy.ports)
DEPUTY_PORTS = tuple(port for deputy in DEPUTIES for port in deputy.ports)


@dataclass(frozen=True, slots=True)
class Scopes:
    """What a configuration has.

    Attributes:
        host: route of `[host]`, or None without such a table.
        onion: whether `onion = true`.
        lan: whether there is a `[[lan]]`.
        user: whether there is a `[[user]]`.

    """

    host: str | None = None
    onion: bool = False
    lan: bool = False
    user: bool = False


SCOPES = (
    Scopes("tor"),
    Scopes("tor", lan=True),
    Scopes("tor", user=True),
    Scopes("tor", lan=True, user=True),
    Scopes("tor", lan=True, user=True),
    Scopes(lan=True),
    Scopes(user=True),
    Scopes(onion=True),
    Scopes(lan=True, user=True),
    Scopes(onion=True, user=True),
    Scopes(onion=True, lan=True, user=True),
    Scopes("direct", lan=True, user=True),
    Scopes("onion", lan=True),
)


def link_of(device: Device, more: Iterable[Interface] = ()) -> Link:
    """A device with these addresses besides those that it always has."""
    every = (*device.first, *more)
    return Link(
        device.name,
        (*(i.ip for i in every), device.link_local),
        (*(i.network for i in every), net("fe80::/64")),
        is_uplink=device.name == UPLINK,
    )


LINKS = tuple(map(link_of, DEVICES))


def drawn_links() -> st.SearchStrategy[tuple[Link, ...]]:
    """The interfaces of a machine."""
    up, lan, other = DEVICES
    more = st.lists(st.sampled_from(_ON_UPLINK), max_size=3, unique=True)
    more_lan = st.lists(st.sampled_from(_ON_LAN), max_size=2, unique=True)
    return st.builds(
        lambda one, two: (link_of(up, one), link_of(lan, two), link_of(other)), more, more_lan
    )


def users_of(names: Iterable[str]) -> tuple[User, ...]:
    """These accounts as the machine has them."""
    found = []
    for name in names:
        uid, subordinate = USERS[name]
        login = Login(name, uid, uid, Path("/home") / name)
        found.append(User(login, frozenset({uid}), (subordinate,) if subordinate else ()))
    return tuple(found)


def facts_of(
    links: tuple[Link, ...] = LINKS,
    *,
    ipv6: bool = True,
    dhcp: tuple[int, ...] = (0, DHCP),
    users: Iterable[str] = USERS,
) -> Facts:
    """A machine with these interfaces and accounts."""
    return replace(FACTS, links=links, ipv6=ipv6, dhcp_uids=dhcp, users=users_of(users))


@st.composite
def drawn_policies(draw: st.DrawFn, links: tuple[Link, ...]) -> Policy:
    """Any combination of scopes on a machine."""
    attached = [n for link in links for n in link.networks]
    scopes = draw(st.sampled_from(SCOPES))
    virtual = [
        draw(st.sampled_from([n for n in pool if _is_possible(net(n), attached, scopes)]))
        for pool in (_VIRTUAL4, _VIRTUAL6)
    ]
    text = [f"onion = {str(scopes.onion).lower()}"]
    if scopes.host is not None:
        inbound = draw(st.sampled_from(["link", "none", "bypass", "all"]))
        text += ["[host]", f"route = '{scopes.host}'", f"inbound = '{inbound}'"]
    text += draw(_lans()) if scopes.lan else []
    text += draw(_users(direct=scopes.host == "tor")) if scopes.user else []
    text += ["[tor]", f"virtual_networks = {virtual}"]
    if scopes.host == "tor":
        full = draw(st.sampled_from([True, True, False]))
        text += ["dns = 'full'", "resolvers = ['9.9.9.9']"] if full else []
        listed = draw(st.lists(st.sampled_from(_BYPASS) | _ANYWHERE, max_size=5, unique=True))
        bypass = [str(n) for n in listed if not any_overlap(n, map(net, virtual))]
        text += ["[bypass]", f"networks = {bypass}"]
    dhcp = draw(st.sampled_from([(0, DHCP), (0,), (DHCP,)]))
    facts = facts_of(links, ipv6=draw(st.sampled_from([True, True, True, False])), dhcp=dhcp)
    return derive(
        parse("\n".join(text), "drawn.toml"),
        facts,
        tor_uid=TOR,
        tor_cgroup=draw(st.sampled_from([GROUP, None])),
        kept=tuple(draw(_kept(attached))),
    )


def _is_possible(virtual: Network, attached: Sequence[Network], scopes: Scopes) -> bool:
    if scopes.lan and virtual.is_loopback:
        return False
    return not any_overlap(virtual, attached)


@st.composite
def _lans(draw: st.DrawFn) -> list[str]:
    text = []
    for name in draw(st.sampled_from([["lan0"], ["lan0", "lan1"], ["lan1"]])):
        services = draw(st.lists(st.sampled_from(SERVICES), max_size=7, unique=True))
        text += ["[[lan]]", f"interface = '{name}'", f"services = {services}"]
    return text


@st.composite
def _users(draw: st.DrawFn, *, direct: bool) -> list[str]:
    text = []
    for name in draw(st.lists(st.sampled_from(sorted(USERS)), min_size=1, unique=True)):
        route = draw(st.sampled_from(["tor", "direct"])) if direct else "tor"
        text += ["[[user]]", f"name = '{name}'", f"route = '{route}'"]
        if route == "tor":
            accepted = draw(st.lists(st.sampled_from(_DEPUTIES), max_size=2, unique=True))
            text += [f"accept = {accepted}"]
    return text


def _kept(attached: Sequence[Network]) -> st.SearchStrategy[list[Flow]]:
    first = {interface.version: interface.ip for interface in DEVICES[0].first}
    peers = [a for a in (*PLACES, *edges(attached)) if _may_be_kept(a)]
    flows = st.builds(
        lambda peer, port, local_port: Flow(peer, port, first[peer.version], local_port),
        st.sampled_from(peers),
        st.sampled_from([50000, 443, 53]),
        st.sampled_from([22, 8022]),
    )
    return st.lists(flows, max_size=2, unique=True)


def any_overlap(network: Network, others: Iterable[Network]) -> bool:
    """Whether a network shares an address with any of the others."""
    return any(overlapping(network, other) for other in others)


def _may_be_kept(address: Address) -> bool:
    return not (
        address.is_multicast
        or address.is_loopback
        or address.is_unspecified
        or contains([net("0.0.0.0/8"), net("255.255.255.255/32"), net("fe80::/10")], address)
    )


def edges(networks: Iterable[Network]) -> list[Address]:
    """First and last addresses of networks, and their neighbours outside."""
    return [address for network in networks for address in _around(network)]


def _around(network: Network) -> list[Address]:
    first, last = int(network[0]), int(network[-1])
    numbers = (first, first + 1, last - 1, last, first - 1, last + 1)
    possible = range(1 << network.max_prefixlen)
    return [type(network[0])(number) for number in numbers if number in possible]
