"""Machines with every scope, and packets that between them meet every rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from onionward.explain import Packet, State
from onionward.explain.pf import explain
from onionward.networks import Address
from onionward.policy import Flow, Policy
from onionward.render.pf import DialectName
from tests.pf.evaluator import Seen
from tests.pf.machine import UPLINK, Machine, all_own, anchor_of, for_pf
from tests.support import addr, net
from tests.unit.scopes import ALICE, BOB, CAROL, LAN, USERS, gateway

_VIRTUAL = "[tor]\nvirtual_networks = ['10.192.0.0/10']\n"
_HOST = "[host]\nroute = 'tor'\ninbound = '{inbound}'\n"
_BYPASS = "[bypass]\nnetworks = ['192.168.1.0/24', '2001:db8:5::/48', '203.0.113.0/24']\n"
_DIRECT = "[[user]]\nname = 'carol'\nroute = 'direct'\n"
_SERVED = f"{LAN}services = ['dhcp', 'ping', 'ssh', 'udp/69']\n"
PEER, SSH = addr("198.18.0.77"), 22
KEPT = Flow(PEER, 50123, addr("198.18.0.2"), SSH)
KEPT_OF_CLIENT = Flow(addr("198.18.8.77"), 50124, addr("198.18.8.1"), SSH)
_LINK = (net("198.18.0.0/24"), net("2001:db8:18::/64"), net("fe80::/10"))


def machines() -> dict[str, Policy]:
    """By name."""
    whole = _SERVED + _DIRECT + _BYPASS + _VIRTUAL
    routed = {
        f"everything, inbound {inbound}": replace(
            gateway(_HOST.format(inbound=inbound) + whole), kept=(KEPT, KEPT_OF_CLIENT), link=_LINK
        )
        for inbound in ("link", "all", "none")
    }
    scopes = gateway(_SERVED + USERS + _VIRTUAL)
    return {name: for_pf(policy) for name, policy in {**routed, "lan and users": scopes}.items()}


_TO = """
    1.1.1.1 2606:4700::1111 10.192.0.5 fd5a:7011::5 127.0.0.1 ::1 198.18.0.2 2001:db8:18::2
    192.168.1.9 2001:db8:5::9 203.0.113.9 10.0.0.9 fd00:9::9 fe80::77 255.255.255.255 198.18.0.255
    198.18.8.255 224.0.0.251 ff02::fb ff02::1:2 198.18.0.9 198.18.8.1 fe80::8 2001:db8:8::1
    2001:db8:8:: 198.18.8.77 fe80::5eff:fe00:1 0.0.0.0
"""
_FROM = """
    198.18.8.77 2001:db8:8::77 fe80::77 0.0.0.0 :: 203.0.113.5 2001:db8:99::1 198.18.8.255
    2001:db8:8:: 198.18.8.1 2001:db8:8::1
