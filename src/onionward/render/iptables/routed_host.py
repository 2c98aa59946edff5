"""The filter of a machine that is routed itself: what is not allowed by name is refused."""

from __future__ import annotations

from collections.abc import Iterator

from onionward.policy import Policy
from onionward.render.iptables import clients, paused, runs
from onionward.render.iptables.connections import (
    kept_incoming,
    kept_outgoing,
    orphans,
    related_errors,
)
from onionward.render.iptables.family import (
    LOCAL,
    NAMES,
    NO_SOCKET,
    NOT_OURS,
    SYN_ONLY,
    Family,
    is_reply,
    mark_flow,
    marked,
    owned,
    ports,
    state,
)
from onionward.render.iptables.text import Hook, Rule, nested, rule
from onionward.render.nftables.marks import MARK_DIRECT, MARK_INBOUND, MARK_REDIRECTED, MARK_TOR
from onionward.rules import Rule as Name

_DISCOVERY_PORTS = "137,138,1900,5353,5355"
# ICMPv6 (RFC 4861)
_SOLICIT, _ADVERT, _ROUTER_ADVERT = 135, 136, 134


def hooks(f: Family, *, routed: bool) -> tuple[Hook, ...]:
    """All of them, for one state."""
    return (
        Hook("raw", "PREROUTING", "strong-host", _strong_host(f)),
        Hook("mangle", "POSTROUTING", "wire", _wire(f, routed=routed)),
        Hook("filter", "OUTPUT", "output", _output(f, routed=routed)),
        Hook("filter", "FORWARD", "forward", (*clients.forwarded(f), rule("", "forwarded"))),
        Hook("filter", "INPUT", "input", _input(f, routed=routed)),
    )


