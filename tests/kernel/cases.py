"""Policies, and packets near the boundaries of each."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from onionward.config import parse
from onionward.explain import Packet, State
from onionward.facts import Facts, Link
from onionward.networks import Address, Network, contains, overlapping
from onionward.policy import ControlGroup, Flow, Policy, derive
from tests.support import FACTS, addr, net

DEVICE = "up0"
TOR, DHCP, ORDINARY = 62100, 62101, 62000
# takes the place of the group of the test run, so that cases are the same in every run
GROUP = ControlGroup("onionward-kernel", 1)


@dataclass(frozen=True, slots=True)
class Account:
    """Who sends: a user id, and whether its sockets are made in tor's control group."""

    uid: int
    in_group: bool


ACCOUNTS = {
    "root": Account(0, in_group=False),
    "ordinary": Account(ORDINARY, in_group=False),
    "tor": Account(TOR, in_group=True),
    "not tor": Account(TOR, in_group=False),
    "dhcp": Account(DHCP, in_group=False),
    "ordinary in the group": Account(ORDINARY, in_group=True),
}
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
OTHERS = {"igmp": 2, "gre": 47, "esp": 50, "sctp": 132, "udplite": 136}
SYN, ACK = 0x02, 0x10


@dataclass(frozen=True, slots=True)
class Send:
    """A packet and how it is sent.

    Attributes:
        packet: as `explain` is asked for it; without a source port one is chosen.
        account: a key of ACCOUNTS.
        raw: whether TCP is written to a raw socket instead of being connected.
        kind: TCP flags of a raw packet, or the type of ICMP.

    """

    packet: Packet
    account: str
    raw: bool
    kind: int

    @property
    def number(self) -> int:
        return (NUMBERS | OTHERS)[self.packet.protocol]

    @property
    def kind_is_icmp(self) -> bool:
        """Whether the protocol is the ICMP of the family."""
        family = {4: "icmp", 6: "ipv6-icmp"}
        return self.packet.protocol == family[self.packet.destination.version]


@dataclass(frozen=True, slots=True)
class Case:
    """A machine, its policy and state, and what is sent."""

    link: Link
    policy: Policy
    state: State
    sends: tuple[Send, ...]


_INTERFACES = tuple(
    ipaddress.ip_interface(text)
    for text in (
        "198.18.1.2/24",  # adjacent to the first, so that the policy merges the two
        "192.168.7.2/24",
        "10.9.3.2/16",
        "198.19.4.1/30",
        "198.19.8.0/31",
        "198.19.8.2/31",
        "203.0.113.9/32",
        "100.64.3.2/22",
        "169.254.8.2/16",
        "fd00:7::2/64",
        "2001:db8:19::2/127",
        "fec0::2/64",
    )
)
FIRST = (ipaddress.ip_interface("198.18.0.2/24"), ipaddress.ip_interface("2001:db8:18::2/64"))
LINK_LOCAL = addr("fe80::5eff:fe00:1")
HARDWARE_ADDRESS = "02:00:5e:00:00:01"
GATEWAYS = (addr("198.18.0.1"), addr("fe80::1"))

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
_PUBLIC = tuple(map(addr, ("1.1.1.1", "2606:4700::1111", "198.18.200.1", "2001:db8:ff::1")))
_PLACES_TEXT = """
    1.1.1.1 2606:4700::1111 198.18.200.1 2001:db8:ff::1 198.18.0.1 2001:db8:18::1 fe80::1
    127.0.0.1 ::1 127.0.0.53 127.255.255.254 127.255.255.255 0.0.0.0 :: 0.0.0.1 224.0.0.1
    224.0.0.251 239.255.255.250 255.255.255.255 240.0.0.1 ff02::1 ff02::fb ff02::1:2 ff02::1:3
    ff05::2 ff0e::1 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 fc00::1 fd00::1
    fe80::5 fec0::1 ::7 64:ff9b::101:101
"""
_PLACES = tuple(addr(text) for text in _PLACES_TEXT.split())
_PORTS = (443, 80, 53, 853, 137, 138, 1900, 5353, 5355, 67, 547, 940, 941, 22, 1, 65535, 123)
_LIKELY_PORTS = {"tcp": (443, 443, 53) * 3, "udp": (53, 53, 53, 443) * 6}


