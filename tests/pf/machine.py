"""A BSD machine around the evaluator: where packets go, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from onionward.explain import Outcome, Packet, State
from onionward.networks import Address, contains, overlapping
from onionward.policy import Policy
from onionward.render import pf
from onionward.render.pf import DialectName
from onionward.render.pf.tables import shared
from tests.pf.evaluator import Box, Seen
from tests.pf.grammar import Anchor, Parsed, parse
from tests.support import addr, net

UPLINK = "em0"
DIALECTS: tuple[DialectName, ...] = ("openbsd", "openbsd-4.6", "freebsd")
_OWN = {4: addr("198.18.0.2"), 6: addr("2001:db8:18::2")}
_LINK_LOCAL6 = addr("fe80::5eff:fe00:1")
_LOOPBACK = (net("127.0.0.0/8"), net("0.0.0.0/32"))
_LOOPBACK6 = (net("::1/128"), net("::/128"))
_NAMES = {"ipv6-icmp": "icmp6"}


def for_pf(policy: Policy) -> Policy:
    """A policy as one of a BSD machine: no scope and no address that pf is refused."""
    virtual = net("10.192.0.0/10") if policy.virtual4.is_loopback else policy.virtual4
    return replace(
        policy,
        route="direct" if policy.route == "onion" else policy.route,
        virtual4=virtual,
        devices=(UPLINK,) if policy.route == "tor" else (),
        tor_cgroup=None,
        names_port=policy.dns_port,
        lans=tuple(lan._replace(interface=f"fxp{n}") for n, lan in enumerate(policy.lans)),
        users=tuple(
            user._replace(closed_ports=tuple(p for p in user.closed_ports if 0 < p < 65536))
            for user in policy.users
        ),
    )


def is_possible(policy: Policy, own: Iterable[Address]) -> bool:
    """Whether configuration and kernel could bring this about."""
    groups = shared(policy)
    networks = (*policy.bypass, *policy.link, *(n for lan in policy.lans for n in lan.networks))
    kept = (flow.local for flow in policy.kept)
    lans = (a for lan in policy.lans for a in lan.addresses)
    addresses = (*own, *kept, *lans, *_OWN.values(), _LINK_LOCAL6)
    return (
        not any(overlapping(v, n) for v in policy.virtual for n in networks)
        and not any(a in groups or _is_nobodys(policy, a) for a in addresses)
        and not any(flow.peer in addresses for flow in policy.kept)
        and not any(contains((*_LOOPBACK, *_LOOPBACK6), a) for a in groups)
    )


def _is_nobodys(policy: Policy, address: Address) -> bool:
    elsewhere = contains((*policy.virtual, *_LOOPBACK, *_LOOPBACK6), address)
    return address.is_multicast or elsewhere


def own_addresses(policy: Policy, more: Iterable[Address]) -> dict[str, tuple[Address, ...]]:
    """The machine's addresses by interface; the uplink always has one of each family."""
    lans = {lan.interface: lan.addresses for lan in policy.lans}
    taken = {a for addresses in lans.values() for a in addresses}
    found = (*more, *(flow.local for flow in policy.kept))
    uplink = (*_OWN.values(), _LINK_LOCAL6, *(a for a in found if a not in taken))
    return {
        UPLINK: uplink,
        **lans,
        "lo0": (addr("127.0.0.1"), *((addr("::1"),) if policy.ipv6 else ())),
        "lo1": (addr("127.0.0.2"), addr("fd5a:7010::2")),
    }


@cache
def anchor_of(policy: Policy, state: State, dialect: DialectName) -> Anchor:
    """What is loaded, as the grammar reads it."""
    render = pf.route if state == "routed" else pf.block
    return parse(render(policy, dialect).text, dialect)


