"""What clients of a LAN send, and what is sent to them.

An answer leaves by the state that the question made; the order is that of `explain`.
"""

from __future__ import annotations

from collections.abc import Iterator

from onionward.networks import contains
from onionward.policy import Lan, Policy
from onionward.render.pf.parts import families, kept_in, to_dns_port, to_trans_port
from onionward.render.pf.rule import Group, PfRule, listed
from onionward.render.pf.tables import EVERYBODY, broadcasts, clients_of
from onionward.rules import Rule

_NEIGHBOURS = ("neighbrsol", "neighbradv")
_NOBODY = "{ 127.0.0.0/8, 0.0.0.0, ::1, :: }"
_LINK_LOCAL = "fe80::/64"


def groups(policy: Policy, *, routed: bool) -> tuple[Group, ...]:
    """For each LAN: what comes in from it, and what goes out to it."""
    found = []
    for place, lan in enumerate(policy.lans):
        rules = tuple(_incoming(policy, lan, clients_of(place), routed=routed))
        found.append(Group(f"clients behind {lan.interface}", rules))
        found.append(Group(f"nothing is forwarded to {lan.interface}", tuple(_outgoing(lan))))
    return tuple(found)


def _incoming(policy: Policy, lan: Lan, table: str, *, routed: bool) -> Iterator[PfRule]:
    here = PfRule("pass", "in", lan.interface)
    own = f"({lan.interface})"
    everybody = listed(tuple(map(str, dict.fromkeys((EVERYBODY, *broadcasts(lan.networks))))))
    dhcp4 = here._replace(
        family=4, protocols=("udp",), source_port="68", port="67", rule=Rule.CLIENT_DHCP
    )
    yield here._replace(family=6, protocols=("icmp6",), icmp_types=(*_NEIGHBOURS, "routersol"))
    theirs = (flow for flow in policy.kept if contains(lan.networks, flow.peer))
    yield from kept_in(here, theirs)
    if lan.dhcp:
        # before it has an address
        yield dhcp4._replace(source="0.0.0.0", to=everybody)  # noqa: S104  # nobody's address
    for source in (f"! <{table}>", "<shared>", "(self)"):
        yield here._replace(action="drop", source=source, rule=Rule.CLIENT_SPOOFED)
    yield here._replace(action="drop", to=_NOBODY, rule=Rule.CLIENT_WEAK_HOST)
    # the interface's own addresses, then those of the others
    if routed:
        for family in families(policy):
            redirect = to_dns_port(policy, family)
            yield here._replace(
                family=family,
                protocols=("udp",),
                to=own,
                port="53",
                redirect=redirect,
                rule=Rule.NAMES,
            )
    yield from _services(lan, here._replace(to=own, rule=Rule.CLIENT_SERVICE))
    if lan.dhcp:
        yield dhcp4._replace(to=own)
        yield dhcp4._replace(to=everybody)
        local6 = tuple(str(a) for a in lan.addresses if a.version == 6 and a.is_link_local)
        yield dhcp4._replace(
            family=6,
            source=_LINK_LOCAL,
            source_port="546",
            to=listed(("ff02::1:2", *local6)),
            port="547",
        )
    yield here._replace(action="return", to=own, rule=Rule.CLIENT_REFUSED)
    yield here._replace(action="drop", to="(self)", rule=Rule.CLIENT_WEAK_HOST)
    yield here._replace(action="drop", to="<shared>", rule=Rule.CLIENT_SILENCE)
    if routed:
        yield from _to_tor(policy, here)
    yield here._replace(action="return", rule=Rule.CLIENT_REFUSED)


def _services(lan: Lan, here: PfRule) -> Iterator[PfRule]:
    for protocol, ports in (("tcp", lan.tcp_ports), ("udp", lan.udp_ports)):
        if ports:
            yield here._replace(protocols=(protocol,), port=listed(tuple(map(str, ports))))
    if lan.ping:
        yield here._replace(family=4, protocols=("icmp",), icmp_types=("echoreq",))
        yield here._replace(family=6, protocols=("icmp6",), icmp_types=("echoreq",))


def _to_tor(policy: Policy, here: PfRule) -> Iterator[PfRule]:
    for family in families(policy):
        asked = here._replace(family=family, protocols=("udp",), port="53")
        yield asked._replace(redirect=to_dns_port(policy, family), rule=Rule.NAMES)
    tcp = here._replace(protocols=("tcp",))
    for family in families(policy):
        yield tcp._replace(
            family=family,
            to="<virtual>",
            redirect=to_trans_port(policy, family),
            rule=Rule.ONION_ADDRESSES,
        )
    yield here._replace(action="return", to="<unroutable>", rule=Rule.CLIENT_REFUSED)
    for family in families(policy):
        yield tcp._replace(family=family, redirect=to_trans_port(policy, family), rule=Rule.TCP)


def _outgoing(lan: Lan) -> Iterator[PfRule]:
    there = PfRule("pass", "out", lan.interface)
    yield there._replace(family=6, protocols=("icmp6",), icmp_types=(*_NEIGHBOURS, "routeradv"))
    # a stranger's packet would open the way for the client's answer, which is judged by no rule
    yield there._replace(action="drop", source="! (self)", rule=Rule.CLIENT_REFUSED)