@st.composite
def cases(draw: st.DrawFn, state: State, most: int) -> Case:
    """A machine that is in this state, and up to `most` packets."""
    link = draw(_links())
    policy = draw(_policies(link))
    destinations = st.sampled_from(_destinations(link, policy))
    packets = _packets(link, destinations)
    kept = _near_kept(policy)
    sends: list[Send] = []
    # most often as many as can be, because loading rules takes longer than sending all these;
    # every number can be had, so that a failure shrinks packet by packet
    for _ in range(draw(st.sampled_from([*range(1, most), *[most] * most * 2]))):
        chosen = draw(packets if not policy.kept else st.one_of(packets, packets, packets, kept))
        if _fixed(chosen) is None or _fixed(chosen) not in map(_fixed, sends):
            sends.append(chosen)
    return Case(link, policy, state, tuple(sends))


def _fixed(send: Send) -> tuple[object, ...] | None:
    """What conntrack would take for the same connection."""
    packet = send.packet
    if packet.source_port is None:
        return None
    return (packet.protocol, packet.source_port, packet.destination, packet.port)


def link_of(interfaces: Iterable[ipaddress.IPv4Interface | ipaddress.IPv6Interface]) -> Link:
    """The device of the machine with these addresses besides those that it always has."""
    every = (*FIRST, *interfaces)
    return Link(
        DEVICE,
        (*(i.ip for i in every), LINK_LOCAL),
        (*(i.network for i in every), net("fe80::/64")),
    )


def _links() -> st.SearchStrategy[Link]:
    return st.lists(st.sampled_from(_INTERFACES), max_size=3, unique=True).map(link_of)


def facts_of(link: Link, *, ipv6: bool = True, dhcp: tuple[int, ...] = (0, DHCP)) -> Facts:
    return replace(FACTS, links=(link,), ipv6=ipv6, dhcp_uids=dhcp)


@st.composite
def _policies(draw: st.DrawFn, link: Link) -> Policy:
    virtual = [
        draw(st.sampled_from([n for n in pool if not _any_overlap(net(n), link.networks)]))
        for pool in (_VIRTUAL4, _VIRTUAL6)
    ]
    listed = draw(st.lists(st.sampled_from(_BYPASS) | _ANYWHERE, max_size=5, unique=True))
    bypass = [str(n) for n in listed if not _any_overlap(n, map(net, virtual))]
    config = parse(
        f"[host]\ninbound = '{draw(st.sampled_from(['link', 'none', 'bypass', 'all']))}'\n"
        f"[tor]\nvirtual_networks = {virtual}\n[bypass]\nnetworks = {bypass}\n",
        "drawn.toml",
    )
    dhcp = draw(st.sampled_from([(0, DHCP), (0,), (DHCP,)]))
    facts = facts_of(link, ipv6=draw(st.sampled_from([True, True, True, False])), dhcp=dhcp)
    peers = st.sampled_from([a for a in (*_PLACES, *_edges(link.networks)) if _may_be_kept(a)])
    flows = st.builds(
        lambda peer, port, local_port, locals_: Flow(peer, port, locals_[peer.version], local_port),
        peers,
        st.sampled_from([50000, 443, 53]),
        st.sampled_from([22, 8022]),
        st.just({4: FIRST[0].ip, 6: FIRST[1].ip}),
    )
    kept = draw(st.lists(flows, max_size=2, unique=True))
    group = draw(st.sampled_from([GROUP, None]))
    return derive(config, facts, tor_uid=TOR, tor_cgroup=group, kept=tuple(kept))


def _any_overlap(network: Network, others: Iterable[Network]) -> bool:
    return any(overlapping(network, other) for other in others)


def _may_be_kept(address: Address) -> bool:
    return not (
        address.is_multicast
        or address.is_loopback
        or address.is_unspecified
        or contains([net("0.0.0.0/8"), net("255.255.255.255/32"), net("fe80::/10")], address)
    )