class Machine:
    """With the rules of a policy in one dialect."""

    def __init__(
        self,
        policy: Policy,
        anchor: Anchor,
        own: Iterable[Address] = (),
        *,
        before: Sequence[Parsed] = (),
    ) -> None:
        self.policy = policy
        self.addresses = own_addresses(policy, own)
        self._anchor = anchor
        self._before = tuple(before)
        self.decided: list[Parsed] = []

    def box(self) -> Box:
        return Box(self._anchor, self.addresses, before=self._before)

    def fate(self, packet: Packet) -> Outcome:
        """What becomes of the first packet of an exchange."""
        self.decided = []
        box = self.box()
        if packet.interface is not None:
            return self._of_client(box, packet)
        here = self._is_local(packet.destination)
        seen = self._seen(packet, "out", "lo0" if here else UPLINK)
        rule = self._ask(box, seen)
        if rule is not None and rule.kind in ("drop", "return"):
            return "refused" if rule.kind == "return" else "dropped"
        if rule is not None and rule.turned:
            return self._came_in(box, replace(seen, direction="in", interface="lo1", uid=None))
        if here:
            return self._came_in(box, replace(seen, direction="in", interface="lo0", uid=None))
        return "direct"

    def judged(self, seen: Seen) -> str:
        """For packets that `explain` is not asked about: pass, drop, return or a redirection."""
        self.decided = []
        rule = self._ask(self.box(), seen)
        if rule is None:
            return "nothing"
        return rule.redirect[0] if rule.redirect else rule.kind

    def _ask(self, box: Box, seen: Seen) -> Parsed | None:
        rule, _ = box.judge(seen)
        self.decided += box.excepted
        if rule is not None:
            self.decided.append(rule)
        return rule

    def _of_client(self, box: Box, packet: Packet) -> Outcome:
        interface = packet.interface or ""
        seen = self._seen(packet, "in", interface)
        rule = self._ask(box, seen)
        if rule is None:
            return "direct"
        if rule.redirect is not None:
            return self._redirected(rule)
        if rule.kind == "pass":
            return "local"
        told = rule.kind == "return" and packet.protocol in ("tcp", "udp")
        return "refused" if told else "dropped"

    def _came_in(self, box: Box, seen: Seen) -> Outcome:
        rule = self._ask(box, seen)
        if rule is not None and rule.redirect is not None:
            return self._redirected(rule)
        if rule is not None and rule.kind in ("drop", "return"):
            return "refused"
        return "local"

    def _redirected(self, rule: Parsed) -> Outcome:
        assert rule.redirect is not None
        verb, address, port = rule.redirect
        assert address in ("127.0.0.1", "::1")
        if port == self.policy.dns_port:
            assert verb == "rdr-to", "answers to UDP need translation"
            return "dns-port"
        assert port == self.policy.trans_port
        return "trans-port"

    def _is_local(self, address: Address) -> bool:
        networks = (*_LOOPBACK, *(_LOOPBACK6 if self.policy.ipv6 else ()))
        own = {a for addresses in self.addresses.values() for a in addresses}
        mine = address in own - set(self.addresses["lo1"]) - {addr("::1")}
        return mine or contains(networks, address)

    def _seen(self, packet: Packet, direction: str, interface: str) -> Seen:
        to = packet.destination
        has_ports = packet.protocol in ("tcp", "udp")
        source = packet.source
        if source is None:
            source = to if interface == "lo0" else _OWN[to.version]
            if source.is_unspecified:
                source = addr("127.0.0.1" if to.version == 4 else "::1")
        return Seen(
            direction,
            interface,
            _NAMES.get(packet.protocol, packet.protocol),
            source,
            to,
            (packet.source_port or 50000) if has_ports else None,
            packet.port if has_ports else None,
            packet.uid if has_ports and direction == "out" else None,
            "echoreq" if packet.is_echo and "icmp" in packet.protocol else "",
            "S" if packet.opens else "A",
        )


def all_own(policy: Policy, more: Iterable[Address]) -> tuple[Address, ...]:
    """What `explain` is told: all but loopback."""
    found = own_addresses(policy, more)
    return tuple(a for name in found if not name.startswith("lo") for a in found[name])
