"""What becomes of a packet: the answer of the policy, in the order in which the rules ask.

Pure; the tests send the same packets for real and hold the kernel to these answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onionward.networks import Address, Network, contains
from onionward.policy import Flow, Policy

# Name resolution that a bypassed network would see: DNS, NetBIOS, DNS over TLS, SSDP, multicast
# DNS, LLMNR.
NAME_PORTS = frozenset({53, 137, 138, 853, 1900, 5353, 5355})
_BYPASS_PROTOCOLS = frozenset({"tcp", "udp", "icmp", "ipv6-icmp"})
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_DHCP6 = (ipaddress.ip_network("ff02::1:2"), _LINK_LOCAL)
_EVERYBODY = ipaddress.ip_address("255.255.255.255")
# the kernel takes 0.0.0.0 and :: for loopback
_LOOPBACK4 = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("0.0.0.0/32"))
_LOOPBACK6 = (ipaddress.ip_network("::1"), ipaddress.ip_network("::/128"))

State = Literal["blocked", "routed"]
Outcome = Literal["trans-port", "dns-port", "local", "direct", "refused"]


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that a program sends from one of this machine's addresses, and that is no answer.

    Attributes:
        protocol: "tcp", "udp", "icmp", "ipv6-icmp" or another name of /etc/protocols.
        destination: where to.
        port: destination port of TCP and UDP, otherwise None.
        uid: account that made the socket.
        source_port: of TCP and UDP when it matters (DHCP, kept connections), otherwise None.
        source: its address when it matters (kept connections), otherwise None.
        from_tor: whether the socket was made in tor's control group.
        opens: whether it opens a connection, as the first packet of TCP does; others may belong to
            a kept one.

    """

    protocol: str
    destination: Address
    port: int | None
    uid: int
    source_port: int | None = None
    source: Address | None = None
    from_tor: bool = False
    opens: bool = True


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
    "direct": "leaves directly",
    "refused": "refused at once",
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """Addresses that the kernel has special routes for (`fib daddr type` in the rules).

    Attributes:
        local: its own.
        networks: what is routed to loopback.
        shared: broadcast addresses of IPv4, anycast addresses of IPv6.

    """

    local: frozenset[Address]
    networks: tuple[Network, ...]
    shared: frozenset[Address]

    def is_local(self, address: Address) -> bool:
        here = address in self.local or contains(self.networks, address)
        return here and address not in self.shared

    def is_unicast(self, address: Address) -> bool:
        return not address.is_multicast and address not in self.shared


def explain(
    policy: Policy,
    packet: Packet,
    own: Iterable[Address] = (),
    *,
    attached: Iterable[Network] = (),
    state: State = "routed",
) -> Verdict:
    """The verdict of the rules.

    Args:
        policy: in force.
        packet: to judge.
        own: addresses of this machine besides loopback.
        attached: networks of its interfaces one by one, for their broadcast and anycast addresses;
            without them those of the policy are taken, where adjacent ones are merged.
        state: "routed", or "blocked" while tor starts.

    """
    machine = _machine(policy, own, tuple(attached) or policy.link)
    redirected = _redirected(policy, packet, machine) if state == "routed" else None
    accepted = redirected or _passed(policy, packet, machine, state)
    return accepted or _refused(policy, packet, machine, state)


def _machine(policy: Policy, own: Iterable[Address], attached: Iterable[Network]) -> _Machine:
    # addresses of .onion names are local routes (lifecycle, virtual route)
    networks = (*_LOOPBACK4, *((*_LOOPBACK6, policy.virtual6) if policy.ipv6 else ()))
    shared = (address for n in (*attached, *networks) for address in _shared(n))
    return _Machine(frozenset(own), networks, frozenset({_EVERYBODY, *shared}))


def _shared(network: Network) -> tuple[Address, ...]:
    """The broadcast address of a network, or the anycast address of its routers."""
    if network.version == 4:
        return (network.broadcast_address,) if network.prefixlen <= 30 else ()
    return (network.network_address,) if network.prefixlen <= 126 else ()


def _redirected(policy: Policy, packet: Packet, machine: _Machine) -> Verdict | None:
    to = packet.destination
    if packet.uid == policy.tor_uid or (to.version == 6 and not policy.ipv6):
        return None
    if _is_kept(policy, packet):
        return None
    is_tcp = packet.protocol == "tcp"
    for virtual in (policy.virtual4, policy.virtual6):
        if is_tcp and contains((virtual,), to):
            return Verdict("trans-port", f"{virtual} is where .onion names are mapped", "to_tor")
    if contains((_LINK_LOCAL,), to):
        return None
    if packet.protocol == "udp" and packet.port == 53:
        return Verdict("dns-port", "a name query goes to Tor wherever it is addressed", "to_tor")
    if not is_tcp or not machine.is_unicast(to) or machine.is_local(to):
        return None
    if contains((*policy.bypass, *policy.unroutable), to):
        return None
    return Verdict("trans-port", "TCP goes through Tor", "to_tor")