def _edges(networks: Iterable[Network]) -> list[Address]:
    """First and last addresses of networks, and their neighbours outside."""
    return [address for network in networks for address in _around(network)]


def _around(network: Network) -> list[Address]:
    first, last = int(network[0]), int(network[-1])
    numbers = (first, first + 1, last - 1, last, first - 1, last + 1)
    possible = range(1 << network.max_prefixlen)
    return [type(network[0])(number) for number in numbers if number in possible]


def _destinations(link: Link, policy: Policy) -> list[Address]:
    networks = (*link.networks, *policy.bypass, policy.virtual4, policy.virtual6)
    near = [*link.addresses, *_edges(networks), *_edges(policy.unroutable)]
    # multicast of a scope within the machine, which the kernel sends nowhere (RFC 4291, 2.7)
    silent = [net("ff00::/16"), net("ff01::/16")]
    return [a for a in dict.fromkeys((*_PLACES, *near)) if not contains(silent, a)]


def is_group(link: Link, address: Address) -> bool:
    """Whether it is of multicast or broadcast: TCP does not connect to it, nobody answers as it."""
    networks = (*link.networks, net("127.0.0.0/8"))
    broadcast = [n.broadcast_address for n in networks if n.version == 4 and n.prefixlen <= 30]
    return address.is_multicast or address in (*broadcast, addr("255.255.255.255"))


@st.composite
def _packets(draw: st.DrawFn, link: Link, destinations: st.SearchStrategy[Address]) -> Send:
    account = draw(st.sampled_from(["ordinary", *ACCOUNTS, "root"]))
    to = draw(st.one_of(destinations, destinations, st.sampled_from(_PUBLIC)))
    icmp = ("icmp", "ipv6-icmp") if to.version == 4 else ("ipv6-icmp", "icmp")
    likely = ["tcp"] * 5 + ["udp"] * 4 + [icmp[0]] * 2
    protocol = draw(st.sampled_from([*likely, *OTHERS, icmp[1]]))
    port = source_port = None
    raw, kind = True, SYN
    if protocol in ("tcp", "udp"):
        port = draw(st.sampled_from(_LIKELY_PORTS[protocol] + _PORTS) | st.integers(1, 65535))
        raw = protocol == "tcp" and (draw(st.integers(0, 3)) == 3 or is_group(link, to))
        kind = draw(st.sampled_from([SYN, ACK])) if raw else SYN
    if protocol == "udp" and draw(st.integers(0, 3)) == 3:
        source_port = draw(st.sampled_from([68, 546]))
        port = draw(st.sampled_from([67, 547, 53]))
        account = draw(st.sampled_from(["root", "dhcp", account]))
    if protocol == icmp[0]:
        kinds = (8, 13) if to.version == 4 else (128, 133, 135)
        kind = draw(st.sampled_from(kinds))
    return send(account, to, protocol, port, source_port, raw=raw, kind=kind)


def send(
    account: str,
    to: Address,
    protocol: str,
    port: int | None = None,
    source_port: int | None = None,
    source: Address | None = None,
    *,
    raw: bool = True,
    kind: int = SYN,
) -> Send:
    who = ACCOUNTS[account]
    packet = Packet(
        protocol,
        to,
        port,
        who.uid,
        source_port,
        source,
        from_tor=who.in_group,
        opens=protocol != "tcp" or kind == SYN,
    )
    return Send(packet, account, raw, kind)


@st.composite
def _near_kept(draw: st.DrawFn, policy: Policy) -> Send:
    """A packet of a kept connection, or one that differs by a port."""
    flow = draw(st.sampled_from(policy.kept))
    return send(
        draw(st.sampled_from(list(ACCOUNTS))),
        flow.peer,
        "tcp",
        flow.peer_port + draw(st.sampled_from([0, 0, 1])),
        flow.local_port + draw(st.sampled_from([0, 0, 1])),
        flow.local,
        kind=draw(st.sampled_from([ACK, ACK, SYN])),
    )
