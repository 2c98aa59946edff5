"""What pf does with a packet: written from pf.conf(5), for the part of it that is emitted.

Filter rules are asked one after the other; the last that matches decides, or the first that is
`quick`. Translation (`rdr`) comes before them, and there the first that matches decides; `rdr pass`
needs no filter rule any more. A packet with a state is asked nothing. `route-to` sends what
passes out of lo1, where it comes in again. `user` is the owner of a socket here, known for TCP and
UDP on the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from onionward.networks import Address
from tests.pf.grammar import Anchor, Host, Parsed


@dataclass(frozen=True)
class Seen:
    """A packet as pf sees it on an interface."""

    direction: str
    interface: str
    protocol: str
    source: Address
    to: Address
    source_port: int | None = None
    port: int | None = None
    uid: int | None = None
    icmp_type: str = ""
    flags: str = "S"


@dataclass
class Box:
    """A machine with pf: its interfaces' addresses, and the states that were made.

    Attributes:
        anchor: the rules.
        addresses: of each interface.
        before: filter rules of the main ruleset that stand before the anchor.
        after: those after it.
        excepted: `no rdr` rules that kept a packet from being redirected.

    """

    anchor: Anchor
    addresses: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    before: tuple[Parsed, ...] = ()
    after: tuple[Parsed, ...] = ()
    states: set[tuple[object, ...]] = field(default_factory=set)
    excepted: list[Parsed] = field(default_factory=list)

    def judge(self, seen: Seen) -> tuple[Parsed | None, tuple[str, str, int] | None]:
        """The rule that decides (None: no rule of the anchor), and where it is redirected to."""
        if _key(seen) in self.states or _key(_reverse(seen)) in self.states:
            return STATE, None
        if seen.direction == "in":
            for rule in self.anchor.translation:
                if self.matches(rule, seen):
                    if rule.kind == "rdr":
                        self.states.add(_key(seen))
                        return rule, rule.redirect
                    self.excepted.append(rule)
                    break
        decided = None
        for rule in (*self.before, *self.anchor.filter, *self.after):
            if self.matches(rule, seen):
                decided = rule
                if "quick" in rule.text.split():
                    break
        if decided is not None and decided.kind == "pass":
            self.states.add(_key(seen))
        return decided, decided.redirect if decided else None

    def matches(self, rule: Parsed, seen: Seen) -> bool:
        """Whether every part of a rule fits."""
        if rule.direction and rule.direction != seen.direction:
            return False
        if rule.interface and (rule.interface == seen.interface) == rule.interface_negated:
            return False
        if rule.family is not None and rule.family != seen.to.version:
            return False
        if rule.protocols and seen.protocol not in rule.protocols:
            return False
        if not self._hosts(rule.source, seen.source, seen.interface):
            return False
        if not self._hosts(rule.to, seen.to, seen.interface):
            return False
        if rule.source_ports and not any(r.holds(seen.source_port) for r in rule.source_ports):
            return False
        if rule.ports and not any(r.holds(seen.port) for r in rule.ports):
            return False
        if rule.users and not any(r.holds(seen.uid) for r in rule.users):
            return False
        if rule.icmp_types and seen.icmp_type not in rule.icmp_types:
            return False
        # pass and block differ: without flags a pass rule for TCP wants the first packet
        return not (rule.kind == "pass" and seen.protocol == "tcp") or _flags(rule, seen.flags)

    def _hosts(self, hosts: Iterable[Host], address: Address, interface: str) -> bool:
        return any(self._host(host, address, interface) != host.negated for host in hosts)

    def _host(self, host: Host, address: Address, interface: str) -> bool:
        match host.kind:
            case "any":
                return True
            case "network":
                network = host.network
                assert network is not None
                return address.version == network.version and address in network
            case "table":
                networks = self.anchor.tables[host.name]
                return any(address.version == n.version and address in n for n in networks)
            case "interface":
                return address in self.addresses.get(host.name, ())
            case _:
                return address in self._own(interface)

    def _own(self, interface: str) -> set[Address]:
        """All addresses of the machine; a link-local one belongs to its own link."""
        return {
            address
            for name, addresses in self.addresses.items()
            for address in addresses
            if name == interface or name.startswith("lo") or not address.is_link_local
        }


STATE = Parsed("a state", "pass")


def _flags(rule: Parsed, flags: str) -> bool:
    wanted, of = rule.flags.split("/")
    return set(flags) & set(of) == set(wanted)


def _key(seen: Seen) -> tuple[object, ...]:
    ends = (seen.source, seen.source_port, seen.to, seen.port)
    return (seen.direction, seen.protocol, *ends)


def _reverse(seen: Seen) -> Seen:
    return replace(
        seen,
        direction="out" if seen.direction == "in" else "in",
        source=seen.to,
        source_port=seen.port,
        to=seen.source,
        port=seen.source_port,
    )
