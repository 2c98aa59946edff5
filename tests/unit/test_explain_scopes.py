"""What becomes of packets of accounts, of clients, and for names under .onion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onionward.explain import Packet, State, Verdict, explain
from onionward.policy import Endpoint, Policy, User
from onionward.render import nftables
from onionward.rules import Rule
from tests.support import addr, flow
from tests.unit.scopes import ALICE, BOB, CAROL, ETH1, GATEWAY, IN_CONTAINER, LAN, USERS, gateway
from tests.unit.test_explain import DHCP, SOMEBODY, TOR, packet
from tests.unit.test_render import comments

PAUSED = User("bob", ((BOB, BOB),))
USER = gateway(USERS)
BRIDGED = replace(USER, reach=(Endpoint(addr("1.1.1.2"), 443),))
ONION = gateway("onion = true")
ONION_USER = gateway("onion = true\n" + USERS)
GATE = gateway(LAN)
GATE_HOST = gateway("[host]\n[bypass]\nnetworks = ['198.51.100.0/24']\n" + LAN + USERS)
BYPASSED = gateway("[host]\n[[user]]\nname = 'carol'\nroute = 'direct'\n" + USERS)


def judged(policy: Policy, asked: Packet, state: State = "routed") -> Verdict:
    networks = [n for link in GATEWAY.links for n in link.networks]
    verdict = explain(policy, asked, GATEWAY.addresses, attached=networks, state=state)
    ruleset = nftables.route(policy) if state == "routed" else nftables.block(policy)
    assert verdict.rule in comments(ruleset)[verdict.chain], verdict
    return verdict


def client(words: str, source: str, **changes: Any) -> Packet:
    return packet(words, source=addr(source), interface="eth1", **changes)


@pytest.mark.parametrize(
    ("words", "routed", "blocked"),
    [
        ("tcp 1.1.1.1 443", "trans-port", "refused"),
        ("tcp 2606:4700::1111 443", "trans-port", "refused"),
        ("tcp 1.1.1.1 53", "trans-port", "refused"),
        ("tcp 127.192.0.1 80", "trans-port", "local"),
        ("tcp fd5a:7011::1 80", "trans-port", "local"),
        ("udp 1.1.1.1 53", "dns-port", "refused"),
        ("udp 127.0.0.53 53", "dns-port", "refused"),
        ("udp fe80::1 53", "refused", "refused"),
        ("tcp 127.0.0.53 53", "refused", "refused"),
        ("tcp 127.0.0.1 853", "refused", "refused"),
        ("udp 127.0.0.1 5353", "refused", "refused"),
        ("udp 224.0.0.251 5353", "refused", "refused"),
        ("tcp 127.0.0.1 80", "local", "local"),
        ("tcp 192.0.2.2 80", "local", "local"),
        ("udp 198.18.8.1 9", "local", "local"),
        ("icmp 127.0.0.1", "local", "local"),
        ("tcp 10.0.0.1 80", "refused", "refused"),
        ("tcp 192.0.2.9 80", "trans-port", "refused"),
        ("udp 1.1.1.1 443", "refused", "refused"),
        ("icmp 1.1.1.1", "refused", "refused"),
        ("gre 2606:4700::1111", "refused", "refused"),
        ("udp 255.255.255.255 67", "refused", "refused"),
        ("tcp fe80::9 80", "refused", "refused"),
    ],
)
@pytest.mark.parametrize("uid", [ALICE, BOB, IN_CONTAINER])
def test_a_routed_account(words: str, routed: str, blocked: str, uid: int) -> None:
    assert judged(USER, packet(words, uid=uid)).outcome == routed
    assert judged(USER, packet(words, uid=uid), "blocked").outcome == blocked


@pytest.mark.parametrize("words", ["tcp 1.1.1.1 443", "udp 1.1.1.1 53", "icmp ::2", "gre 1.1.1.1"])
@pytest.mark.parametrize("uid", [0, SOMEBODY, CAROL, DHCP, TOR, 165_536])
@pytest.mark.parametrize("policy", [USER, GATE, ONION])
def test_others_are_untouched(policy: Policy, words: str, uid: int) -> None:
    for state in ("routed", "blocked"):
        verdict = judged(policy, packet(words, uid=uid), state)
        assert (verdict.outcome, verdict.rule) == ("direct", Rule.UNROUTED)


def test_onion_addresses_are_nothing_for_others() -> None:
    without_ipv6 = replace(USER, ipv6=False)
    assert judged(USER, packet("tcp fd5a:7011::1 80")).outcome == "local"
    assert judged(without_ipv6, packet("tcp fd5a:7011::1 80")).outcome == "dropped"
    assert judged(USER, packet("tcp 127.192.0.1 80")).outcome == "local"


@pytest.mark.parametrize(
    ("words", "changes", "routed", "blocked"),
    [
        ("udp 1.1.1.1 53", {"onion_name": True}, "dns-port", "refused"),
        ("udp 127.0.0.53 53", {"onion_name": True}, "dns-port", "refused"),
        ("udp 192.168.1.1 53", {"onion_name": True}, "dns-port", "refused"),
        ("udp fe80::1 53", {"onion_name": True}, "refused", "refused"),
        ("udp 1.1.1.1 53", {"onion_name": True, "uid": TOR}, "refused", "refused"),
        ("udp 1.1.1.1 53", {}, "direct", "direct"),
        ("udp 127.0.0.53 53", {}, "local", "local"),
        ("udp 1.1.1.1 54", {"onion_name": True}, "direct", "direct"),
        ("tcp 127.192.0.1 80", {}, "trans-port", "refused"),
        ("tcp 127.192.0.1 53", {}, "trans-port", "refused"),
        ("tcp fd5a:7011::1 80", {}, "trans-port", "refused"),
        ("udp 127.192.0.1 80", {}, "refused", "refused"),
        ("ipv6-icmp fd5a:7011::1", {}, "refused", "refused"),
        ("tcp 1.1.1.1 443", {}, "direct", "direct"),
        ("tcp 127.0.0.1 443", {}, "local", "local"),
    ],
)
def test_onion_names(words: str, changes: dict[str, Any], routed: str, blocked: str) -> None:
    asked = packet(words, **changes)
    assert judged(ONION, asked).outcome == routed
    assert judged(ONION, asked, "blocked").outcome == blocked
    if asked.uid != TOR and routed != "direct" and "53" not in words:
        assert judged(ONION_USER, replace(asked, uid=BOB)).outcome == routed


def test_onion_names_without_ipv6() -> None:
    without = replace(ONION, ipv6=False)
    assert judged(without, packet("udp 2606:4700::1111 53", onion_name=True)).outcome == "refused"
    assert judged(without, packet("udp 1.1.1.1 53", onion_name=True)).outcome == "dns-port"


@pytest.mark.parametrize(
    ("words", "uid", "outcome"),
    [
        ("tcp 1.1.1.1 443", CAROL, "direct"),
        ("udp 1.1.1.1 53", CAROL, "direct"),
        ("icmp 1.1.1.1", CAROL, "direct"),
        ("gre 10.0.0.1", CAROL, "direct"),
        ("udp 224.0.0.251 5353", CAROL, "direct"),
        ("tcp fe80::1 80", CAROL, "direct"),
        ("tcp 127.192.0.1 80", CAROL, "trans-port"),
        ("udp 127.0.0.53 53", CAROL, "dns-port"),
        ("tcp 127.0.0.1 80", CAROL, "local"),
        ("udp 127.255.255.255 9", CAROL, "refused"),
        ("tcp 1.1.1.1 443", ALICE, "trans-port"),
        ("udp 1.1.1.1 53", IN_CONTAINER, "dns-port"),
        ("udp 1.1.1.1 443", ALICE, "refused"),
        ("tcp 1.1.1.1 443", SOMEBODY, "trans-port"),
    ],
)
def test_a_bypassed_account_of_a_routed_host(words: str, uid: int, outcome: str) -> None:
    asked = packet(words, uid=uid)
    assert judged(BYPASSED, asked).outcome == outcome
    if outcome == "direct":
        assert "IN CLEAR" in judged(BYPASSED, asked).words()
        assert judged(BYPASSED, asked, "blocked").outcome == "direct"


def test_a_bypassed_account_sends_nothing_in_clear_to_onion_addresses() -> None:
    without = replace(BYPASSED, ipv6=False)
    assert judged(without, packet("tcp fd5a:7011::1 80", uid=CAROL)).outcome == "refused"
    assert judged(without, packet("udp fd5a:7011::1 80", uid=CAROL)).outcome == "refused"


@pytest.mark.parametrize(
    ("words", "routed", "blocked"),
    [
        ("tcp 1.1.1.1 443", "trans-port", "refused"),
        ("tcp 1.1.1.1 853", "trans-port", "refused"),
        ("tcp 240.0.0.1 80", "trans-port", "refused"),
        ("tcp 10.192.0.5 80", "trans-port", "refused"),
        ("udp 1.1.1.1 53", "dns-port", "refused"),
        ("udp 192.168.1.1 53", "dns-port", "refused"),
        ("udp 198.18.8.1 53", "dns-port", "refused"),
        ("udp 10.192.0.5 53", "dns-port", "refused"),
        ("tcp 198.18.8.1 53", "refused", "refused"),
        ("tcp 198.18.8.1 22", "local", "local"),
        ("tcp 198.18.8.1 80", "refused", "refused"),
        ("udp 198.18.8.1 22", "refused", "refused"),
        ("icmp 198.18.8.1", "local", "local"),
        ("tcp 198.18.8.77 80", "trans-port", "refused"),
        ("udp 198.18.8.77 80", "refused", "refused"),
        ("udp 10.192.0.5 22", "refused", "refused"),
        ("icmp 10.192.0.5", "refused", "refused"),
        ("tcp 10.0.0.1 80", "refused", "refused"),
        ("tcp 0.0.0.1 80", "refused", "refused"),
        ("udp 1.1.1.1 443", "refused", "refused"),
        ("icmp 1.1.1.1", "refused", "refused"),
        ("gre 1.1.1.1", "refused", "refused"),
        ("sctp 198.18.8.1", "refused", "refused"),
        # addresses of the machine that are none of this interface
        ("tcp 192.0.2.2 22", "dropped", "dropped"),
        ("udp 192.0.2.2 53", "dropped", "dropped"),
        ("tcp 127.0.0.1 22", "dropped", "dropped"),
        ("udp 127.0.0.1 53", "dropped", "dropped"),
        ("tcp 169.254.94.8 940", "dropped", "dropped"),
        ("udp 169.254.94.8 941", "dropped", "dropped"),
        ("tcp 0.0.0.0 22", "dropped", "dropped"),
        # many
        ("udp 255.255.255.255 53", "dropped", "dropped"),
        ("udp 198.18.8.255 137", "dropped", "dropped"),
        ("udp 192.0.2.255 67", "dropped", "dropped"),
        ("udp 224.0.0.251 5353", "dropped", "dropped"),
        ("tcp 224.0.0.1 80", "dropped", "dropped"),
    ],
)
@pytest.mark.parametrize("policy", [GATE, GATE_HOST])
def test_a_client(policy: Policy, words: str, routed: str, blocked: str) -> None:
    asked = client(words, "198.18.8.77")
    assert judged(policy, asked).outcome == routed
    assert judged(policy, asked, "blocked").outcome == blocked
    # whoever the client is on its own machine
    assert judged(policy, replace(asked, uid=TOR)).outcome == routed


@pytest.mark.parametrize("source", ["2001:db8:8::9", "fe80::c"])
@pytest.mark.parametrize(
    ("words", "outcome", "without_ipv6"),
    [
        ("tcp 2606:4700::1111 443", "trans-port", "refused"),
        ("udp 2606:4700::1111 53", "dns-port", "refused"),
        ("udp fe80::8 53", "dns-port", "refused"),
        ("udp 2001:db8:8::1 53", "dns-port", "refused"),
        ("tcp fd5a:7011::5 80", "trans-port", "refused"),
        ("udp fd5a:7011::5 80", "refused", "refused"),
        ("tcp fe80::8 22", "local", "local"),
        ("ipv6-icmp 2001:db8:8::1", "local", "local"),
        ("tcp 2001:db8:8::1 80", "refused", "refused"),
        ("tcp fd00::1 80", "refused", "refused"),
        ("ipv6-icmp 2606:4700::1111", "refused", "refused"),
        ("tcp fe80::99 80", "refused", "refused"),
        # an address of another link is a neighbour's here
        ("tcp fe80::fc:ff:fe00:1 80", "refused", "refused"),
        ("tcp fd00::2 22", "dropped", "dropped"),
        ("tcp fd5a:7010::8 940", "dropped", "refused"),
        ("tcp :: 80", "dropped", "dropped"),
        ("udp ::1 53", "dropped", "dropped"),
        ("tcp ff02::1 80", "dropped", "dropped"),
        ("tcp 2001:db8:8:: 80", "dropped", "dropped"),
        ("udp ff02::fb 5353", "dropped", "dropped"),
    ],
)
def test_a_client_with_ipv6(words: str, outcome: str, without_ipv6: str, source: str) -> None:
    assert judged(GATE, client(words, source)).outcome == outcome
    without = replace(GATE, ipv6=False)
    assert judged(without, client(words, source)).outcome == without_ipv6


@pytest.mark.parametrize(
    ("source", "is_believed"),
    [
        ("198.18.8.77", True),
        ("198.18.8.254", True),
        ("198.18.9.1", False),
        ("1.1.1.1", False),
        ("192.0.2.9", False),  # of the uplink's network
        ("198.18.8.1", False),  # the machine itself
        ("192.0.2.2", False),
        ("127.0.0.1", False),
        ("169.254.94.8", False),
        ("0.0.0.0", False),  # noqa: S104
        ("198.18.8.255", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("10.192.0.5", False),
        ("2001:db8:8::9", True),
        ("fe80::c", True),
        ("fe80::fc:ff:fe00:1", True),  # the uplink's, which may be a client's here
        ("fe80:0:0:1::c", False),
        ("fe80::8", False),
        ("2001:db8:8::1", False),
        ("2001:db8:8::", False),
        ("2001:db8:9::9", False),
        ("::", False),
        ("::1", False),
        ("fd5a:7010::8", False),
        ("ff02::1", False),
    ],
)
def test_sources_of_clients(source: str, is_believed: bool) -> None:
    words = "tcp 1.1.1.1 443" if "." in source else "tcp 2606:4700::1111 443"
    verdict = judged(GATE, client(words, source))
    assert verdict.outcome == ("trans-port" if is_believed else "dropped")
    if not is_believed:
        assert (verdict.chain, verdict.rule) == ("client_sources", Rule.CLIENT_SPOOFED)


@pytest.mark.parametrize(
    ("words", "source_port", "source", "outcome"),
    [
        ("udp 255.255.255.255 67", 68, "0.0.0.0", "local"),  # noqa: S104
        ("udp 198.18.8.255 67", 68, "198.18.8.77", "local"),
        ("udp 198.18.8.1 67", 68, "198.18.8.77", "local"),
        ("udp 198.18.8.1 67", 68, "0.0.0.0", "dropped"),  # noqa: S104
        ("udp 192.0.2.255 67", 68, "198.18.8.77", "dropped"),
        ("udp 224.0.0.1 67", 68, "198.18.8.77", "dropped"),
        ("udp 10.192.0.5 67", 68, "198.18.8.77", "refused"),
        ("udp 1.1.1.1 67", 68, "198.18.8.77", "refused"),
        ("udp 255.255.255.255 67", 67, "198.18.8.77", "dropped"),
        ("udp 198.18.8.1 67", 69, "198.18.8.77", "refused"),
        ("udp ff02::1:2 547", 546, "fe80::c", "local"),
        ("udp fe80::8 547", 546, "fe80::c", "local"),
        ("udp ff02::1:2 547", 546, "2001:db8:8::9", "dropped"),
        ("udp ff02::1:3 547", 546, "fe80::c", "dropped"),
        ("udp 2001:db8:8::1 547", 546, "fe80::c", "refused"),
        ("udp fe80::8 67", 68, "fe80::c", "refused"),
    ],
)
def test_dhcp_of_clients(words: str, source_port: int, source: str, outcome: str) -> None:
    asked = client(words, source, source_port=source_port)
    for policy in (GATE, GATE_HOST):
        assert judged(policy, asked).outcome == outcome
        assert judged(policy, asked, "blocked").outcome == outcome
    without = gateway(LAN + "services = []")
    assert judged(without, asked).outcome == outcome.replace(
        "local", "refused" if asked.destination in ETH1.addresses else "dropped"
    )


def test_only_the_opening_packet_and_the_echo_reach_a_service() -> None:
    assert judged(GATE, client("tcp 198.18.8.1 22", "198.18.8.77", opens=False)).outcome == (
        "refused"
    )
    assert judged(GATE, client("icmp 198.18.8.1", "198.18.8.77", is_echo=False)).outcome == (
        "refused"
    )


def test_services_are_those_of_the_interface() -> None:
    policy = gateway(LAN + "services = ['tcp/8080', 'udp/69']")
    assert judged(policy, client("tcp 198.18.8.1 8080", "198.18.8.77")).outcome == "local"
    assert judged(policy, client("udp 198.18.8.1 69", "198.18.8.77")).outcome == "local"
    assert judged(policy, client("tcp 198.18.8.1 22", "198.18.8.77")).outcome == "refused"
    assert judged(policy, client("tcp 198.18.8.1 69", "198.18.8.77")).outcome == "refused"
    assert judged(policy, client("icmp 198.18.8.1", "198.18.8.77")).outcome == "refused"


def test_the_lan_does_not_change_what_the_machine_sends() -> None:
    for words in ("tcp 198.18.8.77 80", "udp 1.1.1.1 53", "icmp 198.18.8.77"):
        assert judged(GATE, packet(words)).outcome == "direct"
        assert judged(GATE_HOST, packet(words)).outcome != "direct"


@pytest.mark.parametrize(
    ("policy", "asked", "expected"),
    [
        (USER, packet("tcp 10.0.0.1 80", uid=BOB), "bob is routed, and Tor cannot reach private"),
        (USER, packet("tcp 127.0.0.1 53", uid=BOB), "bob's names are resolved by Tor and nobody e"),
        (USER, packet("tcp 1.1.1.1 443"), "in clear, because this account is not routed and nei"),
        (USER, packet("tcp 1.1.1.1 443", uid=TOR), "the account is tor's, and this host is not r"),
        (BRIDGED, packet("tcp 1.1.1.1 443", uid=TOR, from_tor=True), "its bridges or relays only"),
        (BRIDGED, packet("udp 1.1.1.2 443", uid=TOR), "its bridges or relays only"),
        (BRIDGED, packet("tcp 1.1.1.2 443", uid=TOR), "the account is tor's, and this host is not"),
        (
            ONION,
            packet("udp fe80::1 53", onion_name=True),
            "no resolver but Tor's is asked",
        ),
        (ONION, packet("udp 127.192.0.1 9"), "is where .onion names are mapped, and Tor carries T"),
        (GATE, client("tcp 1.1.1.1 1", "1.2.3.4"), "1.2.3.4 is no client behind eth1"),
        (
            GATE,
            client("tcp 192.0.2.2 1", "198.18.8.9"),
            "an address of this machine, but not of",
        ),
        (GATE, client("tcp 0.0.0.0 1", "198.18.8.9"), "0.0.0.0 is nobody's address"),
        (
            GATE,
            client("tcp 198.18.8.1 80", "198.18.8.9"),
            "only what `services` names; the",
        ),
        (
            GATE,
            client("tcp 10.0.0.1 80", "198.18.8.9"),
            "private addresses, and nothing is forwarded",
        ),
        (GATE, client("tcp 10.0.0.1 80", "198.18.8.9"), "the client gets a TCP reset"),
        (GATE, client("udp 1.1.1.1 9", "198.18.8.9"), 'gets an ICMP "administratively prohibited"'),
        (GATE, client("tcp fd00::1 9", "fe80::c"), 'gets an ICMP "administratively prohibited"'),
        (GATE, client("udp 10.192.0.9 9", "198.18.8.9"), "Tor carries TCP only"),
    ],
)
def test_words(policy: Policy, asked: Packet, expected: str) -> None:
    assert expected in judged(policy, asked).words()


def test_every_rule_that_is_quoted_decides_something() -> None:
    """Each comment is the answer to some packet; `judged` finds it in the ruleset."""
    kept = replace(GATE_HOST, kept=(flow("203.0.113.9", 50000, "192.0.2.2", 22),))
    going_on: dict[str, Any] = {"source": addr("192.0.2.2"), "source_port": 22, "opens": False}
    without_ipv6 = replace(USER, ipv6=False)
    bridged = replace(GATE_HOST, reach=(Endpoint(addr("198.51.100.7"), 443),))
    verdicts = [
        judged(GATE_HOST, packet("tcp 10.192.0.1 80")),
        judged(ONION, packet("udp 1.1.1.1 53", onion_name=True)),
        judged(ONION, packet("udp fe80::1 53", onion_name=True)),
        judged(replace(GATE_HOST, paused=(PAUSED,)), packet("udp 1.1.1.1 53", uid=BOB)),
        judged(GATE_HOST, packet("udp 1.1.1.1 53")),
        judged(replace(GATE_HOST, names_port=942), packet("udp 1.1.1.1 53")),
        judged(GATE_HOST, packet("tcp 1.1.1.1 80")),
        judged(GATE_HOST, packet("tcp 127.0.0.1 80")),
        judged(kept, packet("tcp 203.0.113.9 50000", **going_on)),
        judged(GATE_HOST, packet("tcp 1.1.1.1 80", uid=TOR, from_tor=True)),
        judged(bridged, packet("tcp 1.1.1.1 80", uid=TOR, from_tor=True)),
        judged(GATE_HOST, packet("udp 255.255.255.255 67", uid=0, source_port=68)),
        judged(GATE_HOST, packet("tcp 198.51.100.1 80")),
        judged(BYPASSED, packet("tcp 1.1.1.1 80", uid=CAROL)),
        judged(USER, packet("tcp 1.1.1.1 80")),
        judged(GATE_HOST, packet("udp 1.1.1.1 80")),
        judged(USER, packet("tcp 127.0.0.1 53", uid=BOB)),
        judged(USER, packet("tcp 127.0.0.1 631", uid=BOB)),
        judged(USER, packet("udp 1.1.1.1 80", uid=BOB)),
        judged(without_ipv6, packet("tcp fd5a:7011::1 80")),
        judged(GATE, client("tcp 1.1.1.1 80", "1.2.3.4")),
        judged(GATE, client("tcp 192.0.2.2 80", "198.18.8.9")),
        judged(GATE, client("udp 169.254.96.7 53", "198.18.8.9")),
        judged(GATE, client("udp 1.1.1.1 80", "198.18.8.9")),
        judged(GATE, client("tcp 198.18.8.1 22", "198.18.8.9")),
        judged(GATE, client("udp 198.18.8.1 67", "198.18.8.9", source_port=68)),
        judged(GATE, client("udp 255.255.255.255 9", "198.18.8.9")),
        judged(GATE, replace(client("udp 198.18.8.9 9", "198.18.9.2"), interface="br0")),
    ]
    assert {verdict.rule for verdict in verdicts} == set(Rule)
