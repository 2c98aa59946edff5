"""What the lab consists of: addresses, machines and relays, as values.

    internet (one namespace)                              uplink0 198.18.0.1/24 2001:db8::1/64
    ┌───────────────────────────────────────────────┐       │
    │ authorities 198.18.1.N   middles  198.18.2.N  │       ├── eth0 host      198.18.0.2
    │ exits       198.18.3.N   2001:db8:3::N        ├───────┤        2001:db8::2
    │ onion services 198.18.4.1                     │       ├── eth0 neighbour 198.18.0.3
    │ web 198.18.80.1   dns 198.18.53.1             │       │        2001:db8::3
    │ stranger 198.18.66.6                          │       └── eth0 gateway   198.18.0.4
    └───────────────────────────────────────────────┘                2001:db8::4

    gateway
      eth1 198.18.8.1/24 2001:db8:8::1/64 ── lan0 switch0 lan1…3 ── eth0 client1…3
                                             (in internet, without     198.18.8.11…13
                                              addresses: only seen)    2001:db8:8::11…13
      br0  198.18.9.1/24 2001:db8:9::1/64 ── container0 ─────────── eth0 container
                                                                       198.18.9.2
                                                                       2001:db8:9::2

The gateway does not forward until somebody tells it to; `internet` knows the way back to both
networks behind it. Only 198.18.0.0/15 (RFC 2544) and 2001:db8::/32 (RFC 3849) are used, which no
real network routes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

WEB4, WEB6 = "198.18.80.1", "2001:db8:80::1"
DNS4, DNS6 = "198.18.53.1", "2001:db8:53::1"
STRANGER4, STRANGER6 = "198.18.66.6", "2001:db8:66::6"
ONION_ADDRESS = "198.18.4.1"

OR_PORT = 9001
DIR_PORT = 9030
TCP_ECHO_PORTS = (7, 22, 443, 853)
UDP_ECHO_PORTS = (7, 123, 443)
TICKER_PORT = 13

Role = Literal["authority", "middle", "exit"]
_THIRD_BYTE: dict[Role, int] = {"authority": 1, "middle": 2, "exit": 3}


@dataclass(frozen=True)
class Relay:
    """A relay of the private network; `number` counts from 1 within its role."""

    role: Role
    number: int

    @property
    def nickname(self) -> str:
        """Name in the consensus, and of its data directory."""
        return f"{self.role}{self.number}"

    @property
    def address4(self) -> str:
        """IPv4 address of its ports and of the connections it makes."""
        return f"198.18.{_THIRD_BYTE[self.role]}.{self.number}"

    @property
    def address6(self) -> str | None:
        """IPv6 address; only exits have one."""
        return f"2001:db8:3::{self.number:x}" if self.role == "exit" else None

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Every (address, port) on which clients may contact it."""
        ports = [(self.address4, OR_PORT)]
        if self.role == "authority":
            ports.append((self.address4, DIR_PORT))
        if self.address6:
            ports.append((self.address6, OR_PORT))
        return tuple(ports)


@dataclass(frozen=True)
class Link:
    """A network of machines: a bridge, and a router.

    Args:
        bridge: interface that connects the machines.
        router4: address of the router on this network, a /24.
        router6: the same, IPv6, a /64.

    """

    bridge: str
    router4: str
    router6: str

    @property
    def network4(self) -> str:
        """The IPv4 network, as "198.18.0.0/24"."""
        return str(ipaddress.ip_interface(f"{self.router4}/24").network)

    @property
    def network6(self) -> str:
        """The IPv6 network, as "2001:db8::/64"."""
        return str(ipaddress.ip_interface(f"{self.router6}/64").network)


UPLINK = Link("uplink0", "198.18.0.1", "2001:db8::1")
LAN = Link("switch0", "198.18.8.1", "2001:db8:8::1")
BRIDGE = Link("br0", "198.18.9.1", "2001:db8:9::1")

LAN_DEVICE = "eth1"
"""The gateway's interface on the LAN."""
LAN_PORT = "lan0"
"""The other end of its cable, a port of the switch."""


@dataclass(frozen=True)
class Machine:
    """A machine with one interface, eth0, on a link, and a default route to the link's router.

    Args:
        name: also its host name.
        address4: on the link.
        address6: the same, IPv6.
        port: name of the veth end that leads to it, a port of the link's bridge.
        link: where it is attached.
        resolver: in its /etc/resolv.conf.
        accounts: whether it has the accounts of `ACCOUNTS`.

    """

    name: str
    address4: str
    address6: str
    port: str
    link: Link = UPLINK
    resolver: str = DNS4
    accounts: bool = False


HOST = Machine("host", "198.18.0.2", "2001:db8::2", "host0", accounts=True)
NEIGHBOUR = Machine("neighbour", "198.18.0.3", "2001:db8::3", "neighbour0")
GATEWAY = Machine("gateway", "198.18.0.4", "2001:db8::4", "gateway0", accounts=True)
CLIENTS = tuple(
    Machine(f"client{n}", f"198.18.8.1{n}", f"2001:db8:8::1{n}", f"lan{n}", LAN, resolver)
    for n, resolver in enumerate((LAN.router4, DNS4, DNS6), start=1)
)
CONTAINER = Machine("container", "198.18.9.2", "2001:db8:9::2", "container0", BRIDGE)
MACHINES = (HOST, NEIGHBOUR, GATEWAY, *CLIENTS, CONTAINER)


HOMES = "/run/onionward-lab/home"
"""Directory of the homes of accounts in a machine of the lab."""


@dataclass(frozen=True)
class Account:
    """An account of a machine, with a group of the same name and number.

    Args:
        name: of the account.
        uid: its number.
        subordinate: first of 65536 user and group ids for its user namespaces (subuid(5)).

    """

    name: str
    uid: int
    subordinate: int | None = None

    @property
    def home(self) -> str:
        """Its home directory, in the machine's own /run."""
        return f"{HOMES}/{self.name}"


ACCOUNTS = (Account("alice", 61001), Account("bob", 61002, 900000), Account("carol", 61003))


@dataclass(frozen=True)
class TorNetwork:
    """How many of each; the rest follows.

    Three authorities are the fewest that can outvote one; eight relays leave a client a choice at
    each of its three hops.
    """

    authorities: int = 3
    middles: int = 3
    exits: int = 2
    onion_services: int = 1

    def __post_init__(self) -> None:
        counts = (self.authorities, self.middles, self.exits, self.onion_services)
        if min(counts[:3]) < 1 or min(counts) < 0 or max(counts) > 250:
            raise ValueError(f"a Tor network needs authorities, middles and exits: {self}")

    def relays(self) -> Iterator[Relay]:
        """All relays, authorities first."""
        roles: tuple[tuple[Role, int], ...] = (
            ("authority", self.authorities),
            ("middle", self.middles),
            ("exit", self.exits),
        )
        for role, count in roles:
            for number in range(1, count + 1):
                yield Relay(role, number)
