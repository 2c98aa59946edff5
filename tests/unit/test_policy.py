"""A configuration on a machine becomes a policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.config import parse
from onionward.describe import describe
from onionward.facts import Link
from onionward.networks import Network, contains
from onionward.policy import EXAMPLE_STAMP, ControlGroup, derive
from tests.support import ETH0, FACTS, addr, flow, net, policy
from tests.unit.test_networks import NETWORKS


def test_derive_takes_everything_from_its_arguments() -> None:
    wlan = Link("wlan0", (addr("192.0.3.2"),), (net("192.0.3.0/24"), net("127.5.0.0/16")))
    facts = replace(FACTS, links=(wlan, ETH0), ipv6=False, dhcp_uids=(0,))
    kept = (flow("fe80::1", 1, "fe80::2", 22), flow("192.0.2.9", 2, "192.0.2.2", 22))
    derived = derive(
        parse(
            "[host]\ninbound='bypass'\n[tor]\ntrans_port=9040\ndns_port=9053\n"
            "virtual_networks=['10.192.0.0/10', 'fd12::/32']\n"
            "[bypass]\nnetworks=['2001:db8::/48','10.0.0.0/24','10.0.1.0/24','10.0.0.0/25']",
            "o",
        ),
        facts,
        tor_uid=7,
        tor_cgroup=ControlGroup("x", 1),
        kept=kept,
        stamp=9,
    )
    assert (derived.tor_uid, derived.tor_cgroup, derived.stamp) == (7, ControlGroup("x", 1), 9)
    assert (derived.trans_port, derived.dns_port) == (9040, 9053)
    assert (derived.virtual4, derived.virtual6) == (net("10.192.0.0/10"), net("fd12::/32"))
    assert derived.bypass == (net("10.0.0.0/23"), net("2001:db8::/48"))
    # neighbours: merged, never loopback, always IPv6 link-local
    assert derived.link == (net("192.0.2.0/23"), net("fd00::/64"), net("fe80::/10"))
    assert derived.devices == ("eth0", "wlan0")
    assert derived.kept == (kept[1], kept[0])
    assert derived.inbound == "bypass"
    assert derived.dhcp_uids == (0,)
    assert derived.ephemeral_ports == FACTS.ephemeral_ports
    assert derived.ipv6 is False


def test_the_stamp_shown_is_an_example() -> None:
    assert policy().stamp == EXAMPLE_STAMP


def test_a_machine_without_interfaces() -> None:
    derived = policy(facts=replace(FACTS, links=()))
    assert derived.devices == ()
    assert derived.link == (net("fe80::/10"),)


def test_the_order_of_interfaces_changes_nothing() -> None:
    other = Link("a0", (), (net("192.0.9.0/24"),))
    assert policy(facts=replace(FACTS, links=(ETH0, other))) == policy(
        facts=replace(FACTS, links=(other, ETH0))
    )


@pytest.mark.parametrize(
    ("inbound", "admitted"),
    [
        ("none", []),
        ("bypass", ["198.51.100.7", "2001:db8:5::7"]),
        ("link", ["198.51.100.7", "2001:db8:5::7", "192.0.2.9", "fd00::9", "fe80::9"]),
        (
            "all",
            ["198.51.100.7", "2001:db8:5::7", "192.0.2.9", "fd00::9", "fe80::9", "9.9.9.9", "2::1"],
        ),
    ],
)
def test_who_may_open_connections(inbound: str, admitted: list[str]) -> None:
    derived = policy(
        f"[host]\ninbound='{inbound}'\n[bypass]\nnetworks=['198.51.100.0/24', '2001:db8:5::/48']"
    )
    peers = ["198.51.100.7", "2001:db8:5::7", "192.0.2.9", "fd00::9", "fe80::9", "9.9.9.9", "2::1"]
    assert [peer for peer in peers if derived.admits_inbound(addr(peer))] == admitted


@given(st.lists(NETWORKS, max_size=5), st.lists(NETWORKS, max_size=5), NETWORKS)
def test_admission_follows_the_networks(
    bypass: list[Network], link: list[Network], asked: Network
) -> None:
    base = policy(bypass=tuple(bypass), link=tuple(link))
    for peer in (asked[0], asked[-1]):
        assert not replace(base, inbound="none").admits_inbound(peer)
        assert replace(base, inbound="all").admits_inbound(peer)
        assert replace(base, inbound="bypass").admits_inbound(peer) == contains(bypass, peer)
        assert replace(base, inbound="link").admits_inbound(peer) == contains(
            [*bypass, *link], peer
        )


def test_it_describes_itself() -> None:
    words = describe(policy("[bypass]\nnetworks=['198.51.100.0/24']"))
    for expected in (
        "TCP to loopback port 940, names to loopback port 941",
        "127.192.0.0/10 and fd5a:7011::/32",
        "tor: account 947, control group onionward-test; TCP only",
        "bypass: 198.51.100.0/24 (never for name resolution)",
        "inbound: link (answers to 192.0.2.0/24, fd00::/64, fe80::/10, 198.51.100.0/24)",
        "interfaces watched below IP: eth0",
        "DHCP of account 0, account 101",
    ):
        assert expected in words
    assert "kept" not in words
    assert "bypass: none\n" in describe(policy())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inbound": "none"}, "inbound: none (this machine answers nobody)"),
        ({"inbound": "all"}, "answers everybody who asks, in clear"),
        ({"inbound": "bypass"}, "inbound: bypass (answers to nobody)"),
        ({"devices": ()}, "interfaces watched below IP: none"),
        ({"tor_cgroup": None}, "tor: account 947; TCP only"),
        ({"kept": (flow("192.0.2.9", 5, "192.0.2.2", 22),)}, "from 192.0.2.9 port 5"),
    ],
)
def test_it_describes_what_is_different(changes: dict[str, Any], expected: str) -> None:
    assert expected in describe(policy(**changes))
