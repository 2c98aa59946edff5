"""The configuration as frozen values; the defaults route this host."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from onionward.networks import Network
from onionward.toml_lines import KeyPath

DEFAULT_PATH = Path("/etc/onionward/onionward.toml")
DEFAULT_ACCOUNT = "onionward-tor"

Route = Literal["tor"]
Inbound = Literal["none", "bypass", "link", "all"]
Backend = Literal["auto", "nftables"]
VirtualNetworks = Literal["auto"] | tuple[Network, ...]

_AUTO_VIRTUAL: tuple[Network, ...] = (
    ipaddress.ip_network("127.192.0.0/10"),
    ipaddress.ip_network("fd5a:7011::/32"),
)


@dataclass(frozen=True, slots=True)
class HostConfig:
    """`[host]`: what this machine itself sends.

    Attributes:
        route: "tor", the only route of this version.
        inbound: who may open connections to this machine.

    """

    route: Route = "tor"
    inbound: Inbound = "link"


@dataclass(frozen=True, slots=True)
class BypassConfig:
    """`[bypass]`: networks reached directly, never for name resolution."""

    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class TorConfig:
    """`[tor]`: the tor process.

    Attributes:
        user: the account tor runs as.
        virtual_networks: where automapped names live (tor(1), VirtualAddrNetwork*).
        trans_port: TCP port of the transparent proxy on loopback.
        dns_port: UDP port of the resolver on loopback.
        bootstrap_timeout: seconds to wait for a working circuit.
        network: a file of torrc lines that name another Tor network, or None for the public one.

    """

    user: str = DEFAULT_ACCOUNT
    virtual_networks: VirtualNetworks = "auto"
    trans_port: int = 940
    dns_port: int = 941
    bootstrap_timeout: int = 180
    network: Path | None = None

    @property
    def virtual(self) -> tuple[Network, ...]:
        """The virtual networks, the default one for each family that is not named."""
        named = () if self.virtual_networks == "auto" else self.virtual_networks
        versions = {network.version for network in named}
        return (*named, *(n for n in _AUTO_VIRTUAL if n.version not in versions))


@dataclass(frozen=True, slots=True)
class FirewallConfig:
    """`[firewall]`: the packet filter."""

    backend: Backend = "auto"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration came from, for messages."""

    name: str = "built-in defaults"
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def locate(self, path: KeyPath, words: str) -> str:
        """A problem as `file:line: key: words`, at the nearest enclosing key that has a line."""
        place = self.name
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                place = f"{self.name}:{self.lines[path[:length]]}"
                break
        key = _dotted(path)
        return f"{place}: {key}: {words}" if key else f"{place}: {words}"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; the defaults route this host."""

    host: HostConfig = HostConfig()
    bypass: BypassConfig = BypassConfig()
    tor: TorConfig = TorConfig()
    firewall: FirewallConfig = FirewallConfig()
    source: Source = field(default=Source(), compare=False)
    network_lines: tuple[str, ...] = ()


def _dotted(path: KeyPath) -> str:
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words if words.isprintable() else repr(words)
