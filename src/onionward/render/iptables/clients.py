"""Clients of a LAN: redirected, served what the policy names, refused everything else.

REJECT does not work before routing, and whether the kernel forwards is nobody's concern here: what
is refused is turned to this machine instead, with a mark, and rejected where it arrives. The
answer carries the name of whoever was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onionward.policy import Lan
from onionward.render.iptables.connections import kept_incoming, related_errors
from onionward.render.iptables.family import (
    FLAGS,
    NO_SOCKET,
    SYN_ONLY,
    Family,
    is_reply,
    mark_flow,
    marked,
    state,
)
from onionward.render.iptables.text import Hook, Rule, nested, rule
from onionward.render.nftables.marks import MARK_CLIENT, MARK_INBOUND
from onionward.rules import Rule as Name

MARK_TURNED = 0x746F7206
"""A client's flow that was turned here only to be refused."""
_SOLICIT, _ADVERT, _ROUTER_SOLICIT, _ROUTER_ADVERT, _LISTENER_REPORT = 135, 136, 133, 134, 143
_MOST_PORTS = 15  # in one match (iptables-extensions(8), multiport)
_RESET = "-p tcp -m tcp --tcp-flags RST RST"


def arriving(f: Family) -> tuple[Rule, ...]:
    """Which packets of clients are believed; in the table raw."""
    return tuple(
        nested(f"-i {lan.interface}", "client-sources", _sources(f), ends=True)
        for lan in f.policy.lans
    )


