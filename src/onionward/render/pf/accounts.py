"""What single accounts send, on a machine that is not routed itself."""

from __future__ import annotations

from collections.abc import Iterator

from onionward.policy import Policy, User
from onionward.render.pf.parts import BOTH, LINK_LOCAL, NAMES, families
from onionward.render.pf.rule import Group, PfRule, listed, owners
from onionward.rules import Rule


def groups(policy: Policy, *, routed: bool) -> tuple[Group, ...]:
    """For each account; then what is nobody's, or whose it is pf cannot tell."""
    if policy.route == "tor":
        return ()
    found = [
        Group(f"account {user.name}", tuple(_account(policy, user, routed=routed)))
        for user in policy.users
    ]
    rest = [PfRule("drop", "out", to="<virtual>", rule=Rule.ONION_REFUSED)]
    if policy.users:
        # pf knows the owner of TCP and UDP only, and ping is anybody's
        rest += [
            PfRule(
                "return",
                "out",
                "! lo0",
                family,
                (name,),
                icmp_types=("echoreq",),
                rule=Rule.USER_REFUSED,
            )
            for family, name in ((4, "icmp"), (6, "icmp6"))
        ]
    return (*found, Group("of everybody", tuple(rest)))


def _account(policy: Policy, user: User, *, routed: bool) -> Iterator[PfRule]:
    # ports and owners are those of TCP and UDP
    theirs = PfRule("pass", "out", protocols=BOTH, user=owners(user.uids))
    refused = theirs._replace(action="return")
    on_loopback = refused._replace(interface="lo0")
    if routed:
        for family in families(policy):
            yield theirs._replace(
                family=family,
                protocols=("tcp",),
                to="<virtual>",
                turned=True,
                rule=Rule.ONION_ADDRESSES,
            )
        yield refused._replace(to="<shared>", rule=Rule.USER_REFUSED)
        for family in families(policy):
            yield theirs._replace(
                family=family,
                protocols=("udp",),
                to="any" if family == 4 else f"! {LINK_LOCAL}",
                port="53",
                turned=True,
                rule=Rule.NAMES,
            )
    yield on_loopback._replace(port=NAMES, rule=Rule.USER_NAMES)
    if user.closed_ports:
        ports = listed(tuple(map(str, user.closed_ports)))
        yield on_loopback._replace(protocols=("tcp",), port=ports, rule=Rule.USER_SERVICES)
    yield theirs._replace(interface="lo0", rule=Rule.OWN_ADDRESS)
    if routed:
        yield refused._replace(to="<unroutable>", rule=Rule.USER_REFUSED)
        for family in families(policy):
            yield theirs._replace(family=family, protocols=("tcp",), turned=True, rule=Rule.TCP)
    yield refused._replace(rule=Rule.USER_REFUSED)