def _passed(policy: Policy, packet: Packet, machine: _Machine, state: State) -> Verdict | None:
    """The verdict of the first rule that accepts it, or None."""
    to = packet.destination
    if machine.is_local(to):
        return Verdict("local", "the address belongs to this machine", "output")
    if _is_kept(policy, packet):
        return Verdict("direct", "in clear, because its peer had opened it before `up`", "output")
    if _is_tor(policy, packet):
        leaves = not contains(machine.networks, to)
        return Verdict("direct" if leaves else "local", _why_tor(policy), "tor")
    if _is_dhcp(policy, packet):
        return Verdict("direct", "in clear, because it is a DHCP client", "answers")
    bypassed = _holding(policy.bypass, to) if state == "routed" else None
    if bypassed and packet.protocol in _BYPASS_PROTOCOLS and not _is_name_port(packet):
        return Verdict("direct", f"in clear, because {bypassed} is bypassed", "bypass")
    return None


def _refused(policy: Policy, packet: Packet, machine: _Machine, state: State) -> Verdict:
    reason = _why_refused(policy, packet, machine, state)
    return Verdict("refused", reason + _told(policy, packet, machine), "output")


def _told(policy: Policy, packet: Packet, machine: _Machine) -> str:
    to = packet.destination
    if packet.protocol != "tcp":
        return '; the program gets "operation not permitted"'
    if to.is_multicast or (to.version == 4 and not machine.is_unicast(to)):
        return '; the program gets "network is unreachable"'
    if to.version == 6 and not policy.ipv6:
        return ""  # where loopback has no IPv6, a reset cannot come back over it
    return "; the program gets a TCP reset"


def _why_refused(policy: Policy, packet: Packet, machine: _Machine, state: State) -> str:
    """The reason that helps most; the rules only know that none has accepted it."""
    to = packet.destination
    bypassed = _holding(policy.bypass, to)
    virtual = _holding((policy.virtual4, policy.virtual6), to)
    if packet.uid == policy.tor_uid and packet.protocol != "tcp":
        return "tor's account may speak TCP only"
    if packet.uid == policy.tor_uid:
        return "the account is tor's, but the program is not tor"
    if state == "blocked":
        waiting = f"; {bypassed} is bypassed only when tor is ready" if bypassed else ""
        return f"nothing but tor leaves until tor is ready{waiting}"
    if bypassed and _is_name_port(packet):
        return f"{bypassed} is bypassed, but never for name resolution"
    if bypassed:
        return f"{bypassed} is bypassed, but only for TCP, UDP and ICMP"
    if to.is_multicast or (to.version == 4 and not machine.is_unicast(to)):
        return "broadcast and multicast do not leave"
    if to.version == 6 and not policy.ipv6:
        return "tor cannot be reached over IPv6, because loopback has none"
    if virtual:
        return f"{virtual} is where .onion names are mapped, and Tor carries TCP only"
    if contains((_LINK_LOCAL,), to):
        return "Tor cannot reach link-local addresses, and it is not bypassed"
    if contains(policy.unroutable, to):
        return "Tor cannot reach private addresses, and it is not bypassed"
    if packet.protocol == "tcp":
        return "the address stands for any router of the link (anycast)"
    return "Tor carries TCP and names only"


def _holding(networks: Iterable[Network], address: Address) -> Network | None:
    return next((n for n in networks if contains((n,), address)), None)


def _is_name_port(packet: Packet) -> bool:
    return packet.protocol in ("tcp", "udp") and packet.port in NAME_PORTS


def _is_tor(policy: Policy, packet: Packet) -> bool:
    in_group = packet.from_tor or policy.tor_cgroup is None
    return packet.uid == policy.tor_uid and packet.protocol == "tcp" and in_group


def _why_tor(policy: Policy) -> str:
    if policy.tor_cgroup is not None:
        return "it is tor itself"
    return "the account is tor's, and without control groups all its programs count as tor"


def _is_kept(policy: Policy, packet: Packet) -> bool:
    to, port = packet.destination, packet.port
    source, source_port = packet.source, packet.source_port
    if packet.opens or port is None or source is None or source_port is None:
        return False
    return packet.protocol == "tcp" and Flow(to, port, source, source_port) in policy.kept


def _is_dhcp(policy: Policy, packet: Packet) -> bool:
    if packet.protocol != "udp" or packet.uid not in policy.dhcp_uids:
        return False
    if (packet.source_port, packet.port) == (68, 67):
        networks = tuple(n for n in policy.link if n.version == 4)
        return packet.destination == _EVERYBODY or contains(networks, packet.destination)
    if (packet.source_port, packet.port) == (546, 547):
        return contains(_DHCP6, packet.destination)
    return False
