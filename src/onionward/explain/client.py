"""What becomes of a packet that a client of a LAN sends."""

from __future__ import annotations

import ipaddress

from onionward.explain.machine import EVERYBODY, Machine
from onionward.explain.packet import Packet, State, Verdict
from onionward.networks import Address, contains, holding
from onionward.policy import Lan, Policy
from onionward.rules import Rule

# what every IPv6 interface is attached to, also one that is still to come
_LINK_LOCAL = ipaddress.ip_network("fe80::/64")
_NOBODY = (ipaddress.ip_network("0.0.0.0/32"), ipaddress.ip_network("::/128"))
_DHCP6_SERVERS = ipaddress.ip_address("ff02::1:2")


def verdict(policy: Policy, packet: Packet, lan: Lan, machine: Machine, state: State) -> Verdict:
    """The first answer of the rules; the packet has arrived at the LAN's interface."""
    return (
        _disbelieved(policy, packet, lan, machine)
        or (_redirected(policy, packet, lan, machine) if state == "routed" else None)
        or _for_this_machine(policy, packet, lan, machine)
        or _refused(policy, packet, machine, "clients_refused")
    )


def _disbelieved(policy: Policy, packet: Packet, lan: Lan, machine: Machine) -> Verdict | None:
    source, to = packet.source, packet.destination
    if source is not None and not _is_client(source, to, lan, machine):
        reason = f"{source} is no client behind {lan.interface}"
        return Verdict("dropped", reason, "client_sources", Rule.CLIENT_SPOOFED)
    if contains(_NOBODY, to) or to.is_loopback:
        reason = f"{to} is nobody's address on a wire"
        return Verdict("dropped", reason, "client_sources", Rule.CLIENT_WEAK_HOST)
    if contains(policy.virtual, to) or to in lan.addresses or not _is_here(to, lan, machine):
        return None
    reason = f"{to} is an address of this machine, but not of {lan.interface}"
    return Verdict("dropped", reason, "client_sources", Rule.CLIENT_WEAK_HOST)


def _is_client(source: Address, to: Address, lan: Lan, machine: Machine) -> bool:
    if contains(_NOBODY, source):
        return to.is_multicast if to.version == 6 else _is_broadcast(to, machine)
    is_attached = contains((*lan.networks, _LINK_LOCAL), source)
    return is_attached and machine.is_unicast(source) and not _is_here(source, lan, machine)


def _is_here(address: Address, lan: Lan, machine: Machine) -> bool:
    if address.version == 6 and address.is_link_local:
        # each link has such addresses of its own
        return address in lan.addresses
    return machine.is_local(address)


def _is_broadcast(to: Address, machine: Machine) -> bool:
    return not to.is_multicast and not machine.is_unicast(to)


def _redirected(policy: Policy, packet: Packet, lan: Lan, machine: Machine) -> Verdict | None:
    to = packet.destination
    if not machine.is_unicast(to) or (to.version == 6 and not policy.ipv6):
        return None
    if packet.is_query:
        reason = "a name query goes to Tor wherever it is addressed"
        return Verdict("dns-port", reason, "clients_to_tor", Rule.NAMES)
    if packet.protocol != "tcp":
        return None
    if virtual := holding(policy.virtual, to):
        reason = f"{virtual} is where .onion names are mapped"
        return Verdict("trans-port", reason, "clients_to_tor", Rule.ONION_ADDRESSES)
    if _is_here(to, lan, machine) or contains(policy.unroutable, to):
        return None
    return Verdict("trans-port", "TCP goes through Tor", "clients_to_tor", Rule.TCP)


def _for_this_machine(policy: Policy, packet: Packet, lan: Lan, machine: Machine) -> Verdict | None:
    to = packet.destination
    for_many = not machine.is_unicast(to)
    if not for_many and not _is_here(to, lan, machine):
        return None
    if _is_dhcp(packet, lan):
        reason = f"clients of {lan.interface} may ask for addresses"
        return Verdict("local", reason, "clients", Rule.CLIENT_DHCP)
    if for_many:
        reason = "broadcast and multicast are for nobody here"
        return Verdict("dropped", reason, "clients", Rule.CLIENT_SILENCE)
    if to not in lan.addresses or not _is_served(packet, lan):
        return _refused(policy, packet, machine, "clients")
    reason = f"clients of {lan.interface} may reach this service"
    return Verdict("local", reason, "clients", Rule.CLIENT_SERVICE)


def _is_dhcp(packet: Packet, lan: Lan) -> bool:
    if not lan.dhcp or packet.protocol != "udp":
        return False
    ports = (packet.source_port, packet.port)
    source, to = packet.source, packet.destination
    if ports == (546, 547):
        asked = to == _DHCP6_SERVERS or (to in lan.addresses and contains((_LINK_LOCAL,), to))
        return asked and source is not None and contains((_LINK_LOCAL,), source)
    if ports != (68, 67) or to.version == 6:
        return False
    everybody = (EVERYBODY, *(n.broadcast_address for n in lan.networks if n.prefixlen <= 30))
    return to in lan.addresses or to in everybody


def _is_served(packet: Packet, lan: Lan) -> bool:
    match packet.protocol:
        case "tcp":
            return packet.port in lan.tcp_ports and packet.opens
        case "udp":
            return packet.port in lan.udp_ports
        case "icmp" | "ipv6-icmp":
            return lan.ping and packet.is_echo
        case _:
            return False


def _refused(policy: Policy, packet: Packet, machine: Machine, chain: str) -> Verdict:
    from_link = packet.source is not None and contains((_LINK_LOCAL,), packet.source)
    is_reset = packet.protocol == "tcp" and not from_link
    told = "a TCP reset" if is_reset else 'an ICMP "administratively prohibited"'
    reason = f"{_why_refused(policy, packet, machine)}; the client gets {told}"
    return Verdict("refused", reason, chain, Rule.CLIENT_REFUSED)


def _why_refused(policy: Policy, packet: Packet, machine: Machine) -> str:
    to = packet.destination
    if contains(policy.virtual, to):
        return "Tor carries TCP only"
    if machine.is_local(to):
        return "clients may reach only what `services` names"
    if contains(policy.unroutable, to):
        return "Tor cannot reach private addresses, and nothing is forwarded"
    return "Tor carries TCP and names only, and nothing is forwarded"