def entering(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    """What clients send to this machine, or to tor."""
    return tuple(
        nested(f"-i {lan.interface}", "clients", _clients(f, lan, routed=routed))
        for lan in f.policy.lans
    )


def outgoing(f: Family) -> tuple[Rule, ...]:
    """What this machine sends to clients."""
    if not f.policy.lans:
        return ()
    return (nested(_behind(f, "-o"), "to-clients", _to_clients(f)), *never_elsewhere(f))


def forwarded(f: Family) -> tuple[Rule, ...]:
    """Nothing of clients is forwarded; those whose flows are older than the rules are told."""
    if not f.policy.lans:
        return ()
    return (
        rule((f"{behind} {state('INVALID')}" for behind in _behind(f, "-i")), "invalid"),
        rule(_behind(f, "-i"), "forwarded-told", comment=Name.CLIENT_REFUSED),
        rule(_behind(f, "-o"), "forwarded"),
    )


def never_elsewhere(f: Family, match: str = "") -> tuple[Rule, ...]:
    """What tor answers to clients, once their interface is gone or connection tracking forgot."""
    found = (marked(MARK_CLIENT), f"-s {f.relay}")
    return (rule((f"{match} {each}".lstrip() for each in found), "escaped"),)


def asked_elsewhere(f: Family) -> tuple[Rule, ...]:
    """What asks clients names them; without a route of their own it would take the default one."""
    return (rule(_asked(f), "escaped"),)


def _asked(f: Family) -> str:
    return (
        f"-p tcp -m mark --mark {f.policy.stamp:#x} -m owner --uid-owner 0 "
        f"-m tcp --tcp-flags {FLAGS} SYN,ACK"
    )


def turned(f: Family, *, routed: bool) -> tuple[Hook, ...]:
    """Where the first packet of a client's flow goes."""
    if not f.policy.lans:
        return ()
    judged = (
        rule(f.groups, "return"),
        *(_to_tor(f) if routed and f.redirects else ()),
        rule("-m addrtype --dst-type LOCAL", "return"),
        *(_tcp_to_tor(f) if routed and f.redirects else ()),
        rule("", "REDIRECT", mark_flow(MARK_TURNED), comment=Name.CLIENT_REFUSED),
    )
    return (
        Hook(
            "nat", "PREROUTING", "clients-to-tor", (nested(_behind(f, "-i"), "of-clients", judged),)
        ),
    )


def _behind(f: Family, way: str) -> tuple[str, ...]:
    return tuple(f"{way} {lan.interface}" for lan in f.policy.lans)


def _to_tor(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    names, tcp = _dnat(f, policy.dns_port), _dnat(f, policy.trans_port)
    mark = mark_flow(MARK_CLIENT)
    return (
        rule("-p udp -m udp --dport 53", names, mark, comment=Name.NAMES),
        rule(f"-d {f.virtual} -p tcp", tcp, mark, comment=Name.ONION_ADDRESSES),
    )


def _tcp_to_tor(f: Family) -> tuple[Rule, ...]:
    tcp, mark = _dnat(f, f.policy.trans_port), mark_flow(MARK_CLIENT)
    unroutable = (f"-d {network}" for network in f.of(f.policy.unroutable))
    turn = rule(unroutable, "REDIRECT", mark_flow(MARK_TURNED), comment=Name.CLIENT_REFUSED)
    return (turn, rule("-p tcp", tcp, mark, comment=Name.TCP))


def _dnat(f: Family, port: int) -> str:
    host = f.relay if f.n == 4 else f"[{f.relay}]"
    return f"DNAT --to-destination {host}:{port}"


def _sources(f: Family) -> tuple[Rule, ...]:
    if f.n == 4:
        nobody = (
            # who has no address yet asks for one by DHCP (RFC 2131): a group
            "-s 0.0.0.0 -m addrtype ! --dst-type BROADCAST",
            "! -s 0.0.0.0 -m addrtype --src-type BROADCAST",
            "! -s 0.0.0.0 -m rpfilter --invert",
        )
        unspecified: tuple[str, ...] = ("-d 0.0.0.0",)
    else:
        nobody = (
            # or whether somebody has it (RFC 4862)
            "-s :: ! -d ff00::/8",
            "-m addrtype --src-type ANYCAST",
            "! -s :: -m rpfilter --invert",
        )
        unspecified = ("-d ::", "-d ::1")
    return (
        rule(nobody, "spoofed", comment=Name.CLIENT_SPOOFED),
        rule(unspecified, "strangers", comment=Name.CLIENT_WEAK_HOST),
        rule(f"-d {f.virtual}", "return"),
        rule(f.not_remote(" --limit-iface-in"), "return"),
        rule("-m addrtype --dst-type LOCAL", "strangers", comment=Name.CLIENT_WEAK_HOST),
    )


def _to_clients(f: Family) -> tuple[Rule, ...]:
    reply = is_reply("ESTABLISHED")
    dhcp = (
        ("-p udp -m udp --sport 67 --dport 68",)
        if f.n == 4
        else (
            "-p udp -d fe80::/10 -m udp --sport 547 --dport 546",
            f"{f.icmp(_ROUTER_ADVERT)[0]} -m hl --hl-eq 255",
        )
    )
    kernel = (*f.icmp(3),) if f.n == 4 else (*f.icmp(_LISTENER_REPORT, 1, 2),)
    return (
        # how each is asked what it expects, before its end is reset
        rule(_asked(f), "accept"),
        rule(f"{marked(MARK_CLIENT)} {reply}", "accept", comment=Name.CLIENT_SERVICE),
        # an answer never opens anything
        rule(SYN_ONLY, "return"),
        rule(f"{marked(MARK_INBOUND)} {reply}", "accept", comment=Name.CLIENT_SERVICE),
        rule(dhcp, "accept", comment=Name.CLIENT_DHCP),
        # how the kernel refuses, and which groups it listens to (RFC 3810)
        rule((f"{what} {NO_SOCKET}" for what in (_RESET, *kernel)), "accept"),
    )


def _clients(f: Family, lan: Lan, *, routed: bool) -> tuple[Rule, ...]:
    policy = f.policy
    turned_here = f"{marked(MARK_CLIENT)} {state('DNAT')}"
    redirected = (
        f"-p tcp -m tcp --dport {policy.trans_port} {turned_here}",
        f"-p udp -m udp --dport {policy.dns_port} {turned_here}",
    )
    return (
        *((rule(redirected, "accept"),) if routed else ()),
        rule(marked(MARK_TURNED), "forwarded-told", comment=Name.CLIENT_REFUSED),
        *kept_incoming(f),
        rule(state("INVALID"), "invalid"),
        # answers to what this machine may ask them
        rule(f"{marked(MARK_CLIENT, but=True)} {is_reply('ESTABLISHED')}", "accept"),
        rule(f"{marked(MARK_INBOUND)} {state('ESTABLISHED')}", "accept"),
        related_errors(f),
        *((_discovery(f),) if f.n == 6 else ()),
        *_dhcp(f, lan),
        *((rule("-s 0.0.0.0", "spoofed", comment=Name.CLIENT_SILENCE),) if f.n == 4 else ()),
        rule("-m addrtype ! --dst-type LOCAL", "strangers", comment=Name.CLIENT_SILENCE),
        # addresses of onion names are local, too
        rule(
            "-m addrtype ! --dst-type LOCAL --limit-iface-in",
            "strangers-told",
            comment=Name.CLIENT_REFUSED,
        ),
        *_services(f, lan),
        rule("", "strangers-told", comment=Name.CLIENT_REFUSED),
    )


def _discovery(f: Family) -> Rule:
    kinds = f.icmp(_SOLICIT, _ADVERT, _ROUTER_SOLICIT)
    return rule((f"{kind} -m hl --hl-eq 255" for kind in kinds), "accept")


def _dhcp(f: Family, lan: Lan) -> Iterator[Rule]:
    if not lan.dhcp:
        return
    if f.n == 4:
        at = "-m addrtype --dst-type LOCAL,BROADCAST --limit-iface-in"
        yield rule(f"-p udp -m udp --sport 68 --dport 67 {at}", "accept", comment=Name.CLIENT_DHCP)
        return
    asked = "-p udp -s fe80::/10 -m udp --sport 546 --dport 547"
    to = (f"{asked} -d ff02::1:2", f"{asked} -d fe80::/10")
    yield rule(to, "accept", comment=Name.CLIENT_DHCP)


def _services(f: Family, lan: Lan) -> Iterator[Rule]:
    mark = mark_flow(MARK_INBOUND)
    new = state("NEW")
    served = [f"{f.echo} {new}"] if lan.ping else []
    for opening, numbers in ((SYN_ONLY, lan.tcp_ports), ("-p udp", lan.udp_ports)):
        served += (f"{opening} {new} -m multiport --dports {some}" for some in _portions(numbers))
    yield from (rule(each, "accept", mark, comment=Name.CLIENT_SERVICE) for each in served)


def _portions(numbers: Iterable[int]) -> Iterator[str]:
    left = list(numbers)
    while left:
        yield ",".join(map(str, left[:_MOST_PORTS]))
        left = left[_MOST_PORTS:]
