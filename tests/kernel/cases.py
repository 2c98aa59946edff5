"""A machine in a state, and what is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onionward.explain import Packet, State
from onionward.facts import Link
from onionward.networks import Address, Network
from onionward.policy import Policy
from tests.kernel.policies import ACCOUNTS
from tests.support import addr, net

NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
OTHERS = {"igmp": 2, "gre": 47, "esp": 50, "sctp": 132, "udplite": 136}
SYN, ACK = 0x02, 0x10
ECHO = {4: 8, 6: 128}


@dataclass(frozen=True, slots=True)
class Send:
    """A packet and how it is sent.

    Attributes:
        packet: as `explain` is asked for it; without a source port one is chosen.
        account: a key of ACCOUNTS, or the interface of the client.
        raw: whether TCP is written to a raw socket instead of being connected.
        kind: TCP flags of a raw packet, or the type of ICMP.
        name: what it asks for, when it is a DNS query.

    """

    packet: Packet
    account: str
    raw: bool
    kind: int
    name: str | None = None

    @property
    def number(self) -> int:
        return (NUMBERS | OTHERS)[self.packet.protocol]

    @property
    def is_client(self) -> bool:
        """Whether it comes from a LAN, not from a program of the machine."""
        return self.packet.interface is not None

    @property
    def kind_is_icmp(self) -> bool:
        """Whether the protocol is the ICMP of the family."""
        family = {4: "icmp", 6: "ipv6-icmp"}
        return self.packet.protocol == family[self.packet.destination.version]

    @property
    def flow(self) -> tuple[object, ...] | None:
        """What conntrack would take for the same connection; None when nothing else can be."""
        packet = self.packet
        if packet.source_port is None:
            return None
        source = packet.source if self.is_client else None
        ends = (source, packet.source_port, packet.destination, packet.port)
        return (packet.protocol, *ends)


@dataclass(frozen=True, slots=True)
class Case:
    """A machine, its policy and state, and what is sent.

    Attributes:
        links: its interfaces.
        policy: in force.
        state: "routed" or "blocked".
        sends: the packets.
        forwarding: whether the kernel would forward IPv4, and IPv6.

    """

    links: tuple[Link, ...]
    policy: Policy
    state: State
    sends: tuple[Send, ...]
    forwarding: tuple[bool, bool] = (True, True)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses of the machine but loopback."""
        return tuple(a for link in self.links for a in link.addresses)

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks that it is attached to."""
        return tuple(n for link in self.links for n in link.networks)


def is_group(networks: Iterable[Network], address: Address) -> bool:
    """Whether it is of multicast or broadcast: TCP does not connect to it, nobody answers as it."""
    every = (*networks, net("127.0.0.0/8"))
    broadcast = [n.broadcast_address for n in every if n.version == 4 and n.prefixlen <= 30]
    return address.is_multicast or address in (*broadcast, addr("255.255.255.255"))


def is_onion_name(name: str) -> bool:
    """A version 3 onion service, bare or below one more label (rend-spec-v3)."""
    labels = name.lower().split(".")
    return len(labels) in (2, 3) and labels[-1] == "onion" and len(labels[-2]) == 56


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
    name: str | None = None,
) -> Send:
    """A packet of a program of the machine."""
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
        onion_name=name is not None and is_onion_name(name),
    )
    return Send(packet, account, raw, kind, name)
