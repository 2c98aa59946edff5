"""The configuration as frozen values; the defaults route this host.

Small values are named tuples here and elsewhere: to make a data class takes ten times as long, at
every start, while nothing is blocked yet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from onionward.dns.managers import Manager
from onionward.networks import Address, Network
from onionward.toml_lines import KeyPath, key_lines

DEFAULT_PATH = Path("/etc/onionward/onionward.toml")
DEFAULT_ACCOUNT = "onionward-tor"

Route = Literal["tor", "onion", "direct"]
UserRoute = Literal["tor", "direct"]
Inbound = Literal["none", "bypass", "link", "all"]
Backend = Literal["auto", "nftables", "iptables", "iptables-nft", "iptables-legacy", "pf"]
Resolver = Literal["auto", Manager]
VirtualNetworks = Literal["auto"] | tuple[Network, ...]
Dns = Literal["tor", "full"]

_AUTO_VIRTUAL4 = ipaddress.ip_network("127.192.0.0/10")
# clients of a LAN send nothing to loopback addresses over a wire
_AUTO_VIRTUAL4_OF_LAN = ipaddress.ip_network("10.192.0.0/10")
_AUTO_VIRTUAL6 = ipaddress.ip_network("fd5a:7011::/32")

DEFAULT_SERVICES = ("dhcp", "ping", "ssh")


class HostConfig(NamedTuple):
    """`[host]`: what this machine itself sends.

    Attributes:
        route: "tor", "onion" (only names under .onion go to Tor) or "direct" (untouched).
        inbound: who may open connections to this machine while it is routed.
        resolver: who manages resolv.conf; "auto": whom onionward finds.

    """

    route: Route = "tor"
    inbound: Inbound = "link"
    resolver: Resolver = "auto"


class LanConfig(NamedTuple):
    """`[[lan]]`: the clients behind an interface.

    Attributes:
        interface: its name.
        hotplug: whether it may appear later.
        services: what clients may reach on this machine: "dhcp", "ping", "ssh", "tcp/PORT",
            "udp/PORT".
        dhcp: serve DHCP and router advertisements.
        dhcp_range: first and last address to give away, or empty for a part of the network.

    """

    interface: str = ""
    hotplug: bool = False
    services: tuple[str, ...] = DEFAULT_SERVICES
    dhcp: bool = False
    dhcp_range: tuple[Address, ...] = ()


class UserConfig(NamedTuple):
    """`[[user]]`: the sockets of one account.

    Attributes:
        name: the account.
        route: "tor", or "direct" for one that a routed host leaves alone.
        control: whether it may speak to tor's control port, through a filter.
        accept: ways around that are accepted though they cannot be closed here.

    """

    name: str = ""
    route: UserRoute = "tor"
    control: bool = False
    accept: tuple[str, ...] = ()


class BypassConfig(NamedTuple):
    """`[bypass]`: networks reached directly, never for name resolution."""

    networks: tuple[Network, ...] = ()


class TorConfig(NamedTuple):
    """`[tor]`: the tor process.

    Attributes:
        user: the account tor runs as.
        virtual_networks: where automapped names live (tor(1), VirtualAddrNetwork*).
        trans_port: TCP port of the transparent proxy on loopback.
        dns_port: UDP port of the resolver on loopback.
        bootstrap_timeout: seconds to wait for a working circuit.
        network: a file of torrc lines that name another Tor network, or None for the public one.
        isolate_destinations: whether each destination gets circuits of its own, too.
        exit_countries: where exits must be, as codes of ISO 3166; empty for anywhere.
        exclude_exit_countries: where they must not be.
        bridges: lines of bridges, the only relays that are contacted; empty for public ones.
        strict: whether tor's account may reach relays that are known, and nothing else.
        dns: who resolves names for this host: "tor" (addresses only), or "full" (all types of
            records, by an unbound that asks `resolvers` through Tor).
        resolvers: whom it asks, as unbound.conf(5) writes them: ADDRESS[@PORT][#NAME]; with a name
            over TLS.
        dnssec: whether it refuses answers that are not signed as they should be.
        full_dns_port: port of it on loopback.

    """

    user: str = DEFAULT_ACCOUNT
    virtual_networks: VirtualNetworks = "auto"
    trans_port: int = 940
    dns_port: int = 941
    bootstrap_timeout: int = 180
    network: Path | None = None
    isolate_destinations: bool = False
    exit_countries: tuple[str, ...] = ()
    exclude_exit_countries: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    strict: bool = False
    dns: Dns = "tor"
    resolvers: tuple[str, ...] = ()
    dnssec: bool = True
    full_dns_port: int = 942

    @property
    def names_port(self) -> int:
        """Where queries of this host go that have no circuits of their own."""
        return self.full_dns_port if self.dns == "full" else self.dns_port

    @property
    def follows_relays(self) -> bool:
        """Whether tor is held to the relays that it knows; bridges are in the configuration."""
        return self.strict and not self.bridges

    @property
    def names_countries(self) -> bool:
        """Whether tor must know in which countries relays are."""
        return bool(self.exit_countries or self.exclude_exit_countries)


class FirewallConfig(NamedTuple):
    """`[firewall]`: the packet filter."""

    backend: Backend = "auto"


class LogConfig(NamedTuple):
    """`[log]`: what is written to disk.

    Attributes:
        attempts: a file that gets a line for what is stopped and who tried it, or None: nothing
            about destinations is on disk.

    """

    attempts: Path | None = None


class Source(NamedTuple):
    """Where a configuration came from, for messages."""

    name: str = "built-in defaults"
    text: str = ""

    @property
    def place(self) -> str:
        """Its name for whoever reads that in another directory."""
        return self.name if self.name == Source().name else str(Path(self.name).absolute())

    @property
    def lines(self) -> Mapping[KeyPath, int]:
        """On which line each key stands; read when something is to be said about one."""
        return key_lines(self.text)

    def locate(self, path: KeyPath, words: str) -> str:
        """A problem as `file:line: key: words`, at the nearest enclosing key that has a line."""
        place, lines = self.name, self.lines
        for length in range(len(path), -1, -1):
            if path[:length] in lines:
                place = f"{self.name}:{lines[path[:length]]}"
                break
        key = _dotted(path)
        return f"{place}: {key}: {words}" if key else f"{place}: {words}"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; the defaults route this host.

    Attributes:
        host: `[host]`, or None when there is no such table.
        lan: `[[lan]]`.
        user: `[[user]]`.
        onion: whether names under .onion go to Tor even where nothing else does.
        bypass: `[bypass]`.
        tor: `[tor]`.
        firewall: `[firewall]`.
        log: `[log]`.
        source: where all this came from.
        network_lines: torrc lines of `tor.network`.

    """

    host: HostConfig | None = None
    lan: tuple[LanConfig, ...] = ()
    user: tuple[UserConfig, ...] = ()
    onion: bool = False
    bypass: BypassConfig = field(default=BypassConfig())
    tor: TorConfig = field(default=TorConfig())
    firewall: FirewallConfig = field(default=FirewallConfig())
    log: LogConfig = field(default=LogConfig())
    source: Source = field(default=Source(), compare=False)
    network_lines: tuple[str, ...] = ()

    @property
    def host_route(self) -> Route:
        """What becomes of what this machine itself sends: the scope left unsaid is inferred."""
        if self.host is not None:
            return self.host.route
        if self.onion:
            return "onion"
        return "direct" if self.lan or self.user else "tor"

    @property
    def inbound(self) -> Inbound:
        """Who may open connections to this machine; asked only where it is routed."""
        return (self.host or HostConfig()).inbound

    @property
    def resolver(self) -> Resolver:
        """Who manages resolv.conf; asked only where this host is routed."""
        return (self.host or HostConfig()).resolver

    @property
    def virtual(self) -> tuple[Network, ...]:
        """The virtual networks, the default one for each family that is not named."""
        named = () if self.tor.virtual_networks == "auto" else self.tor.virtual_networks
        versions = {network.version for network in named}
        default4 = _AUTO_VIRTUAL4_OF_LAN if self.lan else _AUTO_VIRTUAL4
        return (*named, *(n for n in (default4, _AUTO_VIRTUAL6) if n.version not in versions))


def _dotted(path: KeyPath) -> str:
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words if words.isprintable() else repr(words)
