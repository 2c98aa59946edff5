"""What becomes of a packet that a program of this machine sends."""

from __future__ import annotations

import ipaddress

from onionward.explain.machine import EVERYBODY, Machine
from onionward.explain.packet import Packet, State, Verdict
from onionward.networks import NAME_PORTS, contains, holding
from onionward.policy import Endpoint, Flow, Policy
from onionward.rules import Rule

_BYPASS_PROTOCOLS = frozenset({"tcp", "udp", "icmp", "ipv6-icmp"})
_ELSEWHERE = "tor may reach its bridges or relays only, and none of them is there"
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_DHCP6 = (ipaddress.ip_network("ff02::1:2"), _LINK_LOCAL)


def verdict(policy: Policy, packet: Packet, machine: Machine, state: State) -> Verdict:
    """The first answer of the rules."""
    if (user := policy.paused_user(packet.uid)) is not None:
        reason = f"{user.name} is paused, and gets nothing through until `onionward resume`"
        return Verdict("refused", reason + _told(policy, packet, machine), "paused", Rule.PAUSED)
    redirected = _redirected(policy, packet, machine) if state == "routed" else None
    if redirected:
        return redirected
    if policy.route == "tor":
        accepted = _passed(policy, packet, machine, state)
        return accepted or _refused(policy, packet, machine, state)
    return _on_unrouted_host(policy, packet, machine, state)


def _redirected(policy: Policy, packet: Packet, machine: Machine) -> Verdict | None:
    to = packet.destination
    if packet.uid == policy.tor_uid or (to.version == 6 and not policy.ipv6):
        return None
    if policy.route == "tor":
        return None if _is_kept(policy, packet) else _all_of_it(policy, packet, machine, "to_tor")
    if policy.user_of(packet.uid) and (
        found := _all_of_it(policy, packet, machine, "all_of_users")
    ):
        return found
    return _onion(policy, packet) if policy.route == "onion" else None


def _all_of_it(policy: Policy, packet: Packet, machine: Machine, chain: str) -> Verdict | None:
    to = packet.destination
    if found := _onion_address(policy, packet, chain):
        return found
    if policy.is_direct(packet.uid) and not machine.is_local(to):
        return None
    if contains((_LINK_LOCAL,), to):
        return None
    if policy.full_dns and (found := _full_dns(policy, packet, machine, chain)):
        return found
    if packet.is_query:
        reason = "a name query goes to Tor wherever it is addressed"
        return Verdict("dns-port", reason, chain, Rule.NAMES)
    if packet.protocol != "tcp" or not machine.is_unicast(to) or machine.is_local(to):
        return None
    bypass = policy.bypass if policy.route == "tor" else ()
    if contains((*bypass, *policy.unroutable), to):
        return None
    return Verdict("trans-port", "TCP goes through Tor", chain, Rule.TCP)


def _full_dns(policy: Policy, packet: Packet, machine: Machine, chain: str) -> Verdict | None:
    by_tcp = packet.protocol == "tcp" and packet.port == 53 and machine.is_local(packet.destination)
    if policy.user_of(packet.uid) is not None or not (packet.is_query or by_tcp):
        return None
    reason = "all types of records are asked for through Tor, wherever a query is addressed"
    return Verdict("full-dns", reason, chain, Rule.FULL_DNS)


def _onion_address(policy: Policy, packet: Packet, chain: str) -> Verdict | None:
    virtual = holding(policy.virtual, packet.destination)
    if packet.protocol != "tcp" or virtual is None:
        return None
    reason = f"{virtual} is where .onion names are mapped"
    return Verdict("trans-port", reason, chain, Rule.ONION_ADDRESSES)


def _onion(policy: Policy, packet: Packet) -> Verdict | None:
    if found := _onion_address(policy, packet, "to_tor"):
        return found
    link_local = contains((_LINK_LOCAL,), packet.destination)
    if packet.is_query and packet.onion_name and not link_local:
        reason = "names under .onion are known to Tor only"
        return Verdict("dns-port", reason, "onion_query", Rule.ONION_NAMES)
    return None


def _on_unrouted_host(policy: Policy, packet: Packet, machine: Machine, state: State) -> Verdict:
    to = packet.destination
    virtual = holding(policy.virtual, to)
    if policy.route == "onion" and virtual:
        if state == "blocked" and packet.protocol == "tcp":
            why = "addresses of .onion names wait for Tor"
        else:
            why = f"{virtual} is where .onion names are mapped, and Tor carries TCP only"
        return Verdict(
            "refused", why + _told(policy, packet, machine), "output", Rule.ONION_REFUSED
        )
    if policy.route == "onion" and packet.is_query and packet.onion_name:
        why = "no resolver but Tor's is asked for names under .onion"
        return Verdict(
            "refused",
            why + _told(policy, packet, machine),
            "onion_query_left",
            Rule.ONION_NAMES_REFUSED,
        )
    user = policy.user_of(packet.uid)
    if user is None:
        return _of_others(policy, packet, machine)
    if packet.protocol in ("tcp", "udp") and packet.port in NAME_PORTS:
        reason = f"{user.name}'s names are resolved by Tor and nobody else"
        return Verdict("refused", reason + _told(policy, packet, machine), "user", Rule.USER_NAMES)
    if packet.protocol == "tcp" and packet.port in user.closed_ports:
        reason = "a service there would connect elsewhere for whoever asks"
        told = _told(policy, packet, machine)
        return Verdict("refused", reason + told, "user", Rule.USER_SERVICES)
    if machine.is_local(to):
        reason = "the address belongs to this machine"
        return Verdict("local", reason, "user", Rule.OWN_ADDRESS)
    reason = f"{user.name} is routed, and {_why_refused(policy, packet, machine, state)}"
    return Verdict("refused", reason + _told(policy, packet, machine), "user", Rule.USER_REFUSED)


