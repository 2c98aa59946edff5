"""The words of the detector: a vector, the places it aims at, one attempt at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum

FIRST_NUMBER = 20000


class Account(Enum):
    """Who must run a vector's code inside the protected host."""

    USER = "user"
    ROOT = "root"
    TOR = "tor"


class Place(Enum):
    """Where a vector's code runs."""

    HOST = "host"  # for a gateway: on one of its clients
    WIRE = "wire"  # on the far end, putting frames on the wire towards the host


class Scope(Enum):
    """Which part of the configuration a vector is tried against."""

    HOST = "host"  # all that the machine sends
    USER = "user"  # what one account sends
    LAN = "lan"  # what clients behind an interface send; the machine is their gateway
    ONION = "onion"  # names under .onion, and where they are mapped


class Sight(Enum):
    """Where the witness sees a vector."""

    UPLINK = "uplink"  # on the far end of the protected machine's uplink
    LAN = "lan"  # on the far end of the gateway's cable to its clients


class Needs(Enum):
    """What the machine must be like, besides protected, for a vector to mean something."""

    NOTHING = "nothing"
    BYPASS = "bypass"  # the attached network is listed as a bypass
    SILENCE = "silence"  # nobody may open connections to it, not even neighbours
    TOR_GROUP = "tor-group"  # the code runs in the control group of the tor service


@dataclass(frozen=True)
class Targets:
    """The addresses a vector aims at and the names of things on this machine.

    Args:
        web4: a web server far away, port 80; also where the peer listens.
        web6: the same, IPv6.
        dns4: a name server far away.
        dns6: the same, IPv6.
        stranger4: a host far away that nobody asked anything.
        stranger6: the same, IPv6.
        host4: the protected host's own address.
        host6: the same, IPv6.
        neighbour4: another host on the attached network.
        neighbour6: the same, IPv6.
        gateway4: the router of the attached network.
        gateway6: the same, IPv6.
        router6: the router's link-local address, without a scope.
        broadcast4: the broadcast address of the attached network.
        device: the protected host's uplink.
        device_mac: its hardware address.
        far_device: the other end of that wire, for code that runs there.
        far_mac: the hardware address of the router.
        relay: address and port of a Tor relay that tor may talk to.
        peer_port: where the peer listens at `web4` and `web6`, TCP and UDP.
        trans_port: TransPort.
        dns_port: DNSPort.
        user_account: an ordinary account; in the scope of accounts the one that is routed.
        other_account: another one, which is not.
        subordinate: a user id that belongs to a routed account (subuid(5)).
        tor_account: tor's account.
        onion4: an address to which tor maps names under .onion.
        onion6: the same, IPv6.

    """

    web4: str
    web6: str
    dns4: str
    dns6: str
    stranger4: str
    stranger6: str
    host4: str
    host6: str
    neighbour4: str
    neighbour6: str
    gateway4: str
    gateway6: str
    router6: str
    broadcast4: str
    device: str
    device_mac: str
    far_device: str
    far_mac: str
    relay: tuple[str, int]
    peer_port: int = 7000
    trans_port: int = 9040
    dns_port: int = 5353
    user_account: str = "nobody"
    other_account: str = "nobody"
    subordinate: int = 65534
    tor_account: str = "onionward-tor"
    onion4: str = "127.192.0.7"
    onion6: str = "fd5a:7011::7"

    def address(self, name: str) -> str:
        """The address of that name here, or the name itself when it is an address already."""
        if name == "router6":
            return f"{self.router6}%{self.device}"
        if name == "relay":
            return self.relay[0]
        found = getattr(self, name) if name.isidentifier() else name
        if not isinstance(found, str):
            raise TypeError(f"{name} is not an address")
        return found

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Targets:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        address, port = values.pop("relay")
        return cls(relay=(str(address), int(port)), **values)


@dataclass(frozen=True)
class Attempt:
    """One try at one vector: where to aim, and the number by which its packets are recognised.

    The number is a source port, an ICMP identifier or the first two bytes of a payload; it lies
    below the ports that the kernel gives out by itself.
    """

    targets: Targets
    number: int

    @property
    def payload(self) -> bytes:
        """Bytes that nothing else sends; they begin with the number."""
        return self.number.to_bytes(2, "big") + b" onionward canary " + str(self.number).encode()

    @property
    def name(self) -> str:
        """A host name that nothing else asks for."""
        return f"canary{self.number}.onionward.example"

    @property
    def hardware(self) -> str:
        """A hardware address that nothing else has."""
        return f"02:0e:ad:00:{self.number >> 8:02x}:{self.number & 0xFF:02x}"

    @property
    def device(self) -> str:
        """A name for a network device of this attempt's own."""
        return f"ow{self.number}"

    def address(self, name: str) -> str:
        """As `Targets.address`."""
        return self.targets.address(name)


# What the witness looks for: a capture filter, or what writes it for an attempt.
Sees = str | Callable[[Attempt], str]

# A probe that stops once with `yield` prepares before and provokes after that point.
Probe = Callable[[Attempt], Iterator[None] | None]


@dataclass(frozen=True)
class Vector:
    """One way out.

    Args:
        id: stable name, lower case, words joined by dots and dashes.
        family: its row in the table of vectors in docs/security.md.
        title: one line for people.
        sees: the capture filter that shows the leak with protection off; in text `{n}` is the
            number and other names in braces are those of `Targets`.
        probe: what to do.
        account: who does it.
        place: where it is done.
        needs: what the machine must be like.
        prepared: the probe must prepare before protection begins.
        serve: what runs inside the host meanwhile, for a probe on the wire.
        limit: protection does not stop this one, which the documentation says.
        scope: what it was written for; `scopes.applies` says what else it is good for.
        sight: which witness sees it.

    """

    id: str
    family: str
    title: str
    sees: Sees
    probe: Probe
    account: Account = Account.USER
    place: Place = Place.HOST
    needs: Needs = Needs.NOTHING
    prepared: bool = False
    serve: Probe | None = None
    limit: bool = False
    scope: Scope = Scope.HOST
    sight: Sight = Sight.UPLINK

    def filter(self, attempt: Attempt) -> str:
        """The capture filter of an attempt, in the language of pcap-filter(7)."""
        if not isinstance(self.sees, str):
            return self.sees(attempt)
        values = {**asdict(attempt.targets), "hardware": attempt.hardware}
        return self.sees.format(n=attempt.number, **values)
