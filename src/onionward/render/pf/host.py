"""What a routed host sends and receives; everything must be allowed by name."""

from __future__ import annotations

from collections.abc import Iterator

from onionward.networks import contains
from onionward.policy import Policy
from onionward.render.pf.parts import BOTH, LINK_LOCAL, NAMES, families, kept_in, kept_out
from onionward.render.pf.rule import Group, PfRule, listed, owners
from onionward.rules import Rule

_NEIGHBOURS = ("neighbrsol", "neighbradv")
# names that are asked of whoever is near (networks.NAME_PORTS without DNS)
_DISCOVERY = "{ 137, 138, 1900, 5353, 5355 }"


def groups(policy: Policy, *, routed: bool) -> tuple[Group, ...]:
    """What leaves, then what comes in."""
    if policy.route != "tor":
        return ()
    return (
        Group("what leaves this machine", tuple(_outgoing(policy, routed=routed))),
        Group("who may come in", tuple(_incoming(policy))),
    )


def _outgoing(policy: Policy, *, routed: bool) -> Iterator[PfRule]:
    out = PfRule("pass", "out")
    refused = out._replace(action="return", rule=Rule.REFUSED)
    tcp, udp = out._replace(protocols=("tcp",)), out._replace(protocols=("udp",))
    tor = str(policy.tor_uid)
    yield out._replace(
        family=6,
        protocols=("icmp6",),
        to=f"{{ ff02::/16, {LINK_LOCAL}, <link> }}",
        icmp_types=_NEIGHBOURS,
    )
    yield from _dhcp(policy, udp)
    # an error would go to whoever has that address, on the wire
    yield refused._replace(action="drop", source="! (self)")
    yield from kept_out(out, policy.kept)
    if routed:
        for family in families(policy):
            yield tcp._replace(
                family=family, to="<virtual>", turned=True, rule=Rule.ONION_ADDRESSES
            )
    # nor does anything for these leave of those who are not redirected
    free = [(policy.tor_uid, policy.tor_uid), *(u for d in policy.direct_users for u in d.uids)]
    yield refused._replace(protocols=BOTH, to="<virtual>", user=owners(tuple(free)))
    yield tcp._replace(user=tor, rule=Rule.TOR)
    if routed:
        yield refused._replace(protocols=("udp",), port="53", user=tor)
    for user in policy.direct_users:
        yield out._replace(protocols=BOTH, user=owners(user.uids), rule=Rule.DIRECT_USER)
    if routed:
        yield refused._replace(protocols=("udp",), to="<shared>", port="53")
        for family in families(policy):
            yield udp._replace(
                family=family,
                to="any" if family == 4 else f"! {LINK_LOCAL}",
                port="53",
                turned=True,
                rule=Rule.NAMES,
            )
        yield from _bypass(policy, out)
        for nobody in ("<shared>", "<unroutable>"):
            yield refused._replace(to=nobody)
        for family in families(policy):
            yield tcp._replace(family=family, turned=True, rule=Rule.TCP)
    yield refused


def _dhcp(policy: Policy, udp: PfRule) -> Iterator[PfRule]:
    if not policy.dhcp_uids:
        return
    client = udp._replace(user=owners(tuple((uid, uid) for uid in policy.dhcp_uids)))
    attached = any(network.version == 4 for network in policy.link)
    yield client._replace(
        family=4,
        source_port="68",
        to=listed(("255.255.255.255", *(("<link>",) if attached else ()))),
        port="67",
        rule=Rule.DHCP,
    )
    yield client._replace(
        family=6,
        source_port="546",
        to=f"{{ ff02::1:2, {LINK_LOCAL} }}",
        port="547",
        rule=Rule.DHCP,
    )


def _bypass(policy: Policy, out: PfRule) -> Iterator[PfRule]:
    if not policy.bypass:
        return
    there = out._replace(to="<bypass>")
    yield there._replace(action="return", protocols=BOTH, port=NAMES, rule=Rule.REFUSED)
    yield there._replace(protocols=("tcp", "udp", "icmp", "icmp6"), rule=Rule.BYPASS)


def _incoming(policy: Policy) -> Iterator[PfRule]:
    into = PfRule("pass", "in")
    silence = into._replace(action="drop")
    yield into._replace(family=6, protocols=("icmp6",), icmp_types=(*_NEIGHBOURS, "routeradv"))
    yield into._replace(
        family=6,
        protocols=("udp",),
        source=LINK_LOCAL,
        source_port="547",
        to=LINK_LOCAL,
        port="546",
        rule=Rule.DHCP,
    )
    behind = [network for lan in policy.lans for network in lan.networks]
    outside = (flow for flow in policy.kept if not contains(behind, flow.peer))
    yield from kept_in(into, outside)
    whom = _admitted(policy)
    devices = [name for name in policy.devices if policy.lan_of(name) is None]
    if whom and devices:
        ports = f"{{ {policy.trans_port}, {policy.dns_port} }}"
        yield silence._replace(protocols=BOTH, port=ports)
        yield silence._replace(protocols=("udp",), port=_DISCOVERY)
        yield silence._replace(protocols=BOTH, source_port=NAMES)
        # else a peer's datagram would turn what a program sends into an answer
        low, high = policy.ephemeral_ports
        yield silence._replace(protocols=("udp",), port=f"{low}:{high}")
    for device in devices:
        # an address of another interface is asked for by probes only (CVE-2019-14899)
        for source, protocols in whom:
            here = into._replace(interface=device, source=source, to=f"({device})")
            yield here._replace(protocols=protocols)
            if "tcp" in protocols:
                yield here._replace(family=4, protocols=("icmp",), icmp_types=("echoreq",))
                yield here._replace(family=6, protocols=("icmp6",), icmp_types=("echoreq",))
    yield silence


def _admitted(policy: Policy) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sources that may open something here, and what; ping goes with TCP."""
    link = (("<link>", BOTH),) if policy.link else ()
    bypass = (("<bypass>", BOTH),) if policy.bypass else ()
    match policy.inbound:
        case "none":
            return ()
        case "bypass":
            return bypass
        case "link":
            return (*link, *bypass)
        case "all":
            # a datagram opens both ways, so even then only those nearby may send one first
            nearby = tuple((source, ("udp",)) for source, _ in (*link, *bypass))
            return (("any", ("tcp",)), *nearby)