"""
_PORTS = (53, 443, 22, 69, 25)
_UIDS = (0, ALICE, BOB, CAROL, 947)


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(map(addr, text.split()))


def packets(policy: Policy) -> Iterator[Packet]:
    """Of programs and of clients."""
    for to, protocol, uid in product(_addresses(_TO), ("tcp", "udp", "icmp", "gre"), _UIDS):
        if protocol not in ("tcp", "udp") and uid:
            continue  # nobody's, whoever sends it
        name = "ipv6-icmp" if protocol == "icmp" and to.version == 6 else protocol
        for port in _PORTS if protocol in ("tcp", "udp") else (None,):
            yield Packet(name, to, port, uid)
        if protocol == "udp":
            yield Packet("udp", to, 67, uid, source_port=68)
            yield Packet("udp", to, 547, uid, source_port=546)
    for flow in policy.kept:
        for opens in (True, False):
            yield Packet(
                "tcp", flow.peer, flow.peer_port, 0, flow.local_port, flow.local, opens=opens
            )
    for lan, source, to in product(policy.lans, _addresses(_FROM), _addresses(_TO)):
        if source.version != to.version:
            continue
        client = Packet("tcp", to, 0, 0, source=source, interface=lan.interface)
        icmp = "icmp" if to.version == 4 else "ipv6-icmp"
        for protocol, port in product(("tcp", "udp"), _PORTS):
            yield replace(client, protocol=protocol, port=port)
        for protocol in (icmp, "gre"):
            yield replace(client, protocol=protocol, port=None)
        for source_port, port in ((68, 67), (546, 547)):
            yield replace(client, protocol="udp", port=port, source_port=source_port)


def _neighbours(direction: str, interface: str, kinds: str, source: str, to: str) -> list[Seen]:
    return [
        Seen(direction, interface, "icmp6", addr(source), addr(to), icmp_type=kind)
        for kind in kinds.split()
    ]


def others(policy: Policy) -> Iterator[tuple[Seen, str]]:
    """What `explain` is not asked about, with what becomes of it by docs/security.md."""
    near, far = addr("198.18.0.9"), addr("203.0.113.200")
    stranger, mine, lan = addr("8.8.8.8"), addr("198.18.0.2"), policy.lans[0].interface
    of_lan = addr("198.18.8.1")
    other6 = "fe80::9"

    def asks(source: Address, to: Address, protocol: str, port: int, flags: str = "S") -> Seen:
        return Seen("in", UPLINK, protocol, source, to, 50001, port, flags=flags)

    # nobody's answer, but the neighbours' on the link
    yield from ((s, "pass") for s in _neighbours("in", lan, "neighbrsol", other6, "ff02::1"))
    yield from ((s, "pass") for s in _neighbours("out", lan, "neighbradv", "fe80::8", other6))
    yield from ((s, "pass") for s in _neighbours("out", lan, "routeradv", "fe80::8", "ff02::1"))
    # duplicate address detection has no source
    yield from ((s, "pass") for s in _neighbours("out", lan, "neighbrsol", "::", "ff02::1:ff0:8"))
    # forwarded from elsewhere to a client
    yield Seen("out", lan, "tcp", stranger, addr("198.18.8.77"), 443, 50001), "drop"
    if policy.route != "tor":
        yield asks(stranger, mine, "tcp", 22), "nothing"
        yield Seen("out", UPLINK, "gre", stranger, near), "nothing"
        return
    yield from ((s, "pass") for s in _neighbours("in", UPLINK, "routeradv", other6, "ff02::1"))
    yield from (
        (s, "pass") for s in _neighbours("out", UPLINK, "neighbrsol", "fe80::5eff:fe00:1", other6)
    )
    yield from (
        (s, "drop") for s in _neighbours("out", UPLINK, "neighbrsol", "2001:db8:99::9", "2606::1")
    )
    # a forged source gets no error on the wire
    yield Seen("out", UPLINK, "tcp", stranger, near, 50000, 443, 0), "drop"
    yield Seen("out", UPLINK, "gre", stranger, near), "drop"
    # an answer of a DHCPv6 server
    yield Seen("in", UPLINK, "udp", addr(other6), addr("fe80::5eff:fe00:1"), 547, 546), "pass"
    # a connection that was open before
    kept = asks(PEER, mine, "tcp", SSH, "A")
    yield replace(kept, source_port=KEPT.peer_port), "pass"
    yield replace(kept, source_port=999), "drop"
    kept = Seen("in", lan, "tcp", KEPT_OF_CLIENT.peer, of_lan, 50124, SSH, flags="A")
    yield kept, "pass"
    yield replace(kept, source_port=999), "return"
    admits = {"none": (False, False, False), "link": (True, True, False)}
    tcp, udp, strangers = admits.get(policy.inbound, (True, True, True))
    words = {True: "pass", False: "drop"}
    for source, admitted in ((near, tcp), (far, tcp), (stranger, strangers)):
        ping = Seen("in", UPLINK, "icmp", source, mine, icmp_type="echoreq")
        yield asks(source, mine, "tcp", 80), words[admitted]
        yield ping, words[admitted]
        yield replace(ping, icmp_type="other"), "drop"
        # an address of another interface, tor's ports, and what is not for this machine
        yield asks(source, of_lan, "tcp", 80), "drop"
        yield asks(source, mine, "tcp", policy.trans_port), "drop"
        yield asks(source, mine, "udp", policy.dns_port), "drop"
        yield replace(asks(source, mine, "tcp", 80), source_port=53), "drop"
        yield replace(asks(source, mine, "udp", 7000), source_port=53), "drop"
        yield asks(source, addr("192.0.2.99"), "tcp", 80), "drop"
        datagram = source is not stranger and udp
        yield asks(source, mine, "udp", 500), words[datagram]
        yield asks(source, mine, "udp", 5353), "drop"
        yield asks(source, mine, "udp", 40000), "drop"
    for text, admitted in (("2001:db8:18::9", tcp), ("2001:db8:5::9", tcp), ("2606::1", strangers)):
        source, to = addr(text), addr("2001:db8:18::2")
        ping = Seen("in", UPLINK, "icmp6", source, to, icmp_type="echoreq")
        yield ping, words[admitted]


@dataclass(frozen=True)
class Answered:
    """A question, its answer, and the rules that decided it."""

    question: Packet | Seen
    answer: str
    rules: tuple[str, ...]


def ask(machine: Machine, question: Packet | Seen) -> str:
    if isinstance(question, Seen):
        return machine.judged(question)
    return machine.fate(question)


@cache
def expected(policy: Policy, state: State) -> tuple[tuple[Packet | Seen, str], ...]:
    """Every question with the answer that it should get, in whatever dialect."""
    own = all_own(policy, ())
    explained = (
        (packet, str(explain(policy, packet, own, state=state).outcome))
        for packet in packets(policy)
    )
    return (*explained, *others(policy))


def answered(policy: Policy, state: State, dialect: DialectName) -> Iterator[Answered]:
    """Every question, when it gets that answer."""
    machine = Machine(policy, anchor_of(policy, state, dialect))
    for question, answer in expected(policy, state):
        given = ask(machine, question)
        rules = tuple(rule.text for rule in machine.decided)
        assert given == answer, (question, answer, given, rules)
        yield Answered(question, answer, rules)
