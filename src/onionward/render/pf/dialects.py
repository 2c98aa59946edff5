"""The dialects of pf.conf(5): where translation stands, and how a packet is turned round.

openbsd: 6.9 and later. One section; `route-to` takes an address; TCP is diverted, because tor
cannot ask this pf where a redirected connection was going.
openbsd-4.6: 4.1 to 4.6. `rdr … -> …` before all filter rules; `route-to` takes an interface.
freebsd: 13 to 15. The same order; `route-to (interface address)`. `divert-to` means a port of
divert(4) there, so it is never written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal, NamedTuple

from onionward.networks import Address
from onionward.render.pf.rule import Group, PfRule, listed

DialectName = Literal["openbsd", "openbsd-4.6", "freebsd"]

TURNING_INTERFACE = "lo1"
TURNING4 = ipaddress.ip_address("127.0.0.2")
TURNING6 = ipaddress.ip_address("fd5a:7010::2")
"""Addresses of lo1: with its own route each, so that what is routed to one comes in on lo1."""

_ACTIONS = {"pass": "pass", "drop": "block drop", "return": "block return"}


class Dialect(NamedTuple):
    """How one kind of pf is written to.

    Attributes:
        name: as `--dialect` has it.
        title: for people.
        translates_first: whether redirection is a section of its own before the filter rules.
        diverts: whether TCP is diverted instead of being redirected.
        turning: for each family, what follows `route-to`.
        trans_proxy_type: tor's word for how it learns where a connection was going.

    """

    name: DialectName
    title: str
    translates_first: bool
    diverts: bool
    turning: Mapping[int, str]
    trans_proxy_type: Literal["default", "pf-divert"]

    def translation(self, group: Group) -> list[str]:
        """The rules of a group that redirect, where these stand before all others.

        What a filter rule refuses before that has no say there, so it is repeated as `no rdr`.
        """
        if not self.translates_first:
            return []
        last = max((n for n, rule in enumerate(group.rules) if rule.redirect), default=-1)
        lines = []
        for rule in group.rules[: last + 1]:
            if rule.redirect:
                to = f"-> {rule.redirect.address} port {rule.redirect.port}"
                lines.append(f"rdr pass {_match(rule)} {to}")
            elif rule.action != "pass" and _may_carry(rule):
                lines.append(f"no rdr {_match(rule)}")
        return lines

    def filter(self, group: Group) -> list[str]:
        """The other rules of a group; all of them where there is one section."""
        return [
            self._rule(rule)
            for rule in group.rules
            if not (rule.redirect and self.translates_first)
        ]

    def _rule(self, rule: PfRule) -> str:
        words = [_ACTIONS[rule.action], rule.direction, "quick"]
        before = after = ""
        if rule.turned:
            turning = f"route-to {self.turning[rule.family or 4]}"
            before, after = (turning, "") if self.translates_first else ("", turning)
        if rule.redirect is not None:
            after = self._redirection(rule)
        words += [_match(rule, before), _options(rule), after]
        if rule.rule is not None:
            words.append(f'label "{rule.rule}"')
        return " ".join(filter(None, words))

    def _redirection(self, rule: PfRule) -> str:
        redirect = rule.redirect
        if redirect is None:
            return ""
        verb = "divert-to" if self.diverts and redirect.keeps_destination else "rdr-to"
        return f"{verb} {redirect.address} port {redirect.port}"


def _may_carry(rule: PfRule) -> bool:
    """Whether it could match what is redirected: TCP or UDP that comes in."""
    return rule.direction != "out" and set(rule.protocols or ("tcp",)) & {"tcp", "udp"} != set()


def _match(rule: PfRule, route: str = "") -> str:
    words = []
    if rule.interface:
        words.append(f"on {rule.interface}")
    words.append(route)
    if rule.family is not None:
        words.append("inet" if rule.family == 4 else "inet6")
    if rule.protocols:
        words.append(f"proto {listed(rule.protocols)}")
    words.append(f"from {rule.source}")
    if rule.source_port:
        words.append(f"port {rule.source_port}")
    words.append(f"to {rule.to}")
    if rule.port:
        words.append(f"port {rule.port}")
    return " ".join(filter(None, words))


def _options(rule: PfRule) -> str:
    words = []
    if rule.user:
        words.append(f"user {rule.user}")
    if rule.icmp_types:
        kind = "icmp-type" if rule.family == 4 else "icmp6-type"
        words.append(f"{kind} {listed(rule.icmp_types)}")
    if rule.options:
        words.append(rule.options)
    return " ".join(words)


def _old_way(address4: Address, address6: Address) -> dict[int, str]:
    return {4: f"({TURNING_INTERFACE} {address4})", 6: f"({TURNING_INTERFACE} {address6})"}


_LOOPBACK4, _LOOPBACK6 = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")

DIALECTS: Mapping[DialectName, Dialect] = {
    "openbsd": Dialect(
        "openbsd",
        "OpenBSD 6.9 and later",
        translates_first=False,
        diverts=True,
        turning={4: str(TURNING4), 6: str(TURNING6)},
        trans_proxy_type="pf-divert",
    ),
    "openbsd-4.6": Dialect(
        "openbsd-4.6",
        "OpenBSD 4.1 to 4.6",
        translates_first=True,
        diverts=False,
        turning={4: TURNING_INTERFACE, 6: TURNING_INTERFACE},
        trans_proxy_type="default",
    ),
    "freebsd": Dialect(
        "freebsd",
        "FreeBSD 13 to 15",
        translates_first=True,
        diverts=False,
        turning=_old_way(_LOOPBACK4, _LOOPBACK6),
        trans_proxy_type="default",
    ),
}
