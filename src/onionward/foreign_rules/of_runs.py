"""Rules of other programs that stop what a run of root sends to tor, or what tor answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from onionward.app.root.places import INTERFACE, TOR4, TOR6, address4, address6
from onionward.errors import CommandError
from onionward.foreign_rules.chains import Chain, Packet
from onionward.foreign_rules.limits import Texts, Traffic, read, words
from onionward.foreign_rules.walk import obstacles
from onionward.system import System

_BEFORE_US = -110  # `onionward.app.root.rules`: until then a packet's destination is anybody
_NUMBER = 1  # rules that tell runs apart are not looked for


class Stop(NamedTuple):
    """Something that stops them.

    Attributes:
        words: for people.
        advice: what lets it pass.
        is_all: whether no connection over IPv4 gets to tor at all.

    """

    words: str
    advice: str
    is_all: bool


def stops(system: System, trans_port: int, dns_port: int, *, ipv6: bool) -> tuple[Stop, ...]:
    """What stops runs now; rules that cannot be read may.

    Args:
        system: the seam.
        trans_port: where tor takes connections.
        dns_port: where it takes queries.
        ipv6: whether runs have IPv6.

    """
    try:
        known = read(system)
    except (CommandError, ValueError, KeyError, TypeError) as error:
        told = f"rules of other programs cannot be read, so they may stop runs: {error}"
        return (Stop(told, "look at them: nft list ruleset", is_all=False),)
    texts = Texts(system)
    # where several protocols are stopped by the same rule, the one for whom it is worst says it
    found: dict[str, bool] = {}
    for version, traffic, is_all in _sent(trans_port, dns_port, ipv6=ipv6):
        for said, certain in _stopped(known, version, traffic, texts):
            found[said] = found.get(said, False) or (certain and is_all)
    advice = _advice(trans_port, dns_port)
    return tuple(Stop(said, advice, is_all=surely) for said, surely in found.items())


def _stopped(
    known: Sequence[Chain], version: str, traffic: Traffic, texts: Texts
) -> Iterator[tuple[str, bool]]:
    family = "ip" if version == "4" else "ip6"
    concerned = [chain for chain in known if chain.family in ("inet", family)]
    for hook, interfaces in traffic.hooks.items():
        packet: Packet = {**traffic.fields, **interfaces}
        for obstacle in obstacles(concerned, packet, hook):
            if hook != "prerouting" or obstacle.base.priority > _BEFORE_US:
                said = words(traffic, obstacle, texts.of(obstacle)).removesuffix("; ")
                yield said, obstacle.certain


def _sent(trans_port: int, dns_port: int, *, ipv6: bool) -> Iterator[tuple[str, Traffic, bool]]:
    """What has to pass: version of IP, packets, and whether nothing works without them."""
    device, nothing = {f"{INTERFACE}{_NUMBER}"}, {""}
    arriving = _sets({"meta iifname": device, "meta oifname": nothing})
    leaving = _sets({"meta iifname": nothing, "meta oifname": device})
    places = (("4", address4(_NUMBER), TOR4), ("6", address6(_NUMBER), TOR6))
    for version, ours, tors in places if ipv6 else places[:1]:
        family = "ip" if version == "4" else "ip6"
        for protocol, port in (("tcp", trans_port), ("udp", dns_port)):
            common = {
                "meta l4proto": {protocol},
                "ip protocol": {protocol},
                "ip6 nexthdr": {protocol},
                "meta nfproto": {f"ipv{version}"},
                "meta protocol": {family},
                "ct status dnat": {"yes"},
            }
            there = {
                **common,
                "ct state": {"new"},
                "ct direction": {"original"},
                "fib daddr type": {"local"},
                f"{family} saddr": {ours},
                f"{family} daddr": {tors},
                "th dport": {str(port)},
                f"{protocol} dport": {str(port)},
                **({"tcp flags": {"syn"}} if protocol == "tcp" else {}),
            }
            back = {
                **common,
                "ct state": {"established"},
                "ct direction": {"reply"},
                "fib daddr type": {"unicast"},
                "fib saddr type": {"local"},
                f"{family} daddr": {ours},
            }
            is_all = (version, protocol) == ("4", "tcp")
            hooks = {"prerouting": arriving, "input": arriving}
            yield version, Traffic("what runs send to tor", hooks, _sets(there), ""), is_all
            hooks = {"output": leaving, "postrouting": leaving}
            yield version, Traffic("what tor answers runs", hooks, _sets(back), ""), is_all


def _advice(trans_port: int, dns_port: int) -> str:
    return (
        f"let in there what arrives at {TOR4} and {TOR6}, TCP port {trans_port} and UDP port "
        f"{dns_port}, and let out the answers; the devices are called {INTERFACE} and a number "
        f"(with ufw: ufw allow in on {INTERFACE}+ to {TOR4}; the same to {TOR6})"
    )


def _sets(fields: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {key: frozenset(values) for key, values in fields.items()}
