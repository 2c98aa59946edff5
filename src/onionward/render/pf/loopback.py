"""What comes in on loopback: turned round by `route-to`, or asked there in the first place."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.pf.dialects import TURNING_INTERFACE
from onionward.render.pf.parts import LINK_LOCAL, families, to_dns_port, to_trans_port
from onionward.render.pf.rule import Group, PfRule
from onionward.rules import Rule


def routed(policy: Policy) -> tuple[Group, ...]:
    """Handed to tor; on a routed host names that are asked on lo0, too."""
    if policy.route != "tor" and not policy.users:
        return ()
    turned = []
    for family in families(policy):
        dns, trans = to_dns_port(policy, family), to_trans_port(policy, family)
        here = PfRule("pass", "in", TURNING_INTERFACE, family)
        turned += [
            here._replace(protocols=("udp",), port="53", redirect=dns, rule=Rule.NAMES),
            here._replace(protocols=("tcp",), redirect=trans, rule=Rule.TCP),
        ]
    turned += [
        PfRule("return", "in", TURNING_INTERFACE, rule=Rule.REFUSED),
        PfRule("pass", "out", TURNING_INTERFACE),
    ]
    groups = [Group("turned round: from lo1 to tor", tuple(turned))]
    if policy.route == "tor":
        groups.append(Group("this machine's own addresses", (*_asked_here(policy), *_loopback())))
    return tuple(groups)


def blocked(policy: Policy) -> tuple[Group, ...]:
    """Loopback is reached, tor through it is not."""
    if policy.route != "tor":
        return ()
    return (Group("this machine's own addresses", _loopback()),)


def _asked_here(policy: Policy) -> tuple[PfRule, ...]:
    return tuple(
        PfRule(
            "pass",
            "in",
            "lo0",
            family,
            ("udp",),
            to="any" if family == 4 else f"! {LINK_LOCAL}",
            port="53",
            redirect=to_dns_port(policy, family),
            rule=Rule.NAMES,
        )
        for family in families(policy)
    )


def _loopback() -> tuple[PfRule, ...]:
    return (PfRule("pass", "", "lo0", rule=Rule.OWN_ADDRESS),)