def _output(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    return (
        *paused.rules(f),
        *_source_routes(f),
        *_neighbour_discovery(f),
        # redirected flows are on their way to loopback; their true device is judged last
        rule(LOCAL, "accept", comment=Name.OWN_ADDRESS),
        *kept_outgoing(f, "accept"),
        *clients.outgoing(f),
        *runs.outgoing(),
        # a reject would answer the forged address, so it comes after this
        rule(NOT_OURS, "spoofed"),
        _tor(f),
        orphans(MARK_TOR, "-p tcp"),
        *_direct_users(f),
        nested("", "answers", _answers(f)),
        *_bypass(f, routed=routed),
        rule(state("INVALID"), "invalid"),
        rule("", "refused", comment=Name.REFUSED),
    )


def _source_routes(f: Family) -> tuple[Rule, ...]:
    """The rules judge the first hop of a source route; the packet would go on from there."""
    if f.n == 6:
        return (rule("-m rt", "spoofed"),)
    # u32 cannot look for one among others: let pass what has one option alone, of another kind,
    # that leaves no room for a second
    alone = (
        rule(
            f"-m u32 --u32 0>>24&0xf={5 + words}&&20>>24=2:130,132:136,138:255&&"
            f"20>>16&0xff={4 * words - 2}:{4 * words}",
            "return",
        )
        for words in range(1, 11)
    )
    judged = (*alone, rule("", "spoofed"))
    return (nested("-m u32 --u32 0>>24&0xf=6:15", "options", judged),)


def _tor(f: Family) -> Rule:
    policy = f.policy
    owner = f"-p tcp {owned([(policy.tor_uid, policy.tor_uid)])[0]}"
    own = f"{owner} {marked(MARK_REDIRECTED, but=True)}{_group(policy)}"
    return rule(own, "accept", mark_flow(MARK_TOR), comment=Name.TOR)


def _group(policy: Policy) -> str:
    if policy.tor_cgroup is None:
        return ""
    # counted from the root of its tree, wherever that is mounted
    path = "/".join(policy.tor_cgroup.name.split("/")[-policy.tor_cgroup.level :])
    return f" -m cgroup --path {path}"


def _direct_users(f: Family) -> tuple[Rule, ...]:
    users = f.policy.direct_users
    if not users:
        return ()
    who = owned(uids for user in users for uids in user.uids)
    judged = (
        rule(f"-d {f.virtual}", "return"),
        rule(marked(MARK_REDIRECTED), "return"),
        rule("", "accept", mark_flow(MARK_DIRECT), comment=Name.DIRECT_USER),
    )
    return (nested(who, "direct-user", judged), orphans(MARK_DIRECT))


def _answers(f: Family) -> tuple[Rule, ...]:
    # who may ask now, which a flow of an earlier policy may not
    reply = f"{marked(MARK_INBOUND)} {is_reply('ESTABLISHED')}"
    return (
        # a peer's lost SYN makes ours look like its answer; an answer never opens anything
        rule(SYN_ONLY, "return"),
        # nor does an answer ask for a name
        *(rule(ports(protocol, NAMES), "return") for protocol in ("tcp", "udp")),
        rule((f"{whom} {reply}".lstrip() for whom in f.admitted("dst")), "accept"),
        *_dhcp(f),
    )


def _dhcp(f: Family) -> Iterator[Rule]:
    if f.n == 4:
        ends, to = "-p udp -m udp --sport 68 --dport 67", ("-d 255.255.255.255", *f.link("dst"))
    else:
        ends, to = "-p udp -m udp --sport 546 --dport 547", ("-d ff02::1:2", "-d fe80::/10")
    for who in owned((uid, uid) for uid in f.policy.dhcp_uids):
        yield rule((f"{where} {ends} {who}" for where in to), "accept", comment=Name.DHCP)


def _bypass(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    if not routed:
        # connections to bypassed networks wait: silence makes TCP try again, a reset would not
        goes_on = f"{ports('tcp', NAMES, but=True)} -m tcp --tcp-flags SYN,RST NONE"
        return (rule((f"{where} {goes_on}" for where in f.bypass("dst")), "drop"),)
    judged = (
        *(rule(ports(protocol, NAMES), "return") for protocol in ("tcp", "udp")),
        rule(("-p tcp", "-p udp", "-p icmp", "-p ipv6-icmp"), "accept", comment=Name.BYPASS),
    )
    return (nested(f.bypass("dst"), "bypass", judged),)


def _neighbour_discovery(f: Family) -> tuple[Rule, ...]:
    if f.n == 4:
        return ()
    # the kernel's own have no owner; a raw socket's have
    found = (f"{kind} -m hl --hl-eq 255 {NO_SOCKET}" for kind in f.icmp(_SOLICIT, _ADVERT))
    return (rule(found, "accept"),)


def _wire(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    policy = f.policy
    tor = owned([(policy.tor_uid, policy.tor_uid)])[0]
    direct = owned(uids for user in policy.direct_users for uids in user.uids)
    return (
        rule("-o lo", "accept"),
        rule(marked(MARK_REDIRECTED), "escaped"),
        rule("", "", f"MARK --set-xmark {policy.stamp:#x}/0xffffffff"),
        *runs.outgoing(),
        *_neighbour_discovery(f),
        *kept_outgoing(f, "accept"),
        *clients.outgoing(f),
        rule(f"-p tcp {tor} {marked(MARK_TOR)}", "accept", comment=Name.TOR),
        orphans(MARK_TOR, "-p tcp"),
        *((rule(direct, "accept"), orphans(MARK_DIRECT)) if direct else ()),
        nested("", "answers", _answers(f)),
        *(_bypass(f, routed=True) if routed else ()),
        rule("", "escaped", "MARK --set-xmark 0x0/0xffffffff"),
    )


def _strong_host(f: Family) -> tuple[Rule, ...]:
    elsewhere = (rule(f.not_remote(" --limit-iface-in"), "accept"), rule("", "drop"))
    return (
        *runs.arriving(f),
        *clients.arriving(f),
        # a packet for an address of another interface is a probe (CVE-2019-14899)
        nested("! -i lo", "weak-host", elsewhere),
    )


def _input(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    loopback = ("-d 127.0.0.0/8", f"-d {f.virtual}") if f.n == 4 else ("-d ::1", f"-d {f.virtual}")
    who = f.admitted("src")
    return (
        rule("-i lo", "accept"),
        *runs.entering(),
        *clients.entering(f, routed=routed),
        rule(dict.fromkeys(loopback), "drop"),
        *kept_incoming(f),
        rule(state("INVALID"), "drop"),
        rule(state("ESTABLISHED"), "accept"),
        *_link_needs(f),
        *((nested(who, "admitted", _admitted(f)),) if who else ()),
        rule("", "strangers"),
    )


def _link_needs(f: Family) -> tuple[Rule, ...]:
    if f.n == 4:
        return (related_errors(f), rule("-p udp -m udp --sport 67 --dport 68", "accept"))
    kinds = f.icmp(_SOLICIT, _ADVERT, _ROUTER_ADVERT)
    return (
        rule((f"{kind} -m hl --hl-eq 255" for kind in kinds), "accept"),
        related_errors(f),
        rule("-p udp -s fe80::/10 -m udp --sport 547 --dport 546", "accept"),
    )


def _admitted(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    low, high = policy.ephemeral_ports
    tor = ",".join(map(str, sorted({policy.trans_port, policy.dns_port, policy.names_port})))
    mark = mark_flow(MARK_INBOUND)
    datagram = f"-p udp {state('NEW')}"
    # a datagram opens both ways, so even with "all" only those nearby may send one first
    nearby = (*f.link("src"), *f.bypass("src")) if policy.inbound == "all" else ("",)
    return (
        rule("-m addrtype ! --dst-type LOCAL", "return"),
        *(rule(ports(protocol, tor), "return") for protocol in ("tcp", "udp")),
        rule(ports("udp", _DISCOVERY_PORTS), "return"),
        *(rule(ports(protocol, NAMES, which="sports"), "return") for protocol in ("tcp", "udp")),
        # else a peer's datagram would turn what a program sends into an answer
        rule(f"-p udp -m udp --dport {low}:{high}", "return"),
        rule(f"{SYN_ONLY} {state('NEW')}", "accept", mark),
        rule((f"{whom} {datagram}".lstrip() for whom in nearby), "accept", mark),
        rule(f"{f.echo} {state('NEW')}", "accept", mark),
    )
