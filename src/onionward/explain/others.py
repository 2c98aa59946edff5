"""What becomes of a packet that arrives at an interface which is not named in the configuration.

Containers and virtual machines behind a bridge, other hosts: what they send further is forwarded,
if this machine forwards at all.
"""

from __future__ import annotations

from onionward.errors import RefusedError
from onionward.explain.machine import Machine
from onionward.explain.packet import Packet, Verdict
from onionward.networks import contains, holding
from onionward.policy import Policy
from onionward.rules import Rule


def verdict(policy: Policy, packet: Packet, machine: Machine) -> Verdict:
    """The first answer of the rules; the same in both states.

    Raises:
        RefusedError: it is for this machine itself, or for everybody on the link.

    """
    to = packet.destination
    if virtual := holding(policy.virtual, to):
        reason = f"{virtual} is where .onion names of this machine and its clients are mapped"
        rule = Rule.FORWARDED if policy.route == "tor" else Rule.ONION_REFUSED
        return Verdict("dropped", reason, "strong_host", rule)
    if machine.is_local(to) or not machine.is_unicast(to):
        raise RefusedError(
            f"{to} is not elsewhere: what others send to this machine itself is not explained",
            "`onionward show policy` says whom it answers (inbound)",
        )
    if policy.route == "tor":
        reason = (
            f"nothing is forwarded on a routed host; a [[lan]] with {packet.interface} routes "
            "what comes from behind it"
        )
        return Verdict("dropped", reason, "strong_host", Rule.FORWARDED)
    for lan in policy.lans:
        if contains(lan.networks, to):
            reason = f"nothing is forwarded to clients behind {lan.interface}"
            return Verdict("dropped", reason, "forwarded", Rule.FORWARDED)
    reason = f"in clear, if this machine forwards: what comes from {packet.interface} is not routed"
    return Verdict("direct", reason, "strong_host", Rule.UNROUTED)
