"""What the lab consists of: addresses, machines and relays, as values.

    internet (one namespace)                              uplink0 198.18.0.1/24 2001:db8::1/64
    ┌───────────────────────────────────────────────┐       │
    │ authorities 198.18.1.N   middles  198.18.2.N  │       ├── eth0 host      198.18.0.2
    │ exits       198.18.3.N   2001:db8:3::N        ├───────┤        2001:db8::2
    │ onion services 198.18.4.1                     │       │
    │ web 198.18.80.1   dns 198.18.53.1             │       └── eth0 neighbour 198.18.0.3
    │ stranger 198.18.66.6                          │                2001:db8::3
    └───────────────────────────────────────────────┘

Only 198.18.0.0/15 (RFC 2544) and 2001:db8::/32 (RFC 3849) are used, which no real network routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

GATEWAY4, GATEWAY6 = "198.18.0.1", "2001:db8::1"
WEB4, WEB6 = "198.18.80.1", "2001:db8:80::1"
DNS4, DNS6 = "198.18.53.1", "2001:db8:53::1"
STRANGER4, STRANGER6 = "198.18.66.6", "2001:db8:66::6"
ONION_ADDRESS = "198.18.4.1"

UPLINK = "uplink0"
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
class Machine:
    """A machine on the link behind the gateway."""

    name: str
    address4: str
    address6: str

    @property
    def port(self) -> str:
        """Name of the veth end that leads to it, a port of the bridge in `internet`."""
        return f"{self.name}0"


HOST = Machine("host", "198.18.0.2", "2001:db8::2")
NEIGHBOUR = Machine("neighbour", "198.18.0.3", "2001:db8::3")
MACHINES = (HOST, NEIGHBOUR)


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
