"""Texts that are rendered from a policy: what must and must not be in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.networks import Network, of_version
from onionward.paths import Paths
from onionward.policy import Flow, Lan, Policy
from onionward.render import nftables
from onionward.render.nftables import MARK_REDIRECTED, Ruleset, block, lock, route
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import torrc
from onionward.tables import remove
from tests.support import flow, policy
from tests.unit.test_networks import NETWORKS

NAME_PORTS = ("53", "853", "137", "5353", "5355", "1900")

FLOWS = st.builds(
    lambda v4, n, p, q: (
        flow(f"192.0.2.{n}", p, "192.0.2.2", q) if v4 else flow(f"fe80::{n:x}", p, "fe80::2", q)
    ),
    st.booleans(),
    st.integers(3, 200),
    st.integers(1, 65535),
    st.integers(1, 65535),
)
NAMES = st.from_regex(r"\A[a-z][a-z0-9.@_-]{0,14}\Z")


def merged(networks: list[Network]) -> tuple[Network, ...]:
    return (*of_version(networks, 4), *of_version(networks, 6))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    base = policy()
    return replace(
        base,
        tor_uid=draw(st.integers(1, 2**32 - 2)),
        tor_cgroup=draw(st.sampled_from([None, base.tor_cgroup])),
        bypass=merged(draw(st.lists(NETWORKS, max_size=4))),
        link=merged(draw(st.lists(NETWORKS, max_size=4))),
        inbound=draw(st.sampled_from(["none", "bypass", "link", "all"])),
        kept=tuple(draw(st.lists(FLOWS, max_size=3, unique=True))),
        devices=tuple(sorted(draw(st.lists(NAMES, max_size=3, unique=True)))),
        dhcp_uids=tuple(draw(st.lists(st.integers(0, 2**32 - 2), min_size=1, max_size=3))),
        ipv6=draw(st.booleans()),
        stamp=draw(st.integers(1, 2**32 - 1)),
    )


def table(ruleset: Ruleset, name: str) -> str:
    found = re.search(rf"^table \w+ {name} \{{\n(.*?)^\}}", ruleset.text, re.M | re.S)
    assert found
    return found[1]


def chains(ruleset: Ruleset, name: str) -> dict[str, list[str]]:
    """Rules of each chain of a table, the hook line and the comments left out."""
    found = {}
    for chain, body in re.findall(
        r"^\tchain (\w+) \{\n(.*?)^\t\}", table(ruleset, name), re.M | re.S
    ):
        lines = [re.sub(r' comment "[^"]*"$', "", line.strip()) for line in body.splitlines()]
        found[chain] = [line for line in lines if not line.startswith("type ")]
    return found


def comments(ruleset: Ruleset) -> dict[str, set[str]]:
    """Comments of the rules of each chain."""
    found = re.findall(r"^\tchain (\w+) \{\n(.*?)^\t\}", ruleset.text, re.M | re.S)
    return {chain: set(re.findall(r' comment "([^"]*)"$', body, re.M)) for chain, body in found}


def elements(ruleset: Ruleset, name: str) -> list[str]:
    found = re.search(rf"^\tset {name} \{{\n(.*?)^\t\}}", ruleset.text, re.M | re.S)
    assert found
    listed = re.search(r"elements = \{(.*?)\}", found[1], re.S)
    return [element.strip() for element in listed[1].split(",")] if listed else []


@given(policies())
def test_the_number_of_rules_is_that_of_the_text(given_policy: Policy) -> None:
    for ruleset in (block(given_policy), route(given_policy)):
        counted = [
            (name, chain, len(rules))
            for name in ("onionward", "onionward_l2")
            for chain, rules in chains(ruleset, name).items()
        ]
        assert counted == list(ruleset.chains)


@given(policies())
def test_the_sets_hold_exactly_the_networks_of_the_policy(given_policy: Policy) -> None:
    for ruleset in (block(given_policy), route(given_policy)):
        for name in ("bypass", "link", "unroutable"):
            for version in (4, 6):
                expected = of_version(getattr(given_policy, name), version)
                assert elements(ruleset, f"{name}{version}") == [str(n) for n in expected]
        for version in (4, 6):
            assert elements(ruleset, f"kept{version}") == [
                f"{f.peer} . {f.peer_port} . {f.local} . {f.local_port}"
                for f in given_policy.kept
                if f.peer.version == version
            ]
        accounts = sorted(set(given_policy.dhcp_uids))
        assert elements(ruleset, "dhcp_accounts") == [str(uid) for uid in accounts]


@given(policies())
def test_a_block_neither_redirects_nor_lets_bypassed_networks_be_reached(
    given_policy: Policy,
) -> None:
    ruleset = block(given_policy)
    found = chains(ruleset, "onionward")
    assert "redirect" not in ruleset.text
    assert "type nat" not in ruleset.text
    assert not {"to_tor", "bypass"} & found.keys()
    for chain in ("output", "wire"):
        outgoing = [rule for rule in found[chain] if "@bypass" in rule]
        assert all(rule.endswith(" drop") for rule in outgoing), outgoing
    assert "jump bypass" not in ruleset.text


@given(policies())
def test_every_hook_that_sees_packets_leave_or_come_drops_by_default(given_policy: Policy) -> None:
    for ruleset in (block(given_policy), route(given_policy)):
        hooks = dict(re.findall(r"hook (\w+) .*?policy (\w+);", ruleset.text))
        assert hooks.pop("prerouting") == "accept"
        expected = {"output": "drop", "postrouting": "drop", "forward": "drop", "input": "drop"}
        if given_policy.devices:
            expected["egress"] = "drop"
        assert hooks == expected
        assert ruleset.text.count("policy accept") == (2 if ruleset.state == "routed" else 1)
        assert len(re.findall("policy drop", ruleset.text)) == len(expected)


@given(policies())
def test_a_transaction_replaces_both_tables(given_policy: Policy) -> None:
    for ruleset in (block(given_policy), route(given_policy)):
        assert ruleset.text.startswith(remove())
        assert ruleset.text.count("\ndelete table ") == 2
        assert f'comment "onionward: {ruleset.state}"' in ruleset.text
        assert "flush" not in ruleset.text


def test_removal_adds_first_so_that_it_never_fails() -> None:
    assert remove() == (
        "table inet onionward\ndelete table inet onionward\n"
        "table netdev onionward_l2\ndelete table netdev onionward_l2\n"
    )


@given(policies())
def test_names_are_redirected_before_any_exemption(given_policy: Policy) -> None:
    rules = chains(route(given_policy), "onionward")["to_tor"]
    names = next(i for i, rule in enumerate(rules) if rule.startswith("udp dport 53 "))
    first_exemption = min(i for i, r in enumerate(rules) if "@bypass" in r or "fib daddr" in r)
    onion = [i for i, rule in enumerate(rules) if re.match(r"ip6? daddr [^@].* redirect to", rule)]
    assert len(onion) == 2
    assert max(*onion, names) < first_exemption
    assert rules[0] == f"meta skuid {given_policy.tor_uid} return"
    assert rules[-1].startswith("meta l4proto tcp ")
    assert rules[-1].endswith(f"redirect to :{given_policy.trans_port}")


def test_name_resolution_is_no_part_of_a_bypass() -> None:
    rules = chains(route(policy()), "onionward")["bypass"]
    assert rules[0].endswith("return")
    assert all(re.search(rf"\b{port}\b", rules[0]) for port in NAME_PORTS)


@given(policies())
def test_tor_is_known_by_account_and_control_group_and_speaks_tcp_only(
    given_policy: Policy,
) -> None:
    for ruleset in (block(given_policy), route(given_policy)):
        first = chains(ruleset, "onionward")["tor"][0]
        assert first.startswith(f"meta skuid {given_policy.tor_uid} meta l4proto tcp ")
        assert f"ct mark != {MARK_REDIRECTED:#x}" in first
        assert ("socket cgroupv2" in first) == (given_policy.tor_cgroup is not None)
        if given_policy.tor_cgroup is not None:
            assert 'level 1 "onionward-test"' in first


@pytest.mark.parametrize(
    ("inbound", "expected"),
    [
        ("none", []),
        ("bypass", ["ip saddr @bypass4 jump admitted", "ip6 saddr @bypass6 jump admitted"]),
        (
            "link",
            [
                "ip saddr @link4 jump admitted",
                "ip6 saddr @link6 jump admitted",
                "ip saddr @bypass4 jump admitted",
                "ip6 saddr @bypass6 jump admitted",
            ],
        ),
        ("all", ["jump admitted"]),
    ],
)
def test_who_is_let_in(inbound: str, expected: list[str]) -> None:
    for ruleset in (block(policy(inbound=inbound)), route(policy(inbound=inbound))):
        found = chains(ruleset, "onionward")
        assert [rule for rule in found["input"] if rule.endswith("jump admitted")] == expected
        assert ("admitted" in found) == bool(expected)
        if expected:
            admitted = found["admitted"]
            ports = next(i for i, rule in enumerate(admitted) if "940, 941" in rule)
            accepts = [i for i, rule in enumerate(admitted) if rule.endswith("accept")]
            assert admitted[ports].endswith("return")
            assert ports < min(accepts)
            assert "udp dport 32768-60999 return" in admitted


def test_without_interfaces_there_is_no_egress_chain() -> None:
    assert "hook egress" not in route(policy(devices=())).text
    assert chains(route(policy(devices=())), "onionward_l2") == {}
    assert 'devices = { "a0", "b1" }' in route(policy(devices=("a0", "b1"))).text


def test_the_stamp_is_set_and_asked_for() -> None:
    ruleset = route(policy(stamp=0xABCD))
    assert "meta mark set 0xabcd" in chains(ruleset, "onionward")["wire"]
    assert chains(ruleset, "onionward_l2")["egress"][0] == "meta mark 0xabcd accept"


def test_the_virtual_network_is_never_answered_from_outside() -> None:
    rules = chains(block(policy("[tor]\nvirtual_networks=['10.192.0.0/10']")), "onionward")
    assert {"ip daddr 127.0.0.0/8 drop", "ip daddr 10.192.0.0/10 drop"} <= set(rules["input"])
    # loopback holds the default one already
    assert "ip daddr 127.0.0.0/8 drop" in chains(block(policy()), "onionward")["input"]


@given(st.lists(NETWORKS, max_size=4), st.lists(FLOWS, max_size=2))
def test_rendering_is_a_function(networks: list[Network], kept: list[Flow]) -> None:
    one = policy(bypass=merged(networks), kept=tuple(kept))
    assert route(one) == route(replace(one))
    assert route(one).text != block(one).text
    assert nftables.route(replace(one, stamp=1)) != route(one)


PATHS = Paths()


def test_torrc() -> None:
    text = torrc(policy(), PATHS, account="onionward-tor", network=["TestingTorNetwork 1"])
    lines = text.splitlines()
    for expected in (
        "DataDirectory /var/lib/onionward/tor",
        "User onionward-tor",
        "SocksPort unix:/run/onionward/socks/ipv4 WorldWritable RelaxDirModeCheck SessionGroup=1 "
        "IsolateSOCKSAuth IPv6Traffic NoPreferIPv6",
        "ControlPort 0",
        "ClientOnly 1",
        "TransPort 127.0.0.1:940",
        "TransPort [::1]:940",
        "DNSPort 127.0.0.1:941",
        "DNSPort [::1]:941",
        "VirtualAddrNetworkIPv4 127.192.0.0/10",
        "VirtualAddrNetworkIPv6 [fd5a:7011::]/32",
        "AutomapHostsOnResolve 1",
        "CookieAuthentication 1",
    ):
        assert expected in lines
    assert lines[-1] == "TestingTorNetwork 1"
    assert text.endswith("\n")


def test_torrc_listens_on_loopback_only() -> None:
    for ipv6 in (True, False):
        text = torrc(policy(ipv6=ipv6), PATHS, account=None)
        ports = re.findall(r"^(?:Trans|DNS|Socks|Control)Port (.*)$", text, re.M)
        assert {port.rpartition(":")[0] for port in ports} == {"", "unix", "127.0.0.1"} | (
            {"[::1]"} if ipv6 else set()
        )
        assert "User" not in text.replace("UserIPv6", "").split()


def test_resolv_conf_asks_loopback_only_and_searches_nowhere() -> None:
    lines = [line for line in resolv_conf().splitlines() if not line.startswith("#")]
    assert lines == ["nameserver 127.0.0.1", "options timeout:15 attempts:2"]


@pytest.mark.parametrize("inbound", ["none", "bypass", "link", "all"])
@pytest.mark.parametrize("render", [block, route])
def test_no_chain_relies_on_its_policy(render: Callable[[Policy], Ruleset], inbound: str) -> None:
    # a drop policy is in force only at the end of a commit
    ruleset = render(policy(f'[host]\ninbound = "{inbound}"\n'))
    dropping = re.findall(r"chain (\w+) \{\n\t\ttype [^\n]*policy drop;\n", ruleset.text)
    assert len(dropping) == 5
    rules = chains(ruleset, "onionward") | chains(ruleset, "onionward_l2")
    for chain in dropping:
        assert re.search(r"(^| )(drop|reject with icmpx type admin-prohibited)$", rules[chain][-1])


@pytest.mark.parametrize("hook", ["forward", "input"])
def test_the_guard_s_own_rules_know_a_lan_that_is_renamed(hook: str) -> None:
    lan = Lan("eth1", (), (), ping=True, dhcp=False, tcp_ports=(), udp_ports=(), number=3)
    later = lan._replace(interface="usb0", number=0)
    text = lock.routing(replace(policy(), route="direct", lans=(lan, later)))
    (chain,) = re.findall(rf"hook {hook} .*?\n\t\}}", text, re.DOTALL)
    rules = [line.strip() for line in chain.splitlines() if "iif" in line]
    place = next(n for n, rule in enumerate(rules) if rule.startswith("iif { 3 } iifname != @lans"))
    assert rules[place].endswith(" drop")
    # nothing lets a client's packets pass before
    assert all('"lo"' in rule for rule in rules[:place])