def _of_others(policy: Policy, packet: Packet, machine: Machine) -> Verdict:
    to = packet.destination
    if machine.is_local(to) or contains(machine.networks, to):
        reason = "the address belongs to this machine"
        return Verdict("local", reason, "output", Rule.UNROUTED)
    if virtual := holding(policy.virtual, to):
        reason = f"{virtual} is where .onion names are mapped, and nothing for it leaves"
        return Verdict("dropped", reason, "wire", Rule.ONION_REFUSED)
    reason = "in clear, because this account is not routed and neither is this host"
    if packet.uid == policy.tor_uid and not _is_relay(policy, packet):
        return Verdict("dropped", _ELSEWHERE, "output", Rule.TOR_ELSEWHERE)
    if packet.uid == policy.tor_uid:
        reason = "the account is tor's, and this host is not routed"
    return Verdict("direct", reason, "output", Rule.UNROUTED)


def _passed(policy: Policy, packet: Packet, machine: Machine, state: State) -> Verdict | None:
    """The verdict of the first rule that accepts it, or None."""
    to = packet.destination
    if machine.is_local(to):
        return Verdict("local", "the address belongs to this machine", "output", Rule.OWN_ADDRESS)
    if _is_kept(policy, packet):
        reason = "in clear, because its peer had opened it before `up`"
        return Verdict("direct", reason, "output", Rule.KEPT)
    if _is_tor(policy, packet):
        leaves = not contains(machine.networks, to)
        if leaves and not _is_relay(policy, packet):
            return Verdict("dropped", _ELSEWHERE, "tor", Rule.TOR_ELSEWHERE)
        return Verdict("direct" if leaves else "local", _why_tor(policy), "tor", Rule.TOR)
    if policy.is_direct(packet.uid) and not contains(policy.virtual, to):
        if contains(machine.networks, to):
            reason = "the address belongs to this machine"
            return Verdict("local", reason, "direct_user", Rule.DIRECT_USER)
        reason = "IN CLEAR, because this account is bypassed"
        return Verdict("direct", reason, "direct_user", Rule.DIRECT_USER)
    if _is_dhcp(policy, packet):
        return Verdict("direct", "in clear, because it is a DHCP client", "answers", Rule.DHCP)
    bypassed = holding(policy.bypass, to) if state == "routed" else None
    if bypassed and packet.protocol in _BYPASS_PROTOCOLS and not _is_name_port(packet):
        reason = f"in clear, because {bypassed} is bypassed"
        return Verdict("direct", reason, "bypass", Rule.BYPASS)
    return None


def _refused(policy: Policy, packet: Packet, machine: Machine, state: State) -> Verdict:
    reason = _why_refused(policy, packet, machine, state)
    return Verdict("refused", reason + _told(policy, packet, machine), "output", Rule.REFUSED)


def _told(policy: Policy, packet: Packet, machine: Machine) -> str:
    to = packet.destination
    if packet.protocol != "tcp":
        return '; the program gets "operation not permitted"'
    if to.is_multicast or (to.version == 4 and not machine.is_unicast(to)):
        return '; the program gets "network is unreachable"'
    if to.version == 6 and not policy.ipv6:
        return ""  # where loopback has no IPv6, a reset cannot come back over it
    return "; the program gets a TCP reset"


def _why_refused(policy: Policy, packet: Packet, machine: Machine, state: State) -> str:
    """The reason that helps most; the rules only know that none has accepted it."""
    to = packet.destination
    bypassed = holding(policy.bypass, to)
    virtual = holding(policy.virtual, to)
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


def _is_name_port(packet: Packet) -> bool:
    return packet.protocol in ("tcp", "udp") and packet.port in NAME_PORTS


def _is_tor(policy: Policy, packet: Packet) -> bool:
    in_group = packet.from_tor or policy.tor_cgroup is None
    return packet.uid == policy.tor_uid and packet.protocol == "tcp" and in_group


def _is_relay(policy: Policy, packet: Packet) -> bool:
    if policy.reach is None:
        return True
    to = Endpoint(packet.destination, packet.port or 0)
    return packet.protocol == "tcp" and to in policy.reach


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
        return packet.destination == EVERYBODY or contains(networks, packet.destination)
    if (packet.source_port, packet.port) == (546, 547):
        return contains(_DHCP6, packet.destination)
    return False
