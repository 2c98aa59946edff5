"""What becomes of a packet: the answer of the policy, in the order in which the rules ask.

Pure; the tests send the same packets for real and hold the kernel to these answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onionward.networks import Address, Network, contains, overlapping
from onionward.policy import Policy

# Name resolution that a bypassed network would see: DNS, NetBIOS, DNS over TLS, SSDP, multicast
# DNS, LLMNR.
NAME_PORTS = frozenset({53, 137, 138, 853, 1900, 5353, 5355})
_BYPASS_PROTOCOLS = frozenset({"tcp", "udp", "icmp", "ipv6-icmp"})
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_DHCP6 = (ipaddress.ip_network("ff02::1:2"), _LINK_LOCAL)
_EVERYBODY = ipaddress.ip_address("255.255.255.255")

Outcome = Literal["trans-port", "dns-port", "local", "direct", "refused"]


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that a program of this machine sends from one of its own addresses.

    Attributes:
        protocol: "tcp", "udp", "icmp", "ipv6-icmp" or another name of /etc/protocols.
        destination: where to.
        port: destination port of TCP and UDP, otherwise None.
        uid: account of the socket.
        source_port: of TCP and UDP when it matters (DHCP), otherwise None.
        from_tor: whether the socket was made in tor's control group.

    """

    protocol: str
    destination: Address
    port: int | None
    uid: int
    source_port: int | None = None
    from_tor: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of it.

    Attributes:
        outcome: "trans-port" and "dns-port" go to tor, "local" stays on this machine, "direct"
            leaves as it is, "refused" gets an error at once.
        reason: the rule in words.
        chain: the chain of the ruleset that decides.

    """

    outcome: Outcome
    reason: str
    chain: str

    def words(self) -> str:
        """One line for people."""
        return f"{_OUTCOMES[self.outcome]}: {self.reason} (chain {self.chain})"


_OUTCOMES = {
    "trans-port": "through Tor",
    "dns-port": "to tor's resolver",
    "local": "stays on this machine",
    "direct": "leaves directly, in clear",
    "refused": "refused at once",
}


def explain(policy: Policy, packet: Packet, own: Iterable[Address] = ()) -> Verdict:
    """The verdict of a routed machine.

    Args:
        policy: in force.
        packet: to judge.
        own: addresses of this machine besides loopback.

    """
    return _redirected(policy, packet, tuple(own)) or _filtered(policy, packet, tuple(own))


def _redirected(policy: Policy, packet: Packet, own: tuple[Address, ...]) -> Verdict | None:
    to = packet.destination
    if packet.uid == policy.tor_uid or (to.version == 6 and not policy.ipv6):
        return None
    is_tcp = packet.protocol == "tcp"
    for virtual in (policy.virtual4, policy.virtual6):
        if is_tcp and contains((virtual,), to):
            return Verdict("trans-port", f"{virtual} is where .onion names are mapped", "to_tor")
    if contains((_LINK_LOCAL,), to):
        return None
    if packet.protocol == "udp" and packet.port == 53:
        return Verdict("dns-port", "a name query goes to Tor wherever it is addressed", "to_tor")
    if not is_tcp or not _is_unicast(policy, to) or _is_local(policy, to, own):
        return None
    if contains((*policy.bypass, *policy.unroutable), to):
        return None
    return Verdict("trans-port", "TCP goes through Tor", "to_tor")


def _filtered(policy: Policy, packet: Packet, own: tuple[Address, ...]) -> Verdict:
    to = packet.destination
    if _is_local(policy, to, own):
        return Verdict("local", "the address belongs to this machine", "output")
    if packet.uid == policy.tor_uid and packet.protocol == "tcp":
        if packet.from_tor or policy.tor_cgroup is None:
            return Verdict("direct", "it is tor itself", "tor")
        return _refusal(packet, "the account is tor's, but the program is not tor")
    if _is_dhcp(policy, packet):
        return Verdict("direct", "it is a DHCP client", "answers")
    if contains(policy.bypass, to):
        bypassed = next(n for n in policy.bypass if contains((n,), to))
        if packet.protocol in ("tcp", "udp") and packet.port in NAME_PORTS:
            return _refusal(packet, f"{bypassed} is bypassed, but never for name resolution")
        if packet.protocol in _BYPASS_PROTOCOLS:
            return Verdict("direct", f"{bypassed} is bypassed", "bypass")
    if contains(policy.unroutable, to):
        return _refusal(packet, "Tor cannot reach private addresses, and it is not bypassed")
    if not _is_unicast(policy, to):
        return _refusal(packet, "broadcast and multicast do not leave")
    return _refusal(packet, "Tor carries TCP and names only")


def _refusal(packet: Packet, reason: str) -> Verdict:
    answer = "a TCP reset" if packet.protocol == "tcp" else "ICMP administratively prohibited"
    return Verdict("refused", f"{reason}; the program gets {answer}", "output")


def _is_dhcp(policy: Policy, packet: Packet) -> bool:
    if packet.protocol != "udp" or packet.uid not in policy.dhcp_uids:
        return False
    if (packet.source_port, packet.port) == (68, 67):
        networks = tuple(n for n in policy.link if n.version == 4)
        return packet.destination == _EVERYBODY or contains(networks, packet.destination)
    if (packet.source_port, packet.port) == (546, 547):
        return contains(_DHCP6, packet.destination)
    return False


def _is_local(policy: Policy, address: Address, own: tuple[Address, ...]) -> bool:
    return (
        address.is_loopback
        or address in own
        # addresses of .onion names are local routes (lifecycle, virtual route)
        or (policy.ipv6 and contains((policy.virtual6,), address))
    )


def _is_unicast(policy: Policy, address: Address) -> bool:
    if address.is_multicast or address == _EVERYBODY:
        return False
    return not any(_is_broadcast(network, address) for network in policy.link)


def _is_broadcast(network: Network, address: Address) -> bool:
    host = ipaddress.ip_network(address)
    if network.version != 4 or network.prefixlen > 30 or not overlapping(network, host):
        return False
    return address == network.broadcast_address
