"""What becomes of a packet: the answer of the policy, in the order in which the rules ask.

Pure; the tests send the same packets for real and hold the kernel to these answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from onionward.explain import client, local, others
from onionward.explain.machine import machine
from onionward.explain.packet import Outcome, Packet, State, Verdict
from onionward.networks import Address, Network
from onionward.policy import Policy

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
    lan = policy.lan_of(packet.interface)
    if lan is None:
        return others.verdict(policy, packet, here)
    return client.verdict(policy, packet, lan, here, state)
