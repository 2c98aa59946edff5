"""(Config, Facts) → Policy: everything the renderers need, as one comparable value."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from onionward.config.values import Config, Inbound, LanConfig, Route, UserConfig
from onionward.facts import Facts
from onionward.networks import UNROUTABLE, Address, Network, contains, of_version
from onionward.tor.directory import Directory

if TYPE_CHECKING:
    from onionward import accounts

# Every IPv6 interface has an address here (RFC 4291), so its neighbours always do too.
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")

# Where tor takes what clients of a LAN send: addresses of loopback that no router forwards (RFC
# 3927, RFC 4193), so that nothing depends on the addresses that the machine happens to have.
RELAY4 = ipaddress.ip_address("169.254.94.8")
RELAY6 = ipaddress.ip_address("fd5a:7010::8")
# Each routed account appears to tor under an address of its own, and so gets its own circuits.
CIRCUITS4 = ipaddress.ip_network("127.64.0.0/10")
CIRCUITS6 = ipaddress.ip_network("fd5a:7010::/64")

_SERVICE_PORTS = {"ssh": "tcp/22"}

# Shown by `onionward show`, which must not reveal the stamp that is in force.
EXAMPLE_STAMP = 0x5EC0DE01


class Flow(NamedTuple):
    """A TCP connection that a peer opened to this machine.

    Attributes:
        peer: its address.
        peer_port: its port.
        local: the address it reached.
        local_port: the port it reached.

    """

    peer: Address
    peer_port: int
    local: Address
    local_port: int


class Endpoint(NamedTuple):
    """Where a relay takes connections (TCP)."""

    address: Address
    port: int


class ControlGroup(NamedTuple):
    """A version 2 control group as nft(8) names it.

    Attributes:
        name: its path below /sys/fs/cgroup.
        level: how far below the root of the tree it is.

    """

    name: str
    level: int


class Lan(NamedTuple):
    """Clients behind an interface.

    Attributes:
        interface: its name.
        addresses: this machine's there; empty while the interface does not exist.
        networks: attached to it.
        ping: whether clients get answers to ping.
        dhcp: whether they may ask for addresses.
        tcp_ports: what they may connect to on this machine.
        udp_ports: the same, UDP.
        number: the kernel's number for the interface; 0 while it does not exist.

    """

    interface: str
    addresses: tuple[Address, ...]
    networks: tuple[Network, ...]
    ping: bool
    dhcp: bool
    tcp_ports: tuple[int, ...]
    udp_ports: tuple[int, ...]
    number: int = 0


class User(NamedTuple):
    """An account with a rule of its own.

    Attributes:
        name: login name.
        uids: ranges of user ids, first and last: its own, and the subordinate ones.
        closed_ports: TCP ports where services of this machine connect elsewhere for whoever asks.

    """

    name: str
    uids: tuple[tuple[int, int], ...]
    closed_ports: tuple[int, ...] = ()

    def holds(self, uid: int) -> bool:
        """Whether a socket's owner is this account, perhaps in a container of its own."""
        return any(first <= uid <= last for first, last in self.uids)


