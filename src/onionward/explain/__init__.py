"""What becomes of a packet: the answer of the policy, in the order in which the rules ask.

Pure; the tests send the same packets for real and hold the kernel to these answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from onionward.app.root.places import RUNS4, RUNS6, TOR4, TOR6
from onionward.explain import client, local, others
from onionward.explain.machine import machine
from onionward.explain.packet import Outcome, Packet, State, Verdict
from onionward.networks import Address, Network, contains
from onionward.policy import Policy
from onionward.rules import Rule

_RUNS = tuple(map(ipaddress.ip_network, (TOR4, TOR6, RUNS4, RUNS6)))

__all__ = ["Outcome", "Packet", "State", "Verdict", "explain"]


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

    Raises:
        RefusedError: somebody else sends it to this machine itself, not to a [[lan]]'s interface.

    """
    here = machine(policy, own, tuple(attached) or policy.link)
    if packet.interface is None:
        return local.verdict(policy, packet, here, state)
    if policy.route != "tor" and contains(_RUNS, packet.destination):
        reason = f"{packet.destination} is for applications of `onionward run` alone"
        return Verdict("dropped", reason, "strong_host", Rule.RUNS)
    lan = policy.lan_of(packet.interface)
    if lan is None:
        return others.verdict(policy, packet, here)
    return client.verdict(policy, packet, lan, here, state)
