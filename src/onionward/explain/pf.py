"""The answer of pf's rules: that of the policy, but for what pf cannot tell or does otherwise.

What differs, and nothing else does; `onionward.render.pf.limits` says it to people:

    own addresses   networks are not made local to a BSD machine; of 127.0.0.0/8 all is its own
    tor             is known by its account alone: there are no control groups
    owners          of TCP and UDP only. Other protocols are nobody's; on a machine that is not
                    routed nobody may ping while an account is
    groups          a name asked of multicast, broadcast or anycast addresses is refused
    tor's account   its names asked on this machine reach tor, as its TCP to .onion addresses does
    clients         get an error for TCP and UDP, silence for the rest
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from onionward.errors import RefusedError
from onionward.explain import client, local
from onionward.explain.machine import Machine
from onionward.explain.packet import Packet, State, Verdict
from onionward.networks import Address, contains
from onionward.policy import Policy
from onionward.render.pf.tables import shared
from onionward.rules import Rule

ANCHOR = "onionward"
# (uid_t) -1: nobody's
_NOBODY = 2**32 - 1
_LOOPBACK4 = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("0.0.0.0/32"))
_LOOPBACK6 = (ipaddress.ip_network("::1"), ipaddress.ip_network("::/128"))
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")


def explain(
    policy: Policy, packet: Packet, own: Iterable[Address] = (), *, state: State = "routed"
) -> Verdict:
    """The verdict of pf's rules; arguments as `onionward.explain.explain`.

    Raises:
        RefusedError: it arrives at an interface that is no [[lan]]'s.

    """
    policy = replace(policy, tor_cgroup=None)
    here = _machine(policy, own)
    if packet.interface is not None:
        lan = policy.lan_of(packet.interface)
        if lan is None:
            raise RefusedError(
                f"{packet.interface} is not the interface of a [[lan]]; what arrives there is not "
                "explained with pf"
            )
        found = client.verdict(policy, packet, lan, here, state)
        if found.outcome == "refused" and packet.protocol not in ("tcp", "udp"):
            found = replace(found, outcome="dropped")
    else:
        found = _local(policy, packet, here, state)
    return replace(found, chain=ANCHOR)


def _machine(policy: Policy, own: Iterable[Address]) -> Machine:
    networks = (*_LOOPBACK4, *(_LOOPBACK6 if policy.ipv6 else ()))
    return Machine(frozenset(own), networks, frozenset(shared(policy)))


def _local(policy: Policy, packet: Packet, here: Machine, state: State) -> Verdict:
    to = packet.destination
    if packet.protocol not in ("tcp", "udp"):
        if _is_anybodys_ping(policy, packet, here):
            reason = "pf cannot tell who pings, and an account is routed"
            return Verdict("refused", reason, ANCHOR, Rule.USER_REFUSED)
        packet = replace(packet, uid=_NOBODY)
    is_tors = policy.route == "tor" and packet.uid == policy.tor_uid
    if is_tors and (answer := _of_tors_account(policy, packet, here, state)):
        return answer
    found = local.verdict(policy, packet, here, state)
    if found.outcome == "dns-port" and not here.is_unicast(to):
        reason = "a name asked of a group of machines reaches nobody"
        return Verdict("refused", reason, ANCHOR, Rule.REFUSED)
    return found


def _is_anybodys_ping(policy: Policy, packet: Packet, here: Machine) -> bool:
    to = packet.destination
    return (
        bool(policy.users)
        and policy.route != "tor"
        and packet.protocol in ("icmp", "ipv6-icmp")
        and packet.is_echo
        and not here.is_local(to)
        and not contains(policy.virtual, to)
    )


def _of_tors_account(policy: Policy, packet: Packet, here: Machine, state: State) -> Verdict | None:
    to = packet.destination
    to_tor = state == "routed" and (to.version == 4 or policy.ipv6)
    if packet.protocol == "tcp" and contains(policy.virtual, to):
        if to_tor:
            reason = "addresses of .onion names go to tor whoever sends"
            return Verdict("trans-port", reason, ANCHOR, Rule.ONION_ADDRESSES)
        reason = "nothing leaves for addresses of .onion names"
        return Verdict("refused", reason, ANCHOR, Rule.REFUSED)
    is_asked_here = packet.is_query and here.is_local(to) and not contains((_LINK_LOCAL,), to)
    if to_tor and is_asked_here:
        reason = "pf cannot tell who asks on loopback"
        return Verdict("dns-port", reason, ANCHOR, Rule.NAMES)
    return None
