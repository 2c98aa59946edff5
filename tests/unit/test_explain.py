"""What becomes of a packet, rule by rule; tests/kernel holds the kernel to the same answers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, get_args

import pytest

from onionward.explain import Packet, State, explain
from onionward.networks import NAME_PORTS, Network
from onionward.policy import Policy
from onionward.render import nftables
from tests.support import ETH0, FACTS, addr, flow, net, policy

TOR, DHCP, SOMEBODY = 947, 101, 1000

ROUTED = policy("[bypass]\nnetworks = ['198.51.100.0/24', '10.1.0.0/16', '2001:db8:5::/48']")
NO_IPV6 = replace(ROUTED, ipv6=False)
NO_GROUP = replace(ROUTED, tor_cgroup=None)
PRIVATE_VIRTUAL = replace(ROUTED, virtual4=net("10.192.0.0/10"))
LINK_LOCAL_BYPASSED = replace(ROUTED, bypass=(net("fe80::/64"),))
KEPT = replace(ROUTED, kept=(flow("203.0.113.9", 50000, "192.0.2.2", 22),))


def packet(words: str, **changes: object) -> Packet:
    """ "tcp 1.1.1.1 443" or "icmp ::1", and what is not usual about it."""
    protocol, destination, *port = words.split()
    plain = Packet(protocol, addr(destination), int(port[0]) if port else None, SOMEBODY)
    return replace(plain, **changes)  # type: ignore[arg-type]


def outcome(
    given_policy: Policy, words: str, state: State = "routed", **changes: object
) -> tuple[str, str]:
    verdict = explain(
        given_policy,
        packet(words, **changes),
        ETH0.addresses,
        attached=ETH0.networks,
        state=state,
    )
    assert verdict.reason in verdict.words()
    assert verdict.words().endswith(f'(chain {verdict.chain}, rule "{verdict.rule}")')
    return verdict.outcome, verdict.chain


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # through Tor
        ("tcp 1.1.1.1 443", "trans-port"),
        ("tcp 1.1.1.1 53", "trans-port"),
        ("tcp 1.1.1.1 853", "trans-port"),
        ("tcp 240.0.0.1 80", "trans-port"),
        ("tcp 2606:4700::1111 443", "trans-port"),
        ("tcp 2606:4700::1111 53", "trans-port"),
        ("tcp 192.0.2.9 80", "trans-port"),  # a neighbour with a public address
        ("tcp 192.0.2.0 80", "trans-port"),
        # names, wherever they are asked
        ("udp 1.1.1.1 53", "dns-port"),
        ("udp 2606:4700::1111 53", "dns-port"),
        ("udp 127.0.0.1 53", "dns-port"),
        ("udp 127.0.0.53 53", "dns-port"),
        ("udp ::1 53", "dns-port"),
        ("udp 0.0.0.0 53", "dns-port"),
        ("udp 192.0.2.2 53", "dns-port"),
        ("udp 192.168.1.1 53", "dns-port"),
        ("udp 198.51.100.1 53", "dns-port"),
        ("udp 2001:db8:5::1 53", "dns-port"),
        ("udp 255.255.255.255 53", "dns-port"),
        ("udp 224.0.0.251 53", "dns-port"),
        ("udp ff02::fb 53", "dns-port"),
        ("udp fe80::1 53", "refused"),
        ("udp fe80::fc:ff:fe00:1 53", "local"),
        # .onion names
        ("tcp 127.192.0.1 80", "trans-port"),
        ("tcp 127.255.255.254 80", "trans-port"),
        ("tcp 127.191.255.255 80", "local"),
        ("udp 127.192.0.1 80", "local"),
        ("tcp fd5a:7011::1 80", "trans-port"),
        ("udp fd5a:7011::1 80", "local"),
        ("udp fd5a:7011:: 80", "refused"),
        ("ipv6-icmp fd5a:7011:ffff::1", "local"),
        # this machine
        ("tcp 127.0.0.1 940", "local"),
        ("tcp 127.0.0.53 53", "local"),
        ("tcp 0.0.0.0 80", "local"),
        ("tcp :: 80", "local"),
        ("tcp ::1 80", "local"),
        ("tcp 192.0.2.2 22", "local"),
        ("udp fd00::2 9", "local"),
        ("tcp fe80::fc:ff:fe00:1 22", "local"),
        ("icmp 127.0.0.1", "local"),
        ("gre 192.0.2.2", "local"),
        ("udp 127.255.255.255 9", "refused"),
        # bypassed networks
        ("tcp 198.51.100.7 443", "direct"),
        ("tcp 198.51.101.0 443", "trans-port"),
        ("tcp 198.51.99.255 443", "trans-port"),
        ("tcp 10.1.255.255 22", "direct"),
        ("tcp 10.2.0.0 22", "refused"),
        ("udp 198.51.100.7 443", "direct"),
        ("icmp 198.51.100.7", "direct"),
        ("ipv6-icmp 198.51.100.7", "direct"),
        ("gre 198.51.100.7", "refused"),
        ("tcp 2001:db8:5::7 443", "direct"),
        ("udp 2001:db8:5::7 443", "direct"),
        ("ipv6-icmp 2001:db8:5::7", "direct"),
        ("sctp 2001:db8:5::7", "refused"),
        ("tcp 2001:db8:6::7 443", "trans-port"),
        # private addresses
        ("tcp 10.0.0.1 80", "refused"),
        ("tcp 172.16.0.1 80", "refused"),
        ("tcp 172.32.0.1 80", "trans-port"),
        ("tcp 192.168.0.1 80", "refused"),
        ("tcp 100.64.0.1 80", "refused"),
        ("tcp 169.254.1.1 80", "refused"),
        ("tcp 0.0.0.1 80", "refused"),
        ("tcp fd00::9 80", "refused"),
        ("tcp fe80::9 80", "refused"),
        ("tcp fec0::9 80", "refused"),
        # everything else
        ("udp 1.1.1.1 443", "refused"),
        ("udp 1.1.1.1 123", "refused"),
        ("udp 192.0.2.9 9", "refused"),
        ("udp 2606:4700::1111 443", "refused"),
        ("icmp 1.1.1.1", "refused"),
        ("ipv6-icmp 2606:4700::1111", "refused"),
        ("gre 1.1.1.1", "refused"),
        ("udplite 1.1.1.1", "refused"),
        ("igmp 224.0.0.22", "refused"),
        ("udp 224.0.0.251 5353", "refused"),
        ("udp ff02::fb 5353", "refused"),
        ("udp 239.255.255.250 1900", "refused"),
        ("udp 255.255.255.255 67", "refused"),
        ("udp 192.0.2.255 137", "refused"),
        ("tcp 192.0.2.255 80", "refused"),
        ("tcp 224.0.0.1 80", "refused"),
        ("tcp ff0e::1 80", "refused"),
        ("tcp 255.255.255.255 80", "refused"),
        ("tcp fd00:: 80", "refused"),
    ],
)
def test_an_ordinary_program(words: str, expected: str) -> None:
    assert outcome(ROUTED, words)[0] == expected
    assert outcome(ROUTED, words, uid=0, from_tor=True)[0] == expected  # the group is not enough


@pytest.mark.parametrize("port", sorted(NAME_PORTS))
@pytest.mark.parametrize("host", ["198.51.100.7", "2001:db8:5::7"])
def test_bypassed_networks_are_asked_for_no_names(host: str, port: int) -> None:
    assert outcome(ROUTED, f"tcp {host} {port}") == ("refused", "output")
    expected = ("dns-port", "to_tor") if port == 53 else ("refused", "output")
    assert outcome(ROUTED, f"udp {host} {port}") == expected


def test_the_name_ports_are_those_of_the_rules() -> None:
    found = re.search(r"th dport \{ ([\d, ]+) \} return\n.*icmpv6", nftables.route(ROUTED).text)
    assert found
    assert set(map(int, found[1].split(", "))) == NAME_PORTS


@pytest.mark.parametrize(
    ("words", "in_group", "elsewhere", "no_group"),
    [
        ("tcp 1.1.1.1 443", "direct", "refused", "direct"),
        ("tcp 2606:4700::1111 9001", "direct", "refused", "direct"),
        ("tcp 10.0.0.1 443", "direct", "refused", "direct"),
        ("tcp 192.0.2.255 443", "direct", "refused", "direct"),
        ("tcp 1.1.1.1 53", "direct", "refused", "direct"),
        ("tcp 198.51.100.7 443", "direct", "direct", "direct"),  # as everybody
        ("tcp 198.51.100.7 853", "direct", "refused", "direct"),
        ("tcp 127.0.0.1 80", "local", "local", "local"),
        ("tcp 127.192.0.1 80", "local", "local", "local"),
        ("tcp fd5a:7011::1 80", "local", "local", "local"),
        ("tcp fd5a:7011:: 80", "local", "refused", "local"),
        ("udp 1.1.1.1 53", "refused", "refused", "refused"),
        ("udp 127.0.0.1 53", "local", "local", "local"),
        ("udp 198.51.100.7 53", "refused", "refused", "refused"),
        ("udp 198.51.100.7 443", "direct", "direct", "direct"),
        ("udp 1.1.1.1 443", "refused", "refused", "refused"),
        ("icmp 1.1.1.1", "refused", "refused", "refused"),
    ],
)
def test_tors_account(words: str, in_group: str, elsewhere: str, no_group: str) -> None:
    assert outcome(ROUTED, words, uid=TOR, from_tor=True)[0] == in_group
    assert outcome(ROUTED, words, uid=TOR)[0] == elsewhere
    assert outcome(NO_GROUP, words, uid=TOR)[0] == no_group


@pytest.mark.parametrize(
    ("words", "source_port", "expected"),
    [
        ("udp 255.255.255.255 67", 68, "direct"),
        ("udp 192.0.2.1 67", 68, "direct"),
        ("udp 192.0.2.255 67", 68, "direct"),
        ("udp 203.0.113.1 67", 68, "refused"),  # not a neighbour
        ("udp 255.255.255.255 67", None, "refused"),
        ("udp 255.255.255.255 67", 546, "refused"),
        ("udp 255.255.255.255 547", 68, "refused"),
        ("udp ff02::1:2 547", 546, "direct"),
        ("udp fe80::1 547", 546, "direct"),
        ("udp 2001:db8::1 547", 546, "refused"),
        ("udp ff02::1:3 547", 546, "refused"),
        ("udp ff02::1:2 67", 68, "refused"),
        ("tcp 192.0.2.1 67", 68, "trans-port"),
    ],
)
def test_dhcp(words: str, source_port: int | None, expected: str) -> None:
    for uid in (0, DHCP):
        for state in get_args(State):
            blocked = "refused" if expected == "trans-port" else expected
            wanted = expected if state == "routed" else blocked
            asked = outcome(ROUTED, words, state, uid=uid, source_port=source_port)
            assert asked[0] == wanted
    if expected == "direct":
        assert outcome(ROUTED, words, uid=SOMEBODY, source_port=source_port)[0] == "refused"
        assert outcome(ROUTED, words, uid=TOR, source_port=source_port)[0] == "refused"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tcp 2606:4700::1111 443", "refused"),
        ("udp 2606:4700::1111 53", "refused"),
        ("tcp fd5a:7011::1 80", "refused"),
        ("tcp ::1 80", "refused"),
        ("tcp :: 80", "refused"),
        ("tcp fd00::2 80", "local"),
        ("tcp 2001:db8:5::7 443", "direct"),
        ("udp 2001:db8:5::7 53", "refused"),
        ("tcp 1.1.1.1 443", "trans-port"),
        ("udp 1.1.1.1 53", "dns-port"),
        ("tcp 127.0.0.1 80", "local"),
    ],
)
def test_without_ipv6_on_loopback(words: str, expected: str) -> None:
    assert outcome(NO_IPV6, words)[0] == expected


@pytest.mark.parametrize(
    ("given_policy", "words", "expected"),
    [
        (PRIVATE_VIRTUAL, "tcp 10.192.0.1 80", "trans-port"),
        (PRIVATE_VIRTUAL, "tcp 10.191.255.255 80", "refused"),
        (PRIVATE_VIRTUAL, "udp 10.192.0.1 80", "local"),
        (
            PRIVATE_VIRTUAL,
            "udp 10.255.255.255 80",
            "local",
        ),  # a route makes it no broadcast address
        (PRIVATE_VIRTUAL, "tcp 127.192.0.1 80", "local"),
        (LINK_LOCAL_BYPASSED, "tcp fe80::9 80", "direct"),
        (LINK_LOCAL_BYPASSED, "udp fe80::9 53", "refused"),
        (LINK_LOCAL_BYPASSED, "udp fe80::9 54", "direct"),
        (LINK_LOCAL_BYPASSED, "tcp fe80:0:0:1::9 80", "refused"),
        (replace(ROUTED, bypass=(net("192.0.2.0/24"),)), "udp 192.0.2.255 9", "direct"),
        (replace(ROUTED, bypass=(net("198.51.100.7/32"),)), "tcp 198.51.100.7 80", "direct"),
        (replace(ROUTED, bypass=(net("198.51.100.7/32"),)), "tcp 198.51.100.6 80", "trans-port"),
    ],
)
def test_other_policies(given_policy: Policy, words: str, expected: str) -> None:
    assert outcome(given_policy, words)[0] == expected


def test_a_kept_connection_goes_on_but_is_not_opened_again() -> None:
    kept: dict[str, Any] = {"source": addr("192.0.2.2"), "source_port": 22, "opens": False}
    for state in get_args(State):
        assert outcome(KEPT, "tcp 203.0.113.9 50000", state, **kept) == ("direct", "output")
    for change in (
        {"opens": True},
        {"source_port": 23},
        {"source": addr("192.0.2.3")},
        {"source": None},
    ):
        assert outcome(KEPT, "tcp 203.0.113.9 50000", **(kept | change))[0] == "trans-port"
    assert outcome(KEPT, "tcp 203.0.113.9 50001", **kept)[0] == "trans-port"
    assert outcome(KEPT, "tcp 203.0.113.8 50000", **kept)[0] == "trans-port"
    assert outcome(KEPT, "udp 203.0.113.9 50000", **kept)[0] == "refused"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tcp 1.1.1.1 443", "refused"),
        ("udp 1.1.1.1 53", "refused"),
        ("tcp 198.51.100.7 443", "refused"),
        ("icmp 2001:db8:5::7", "refused"),
        ("tcp 127.0.0.1 80", "local"),
        ("udp 127.0.0.53 53", "local"),
        ("tcp 127.192.0.1 80", "local"),
        ("tcp fd5a:7011::1 80", "local"),
    ],
)
def test_blocked(words: str, expected: str) -> None:
    assert outcome(ROUTED, words, "blocked")[0] == expected


def test_tor_is_not_blocked() -> None:
    assert outcome(ROUTED, "tcp 1.1.1.1 9001", "blocked", uid=TOR, from_tor=True)[0] == "direct"
    assert outcome(ROUTED, "tcp 1.1.1.1 9001", "blocked", uid=TOR)[0] == "refused"
    assert outcome(ROUTED, "udp 1.1.1.1 53", "blocked", uid=TOR, from_tor=True)[0] == "refused"


def test_broadcast_addresses_are_those_of_the_interfaces() -> None:
    attached = (net("192.0.2.0/24"), net("192.0.3.0/24"), net("192.0.4.0/31"), net("192.0.4.2/31"))
    facts = replace(FACTS, links=(ETH0._replace(networks=attached),))
    merged = policy(facts=facts)
    assert merged.link[:2] == (net("192.0.2.0/23"), net("192.0.4.0/30"))

    def asked(words: str, networks: tuple[Network, ...]) -> str:
        return explain(merged, packet(words), attached=networks).outcome

    assert asked("tcp 192.0.2.255 80", attached) == "refused"
    assert asked("tcp 192.0.3.255 80", attached) == "refused"
    assert asked("tcp 192.0.4.3 80", attached) == "trans-port"
    assert asked("tcp 192.0.2.255 80", ()) == "trans-port", "all that the policy can tell"


@pytest.mark.parametrize(
    ("words", "changes", "expected"),
    [
        ("tcp 1.1.1.1 443", {}, "through Tor: TCP goes through Tor (chain to_tor, r"),
        ("udp 1.1.1.1 53", {}, "to tor's resolver: a name query goes to Tor wherever it is addr"),
        ("tcp fd5a:7011::1 80", {}, "fd5a:7011::/32 is where .onion names are mapped (chain to"),
        ("tcp 192.0.2.2 22", {}, "stays on this machine: the address belongs to this machine"),
        ("tcp 198.51.100.7 80", {}, "directly: in clear, because 198.51.100.0/24 is bypassed (ch"),
        ("tcp 1.1.1.1 443", {"uid": TOR, "from_tor": True}, "leaves directly: it is tor itself"),
        ("tcp 1.1.1.1 443", {"uid": TOR}, "tor's, but the program is not tor; the program gets a"),
        ("udp 1.1.1.1 53", {"uid": TOR}, "tor's account may speak TCP only"),
        (
            "tcp 10.0.0.1 80",
            {},
            "private addresses, and it is not bypassed; the program gets a TCP",
        ),
        ("tcp fe80::9 80", {}, "cannot reach link-local addresses"),
        ("udp fe80::9 53", {}, "cannot reach link-local addresses"),
        ("udp 198.51.100.7 853", {}, "198.51.100.0/24 is bypassed, but never for name resolution"),
        ("gre 198.51.100.7", {}, "198.51.100.0/24 is bypassed, but only for TCP, UDP and ICMP"),
        ("udp ff02::fb 5353", {}, 'broadcast and multicast do not leave; the program gets "oper'),
        ("tcp 192.0.2.255 80", {}, 'multicast do not leave; the program gets "network is unreach'),
        ("tcp fd00:: 80", {}, "private addresses"),
        ("udp 1.1.1.1 443", {}, 'carries TCP and names only; the program gets "operation not per'),
    ],
)
def test_words(words: str, changes: dict[str, object], expected: str) -> None:
    given_packet = packet(words, **changes)
    verdict = explain(ROUTED, given_packet, ETH0.addresses, attached=ETH0.networks)
    assert expected in verdict.words()


@pytest.mark.parametrize(
    ("given_policy", "words", "state", "expected"),
    [
        (NO_IPV6, "tcp 2606:4700::1111 443", "routed", "over IPv6, because loopback has none (ch"),
        (NO_IPV6, "udp fd5a:7011::1 80", "routed", "cannot be reached over IPv6, because loopback"),
        (ROUTED, "tcp 1.1.1.1 443", "blocked", "nothing but tor leaves until tor is ready; the"),
        (ROUTED, "tcp 198.51.100.7 443", "blocked", "198.51.100.0/24 is bypassed only when tor is"),
        (
            replace(ROUTED, link=(net("2001:db8:9::/64"),)),
            "tcp 2001:db8:9:: 443",
            "routed",
            "the address stands for any router of the link (anycast); the program gets a TCP reset",
        ),
    ],
)
def test_words_of_other_policies(
    given_policy: Policy, words: str, state: State, expected: str
) -> None:
    assert expected in explain(given_policy, packet(words), state=state).words()


def test_words_without_control_groups() -> None:
    words = explain(NO_GROUP, packet("tcp 1.1.1.1 443", uid=TOR)).words()
    assert "without control groups all its programs count as tor" in words