@dataclass(frozen=True, slots=True)
class Policy:
    """What may leave this machine, and how.

    Attributes:
        route: what becomes of what this machine itself sends.
        lans: whose clients go through Tor.
        users: accounts that go through Tor, with circuits of their own.
        direct_users: accounts that a routed host leaves alone.
        isolate_destinations: whether each destination gets circuits of its own, too.
        tor_uid: the account whose TCP may leave.
        tor_cgroup: its control group, or None where there is no such tree.
        reach: the only places that it may connect to, sorted; None: anywhere.
        trans_port: where TCP is redirected.
        dns_port: where tor takes queries for names.
        names_port: where those of this host go that have no circuits of their own; `dns_port`, or
            the port of a resolver of full DNS.
        virtual4: IPv4 network of automapped names.
        virtual6: IPv6 network of automapped names.
        bypass: networks reached directly, merged.
        unroutable: networks that Tor cannot reach, refused at once.
        inbound: who may open connections to this machine.
        link: directly attached networks.
        kept: connections from before, which survive.
        client_flows: connections of clients through tor, known when the rules are replaced.
        devices: interfaces whose egress is watched.
        dhcp_uids: accounts that may speak DHCP.
        ephemeral_ports: local ports that nobody may open a UDP exchange with.
        ipv6: whether tor can be reached over IPv6 loopback.
        stamp: packet mark of what has passed, random for each activation.
        nflog: whether the kernel can tell the guard of what is stopped.
        paused: accounts that get nothing through, whatever else is said of them, sorted.

    """

    route: Route
    lans: tuple[Lan, ...]
    users: tuple[User, ...]
    direct_users: tuple[User, ...]
    isolate_destinations: bool
    tor_uid: int
    tor_cgroup: ControlGroup | None
    reach: tuple[Endpoint, ...] | None
    trans_port: int
    dns_port: int
    names_port: int
    virtual4: Network
    virtual6: Network
    bypass: tuple[Network, ...]
    unroutable: tuple[Network, ...]
    inbound: Inbound
    link: tuple[Network, ...]
    kept: tuple[Flow, ...]
    client_flows: tuple[Flow, ...]
    devices: tuple[str, ...]
    dhcp_uids: tuple[int, ...]
    ephemeral_ports: tuple[int, int]
    ipv6: bool
    stamp: int
    nflog: bool = True
    paused: tuple[User, ...] = ()

    @property
    def virtual(self) -> tuple[Network, ...]:
        """Where names under .onion are mapped."""
        return (self.virtual4, self.virtual6)

    @property
    def full_dns(self) -> bool:
        """Whether a resolver of all types of records stands between this host and tor."""
        return self.names_port != self.dns_port

    @property
    def local_routes(self) -> tuple[Network, ...]:
        """Networks that must be local to this machine besides loopback, for what they carry."""
        routes = [] if self.virtual4.is_loopback else [self.virtual4]
        routes += [self.virtual6] if self.ipv6 else []
        if self.users and self.ipv6:
            routes.append(CIRCUITS6)
        return tuple(routes)

    @property
    def local_addresses(self) -> tuple[Address, ...]:
        """Addresses that loopback must have, because tor listens there."""
        if not self.lans:
            return ()
        return (RELAY4, RELAY6) if self.ipv6 else (RELAY4,)

    def keeping(self, kept: Iterable[Flow], client_flows: Iterable[Flow] = ()) -> Policy:
        """The same with these connections from before that survive, or are known."""
        return replace(self, kept=_sorted(kept), client_flows=_sorted(client_flows))

    def user_of(self, uid: int) -> User | None:
        """The routed account that a user id belongs to."""
        return next((user for user in self.users if user.holds(uid)), None)

    def paused_user(self, uid: int) -> User | None:
        """The paused account that a user id belongs to."""
        return next((user for user in self.paused if user.holds(uid)), None)

    def is_direct(self, uid: int) -> bool:
        """Whether a user id belongs to an account that a routed host leaves alone."""
        return any(user.holds(uid) for user in self.direct_users)

    def lan_of(self, interface: str) -> Lan | None:
        """The LAN behind an interface."""
        return next((lan for lan in self.lans if lan.interface == interface), None)

    def admits_inbound(self, peer: Address, port: int | None = None) -> bool:
        """Whether a connection from this address (to this TCP port) is let in."""
        lan = next((lan for lan in self.lans if contains(lan.networks, peer)), None)
        if lan is not None:
            return port is None or port in lan.tcp_ports
        match self.inbound:
            case "none":
                return False
            case "all":
                return True
            case "bypass":
                return contains(self.bypass, peer)
            case "link":
                return contains((*self.link, *self.bypass), peer)


