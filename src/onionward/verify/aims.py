"""Where the probes of `verify` aim: canaries that are nobody, and this machine's own link."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onionward import iproute2
from onionward.errors import RefusedError
from onionward.leaks.model import FIRST_NUMBER, Targets
from onionward.networks import Network, contains
from onionward.system import System
from onionward.verify.conduct import Surroundings

_RELAY_PORT = 9001
# nobody's; a frame to it reaches no card
_NO_CARD = "02:0e:ad:ff:ff:fe"
_EVERYBODY = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Canaries:
    """Addresses out of the documentation ranges (RFC 5737, RFC 3849), and numbers.

    Which of them, and from which number on packets are counted, is drawn anew each time, so that a
    packet that bears them is one of this run's.

    Attributes:
        first: the lowest source port, identifier or leading payload number.
        web4: a web server that does not exist.
        web6: the same, IPv6.
        dns4: a name server that does not exist.
        dns6: the same, IPv6.
        stranger4: another host that does not exist.
        stranger6: the same, IPv6.
        own4: stands for this machine where it has no IPv4 address.
        own6: stands for this machine where it has no IPv6 address.

    """

    first: int
    web4: str
    web6: str
    dns4: str
    dns6: str
    stranger4: str
    stranger6: str
    own4: str
    own6: str

    @property
    def networks(self) -> tuple[str, ...]:
        """The documentation ranges."""
        return ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")


def draw(dice: random.Random, numbers: int, ephemeral: int) -> Canaries:
    """Draw canaries.

    Args:
        dice: to draw with.
        numbers: how many numbers are needed.
        ephemeral: the first local port that the kernel gives out by itself.

    """
    last = min(ephemeral, 65536) - numbers
    first = dice.randint(FIRST_NUMBER // 2, last) if last >= FIRST_NUMBER // 2 else FIRST_NUMBER
    # from 0x1000 on, not the small numbers that people choose for networks of examples
    net = f"2001:db8:{dice.randrange(0x1000, 0x10000):x}"
    own4, *hosts = (f"192.0.2.{n}" for n in dice.sample(range(1, 255), 2))
    return Canaries(
        first=first,
        web4=hosts[0],
        dns4=f"198.51.100.{dice.randrange(1, 255)}",
        stranger4=f"203.0.113.{dice.randrange(1, 255)}",
        web6=f"{net}:80::{dice.randrange(1, 0x10000):x}",
        dns6=f"{net}:53::{dice.randrange(1, 0x10000):x}",
        stranger6=f"{net}:66::{dice.randrange(1, 0x10000):x}",
        own4=own4,
        own6=f"{net}:1::2",
    )


@dataclass(frozen=True, slots=True)
class Uplink:
    """The interface that the probes leave by, if they leave.

    Attributes:
        device: its name.
        hardware: its Ethernet address, or "" when it has none.
        address4: this machine's address there, with the prefix; "" when it has none.
        address6: the same, IPv6, not link-local.
        broadcast4: the link's broadcast address, or "".
        router4: the IPv4 router of the default route, or "".
        router6: an IPv6 router that is not link-local, or "".
        router6_local: its link-local address, or "".
        router_hardware: the router's Ethernet address, or "".
        routes4: whether a default route leads through it.
        routes6: the same, IPv6.

    """

    device: str
    hardware: str
    address4: str
    address6: str
    broadcast4: str
    router4: str
    router6: str
    router6_local: str
    router_hardware: str
    routes4: bool
    routes6: bool


Entries = Iterable[Mapping[str, Any]]


def read(system: System, wanted: str) -> Uplink:
    """The uplink of this machine.

    Args:
        system: the seam.
        wanted: an interface, or "" for that of a default route.

    Raises:
        RefusedError: there is no such interface, or no default route.

    """

    def asked(*words: str) -> list[dict[str, Any]]:
        return iproute2.entries(system.query(["ip", "-j", *words]))

    links = asked("address", "show")
    routes4, routes6 = (asked(v, "route", "show", "default") for v in ("-4", "-6"))
    return choose(wanted, links, routes4, routes6, asked("neighbour", "show"))


def choose(
    wanted: str, links: Entries, routes4: Entries, routes6: Entries, neighbours: Entries
) -> Uplink:
    """The uplink, out of what `ip -j` prints of addresses, default routes and neighbours.

    Raises:
        RefusedError: there is no such interface, or no default route.

    """
    found = {link["ifname"]: link for link in links if "ifname" in link}
    ways4, ways6 = _ways(routes4), _ways(routes6)
    device = wanted or next((way[0] for way in (*ways4, *ways6)), "")
    if not device:
        raise RefusedError(
            "no default route: nothing could leave this machine, so nothing would be proven",
            "name the interface to try: onionward verify --interface NAME",
        )
    if device not in found:
        names = ", ".join(name for name, link in found.items() if not _is_loopback(link))
        raise RefusedError(f"there is no interface {device}", f"there are: {names or 'none'}")
    link = found[device]
    if _is_loopback(link):
        raise RefusedError(
            f"{device} leads nowhere: nothing that is sent there leaves this machine",
            "left out, --interface is that of the default route",
        )
    ours = [a for a in link.get("addr_info", ()) if a.get("local")]
    four = next((a for a in ours if a["family"] == "inet"), None)
    six = next((a for a in ours if a["family"] == "inet6" and a.get("scope") == "global"), None)
    routers4 = [via for dev, via in ways4 if dev == device and via]
    routers6 = [via for dev, via in ways6 if dev == device and via]
    near = [n for n in neighbours if n.get("dev") == device]
    # neighbour discovery remembers who has said to be a router (RFC 4861, 7.3.3)
    routers6 += [n["dst"] for n in near if "router" in n and n["dst"] not in routers6]
    cards = {n["dst"]: n["lladdr"] for n in near if "lladdr" in n}
    is_ethernet = link.get("link_type") == "ether"
    card = next((cards[r] for r in (*routers4, *routers6) if r in cards), "")
    return Uplink(
        device=device,
        hardware=link.get("address", "") if is_ethernet else "",
        address4=f"{four['local']}/{four['prefixlen']}" if four else "",
        address6=f"{six['local']}/{six['prefixlen']}" if six else "",
        broadcast4=four.get("broadcast", "") if four else "",
        router4=next(iter(routers4), ""),
        router6=next((r for r in routers6 if not r.startswith("fe80")), ""),
        router6_local=next((r for r in routers6 if r.startswith("fe80")), ""),
        router_hardware=card if is_ethernet else "",
        routes4=any(dev == device for dev, _ in ways4),
        routes6=any(dev == device for dev, _ in ways6),
    )


def _is_loopback(link: Mapping[str, Any]) -> bool:
    return "LOOPBACK" in link.get("flags", ())


def _ways(routes: Entries) -> list[tuple[str, str]]:
    """Device and router of default routes, those with several next hops included."""
    return [
        (hop["dev"], hop.get("gateway", hop.get("via", {}).get("host", "")))
        for route in routes
        if route.get("type", "unicast") == "unicast"
        for hop in (route, *route.get("nexthops", ()))
        if "dev" in hop
    ]


def targets(
    uplink: Uplink, canaries: Canaries, virtual: tuple[str, str], ports: tuple[int, int]
) -> Targets:
    """The targets of the probes.

    The router stands for every neighbour: it is the one host of the link whose address answers.

    Args:
        uplink: where probes would leave.
        canaries: drawn.
        virtual: an IPv4 and an IPv6 address to which tor maps names under .onion.
        ports: TransPort and DNSPort.

    """
    # where there is no router, an address that nobody has; such vectors are not tried
    router4 = uplink.router4 or canaries.stranger4
    router6_local = uplink.router6_local or "fe80::e:ad"
    router6 = uplink.router6 or f"{router6_local}%{uplink.device}"
    return Targets(
        web4=canaries.web4,
        web6=canaries.web6,
        dns4=canaries.dns4,
        dns6=canaries.dns6,
        stranger4=canaries.stranger4,
        stranger6=canaries.stranger6,
        host4=(uplink.address4 or canaries.own4).partition("/")[0],
        host6=(uplink.address6 or canaries.own6).partition("/")[0],
        neighbour4=router4,
        neighbour6=router6,
        gateway4=router4,
        gateway6=uplink.router6 or router6_local,
        router6=router6_local,
        broadcast4=uplink.broadcast4 or "255.255.255.255",
        device=uplink.device,
        device_mac=uplink.hardware or _NO_CARD,
        far_device="",
        far_mac=uplink.router_hardware or _EVERYBODY,
        relay=(canaries.stranger4, _RELAY_PORT),
        trans_port=ports[0],
        dns_port=ports[1],
        onion4=virtual[0],
        onion6=virtual[1],
    )


def surroundings(
    uplink: Uplink, bypass: tuple[Network, ...], *, subordinate: bool, disturb: bool
) -> Surroundings:
    """What the machine's network has."""
    from ipaddress import ip_address

    return Surroundings(
        router4=bool(uplink.router4),
        router6=bool(uplink.router6 or uplink.router6_local),
        router6_global=bool(uplink.router6),
        router6_local=bool(uplink.router6_local),
        broadcast=bool(uplink.broadcast4),
        ethernet=bool(uplink.hardware),
        bypassed4=bool(uplink.router4) and contains(bypass, ip_address(uplink.router4)),
        bypassed6=bool(uplink.router6) and contains(bypass, ip_address(uplink.router6)),
        subordinate=subordinate,
        disturb=disturb,
    )
