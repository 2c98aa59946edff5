"""(Config, Facts) → Policy: everything the renderers need, as one comparable value."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from onionward.config.values import Config, Inbound
from onionward.facts import Facts
from onionward.networks import Address, Network, contains, of_version

# Every IPv6 interface has an address here (RFC 4291), so its neighbours always do too.
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")

# Where tor(1) would refuse to connect to (address.c, tor_addr_is_internal): refused here at once
# instead of being accepted by TransPort and closed. Loopback never gets that far.
_UNROUTABLE = tuple(
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)

# Shown by `onionward show`, which must not reveal the stamp that is in force.
EXAMPLE_STAMP = 0x5EC0DE01


@dataclass(frozen=True, slots=True, order=True)
class Flow:
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


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A version 2 control group as nft(8) names it.

    Attributes:
        name: its path below /sys/fs/cgroup.
        level: how far below the root of the tree it is.

    """

    name: str
    level: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What may leave this machine, and how.

    Attributes:
        tor_uid: the account whose TCP may leave.
        tor_cgroup: its control group, or None where there is no such tree.
        trans_port: where TCP is redirected.
        dns_port: where UDP to port 53 is redirected.
        virtual4: IPv4 network of automapped names.
        virtual6: IPv6 network of automapped names.
        bypass: networks reached directly, merged.
        unroutable: networks that Tor cannot reach, refused at once.
        inbound: who may open connections to this machine.
        link: directly attached networks.
        kept: connections from before, which survive.
        devices: interfaces whose egress is watched.
        dhcp_uids: accounts that may speak DHCP.
        ephemeral_ports: local ports that nobody may open a UDP exchange with.
        ipv6: whether tor can be reached over IPv6 loopback.
        stamp: packet mark of what has passed, random for each activation.

    """

    tor_uid: int
    tor_cgroup: ControlGroup | None
    trans_port: int
    dns_port: int
    virtual4: Network
    virtual6: Network
    bypass: tuple[Network, ...]
    unroutable: tuple[Network, ...]
    inbound: Inbound
    link: tuple[Network, ...]
    kept: tuple[Flow, ...]
    devices: tuple[str, ...]
    dhcp_uids: tuple[int, ...]
    ephemeral_ports: tuple[int, int]
    ipv6: bool
    stamp: int

    def admits_inbound(self, peer: Address) -> bool:
        """Whether a connection from this address is let in."""
        match self.inbound:
            case "none":
                return False
            case "all":
                return True
            case "bypass":
                return contains(self.bypass, peer)
            case "link":
                return contains((*self.link, *self.bypass), peer)

    def describe(self) -> str:
        """The policy in words, a line each."""
        lines = [
            "host: everything this machine sends goes through Tor",
            f"  TCP to loopback port {self.trans_port}, names to loopback port {self.dns_port}",
            f"  .onion names are mapped into {self.virtual4} and {self.virtual6}",
            "  everything else is refused at once: UDP, ICMP and all other protocols, "
            "IPv4 and IPv6",
            f"tor: account {self.tor_uid}"
            + (f", control group {self.tor_cgroup.name}" if self.tor_cgroup else "")
            + "; TCP only; nobody else uses a wire",
            f"bypass: {_listed(self.bypass, 'none')}"
            + (" (never for name resolution)" if self.bypass else ""),
            f"inbound: {self.inbound} ({self._inbound_words()})",
            f"interfaces watched below IP: {', '.join(self.devices) or 'none'}",
            "always: ARP, neighbour discovery, DHCP of "
            + ", ".join(f"account {uid}" for uid in self.dhcp_uids),
        ]
        if self.kept:
            flows = (f"{f.peer} port {f.peer_port}" for f in self.kept)
            lines.append(f"kept: connections that were open before, from {', '.join(flows)}")
        return "\n".join(lines)

    def _inbound_words(self) -> str:
        match self.inbound:
            case "none":
                return "this machine answers nobody"
            case "all":
                return "this machine answers everybody who asks, in clear"
            case "bypass":
                return f"answers to {_listed(self.bypass, 'nobody')}"
            case "link":
                return f"answers to {_listed((*self.link, *self.bypass), 'nobody')}"


def _listed(networks: Iterable[Network], nothing: str) -> str:
    return ", ".join(map(str, networks)) or nothing


def derive(
    config: Config,
    facts: Facts,
    *,
    tor_uid: int,
    tor_cgroup: ControlGroup | None,
    kept: tuple[Flow, ...] = (),
    stamp: int = EXAMPLE_STAMP,
) -> Policy:
    """The policy of a configuration on a machine.

    Args:
        config: checked before.
        facts: of this machine.
        tor_uid: account of tor, which may have been created since the facts were read.
        tor_cgroup: its control group.
        kept: connections from before that survive.
        stamp: packet mark, random for each activation.

    """
    virtual = {network.version: network for network in config.tor.virtual}
    attached = [n for link in facts.links for n in link.networks if not n.is_loopback]
    return Policy(
        tor_uid=tor_uid,
        tor_cgroup=tor_cgroup,
        trans_port=config.tor.trans_port,
        dns_port=config.tor.dns_port,
        virtual4=virtual[4],
        virtual6=virtual[6],
        bypass=(*of_version(config.bypass.networks, 4), *of_version(config.bypass.networks, 6)),
        unroutable=_UNROUTABLE,
        inbound=config.host.inbound,
        link=(*of_version(attached, 4), *of_version((*attached, _LINK_LOCAL), 6)),
        kept=tuple(sorted(kept, key=lambda f: (f.peer.version, f))),
        devices=tuple(sorted(link.name for link in facts.links)),
        dhcp_uids=facts.dhcp_uids,
        ephemeral_ports=facts.ephemeral_ports,
        ipv6=facts.ipv6,
        stamp=stamp,
    )