def derive(
    config: Config,
    facts: Facts,
    *,
    tor_uid: int,
    tor_cgroup: ControlGroup | None,
    kept: tuple[Flow, ...] = (),
    stamp: int = EXAMPLE_STAMP,
    paused: Iterable[User] = (),
) -> Policy:
    """The policy of a configuration on a machine.

    Args:
        config: checked before.
        facts: of this machine.
        tor_uid: account of tor, which may have been created since the facts were read.
        tor_cgroup: its control group.
        kept: connections from before that survive.
        stamp: packet mark, random for each activation.
        paused: accounts that get nothing through.

    """
    virtual = {network.version: network for network in config.virtual}
    behind = {lan.interface for lan in config.lan}
    outside = [link for link in facts.links if link.name not in behind]
    attached = [n for link in outside for n in link.neighbours if not n.is_loopback]
    found = {user.account.name: user for user in facts.users}
    routes = {user.name: user.route for user in config.user}
    named = [_user(user, found[user.name]) for user in config.user if user.name in found]
    return Policy(
        route=config.host_route,
        lans=tuple(_lan(lan, facts) for lan in config.lan),
        users=tuple(user for user in named if routes[user.name] == "tor"),
        direct_users=tuple(user for user in named if routes[user.name] == "direct"),
        isolate_destinations=config.tor.isolate_destinations,
        tor_uid=tor_uid,
        tor_cgroup=tor_cgroup,
        reach=reach(config, facts.directory),
        trans_port=config.tor.trans_port,
        dns_port=config.tor.dns_port,
        names_port=config.tor.names_port,
        virtual4=virtual[4],
        virtual6=virtual[6],
        bypass=(*of_version(config.bypass.networks, 4), *of_version(config.bypass.networks, 6)),
        unroutable=UNROUTABLE,
        inbound=config.inbound,
        link=(*of_version(attached, 4), *of_version((*attached, _LINK_LOCAL), 6)),
        kept=_sorted(kept),
        client_flows=(),
        # frames are judged only where all that leaves is
        devices=tuple(sorted(link.name for link in facts.links))
        if config.host_route == "tor"
        else (),
        dhcp_uids=facts.dhcp_uids,
        ephemeral_ports=facts.ephemeral_ports,
        ipv6=facts.ipv6,
        stamp=stamp,
        nflog=facts.nflog,
        paused=tuple(sorted(paused)),
    )


def reach(config: Config, directory: Directory) -> tuple[Endpoint, ...] | None:
    """The only places that tor's account may connect to, sorted; None: anywhere."""
    if config.tor.bridges:
        from onionward.config import bridges

        found = map(bridges.read, config.tor.bridges)
        places = {Endpoint(bridge.address, bridge.port) for bridge in found}
    elif config.tor.strict:
        places = {Endpoint(*place) for place in (*directory.first, *directory.relays)}
    else:
        return None
    return tuple(sorted(places, key=lambda place: (place.address.version, place)))


def _sorted(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    return tuple(sorted(flows, key=lambda f: (f.peer.version, f)))


def _lan(lan: LanConfig, facts: Facts) -> Lan:
    link = next((link for link in facts.links if link.name == lan.interface), None)
    ports = [_SERVICE_PORTS.get(service, service) for service in lan.services]
    return Lan(
        interface=lan.interface,
        addresses=link.addresses if link else (),
        networks=link.networks if link else (),
        ping="ping" in lan.services,
        dhcp="dhcp" in lan.services,
        tcp_ports=_ports(ports, "tcp/"),
        udp_ports=_ports(ports, "udp/"),
        number=link.number if link else 0,
    )


def _user(user: UserConfig, account: accounts.User) -> User:
    from onionward.deputies import ports_closed_to

    uids = tuple((uids.first, uids.last) for uids in account.uids)
    return User(user.name, uids, ports_closed_to(user.accept))


def _ports(services: Iterable[str], protocol: str) -> tuple[int, ...]:
    numbers = (s.removeprefix(protocol) for s in services if s.startswith(protocol))
    return tuple(sorted({int(number) for number in numbers}))
