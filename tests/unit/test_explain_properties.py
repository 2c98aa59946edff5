"""What is true of every verdict, whatever the policy and the packet."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from onionward.explain import Outcome, Packet, State, explain
from onionward.networks import NAME_PORTS, Address, contains
from onionward.policy import Policy
from onionward.render import nftables
from tests.support import addr, net
from tests.unit.scopes import ALICE, CAROL, ETH1, scoped_policies
from tests.unit.test_explain import DHCP, SOMEBODY, TOR
from tests.unit.test_networks import NETWORKS
from tests.unit.test_render import comments, policies

_PLACES = """
    127.0.0.1 ::1 127.192.0.5 10.192.0.5 fd5a:7011::5 169.254.94.8 fd5a:7010::8 198.18.8.1
    198.18.8.77 198.18.8.255 192.0.2.2 255.255.255.255 fe80::8 fe80::77 ff02::fb 2001:db8:8::77
    0.0.0.0 1.1.1.1
"""
ADDRESSES = st.sampled_from([addr(text) for text in _PLACES.split()]) | st.ip_addresses()
PACKETS = st.builds(
    Packet,
    st.sampled_from(["tcp", "udp", "icmp", "ipv6-icmp", "gre"]),
    ADDRESSES | NETWORKS.map(lambda network: network[0]),
    st.none() | st.integers(1, 65535) | st.sampled_from(sorted(NAME_PORTS)),
    st.sampled_from([0, DHCP, SOMEBODY, TOR, ALICE, CAROL]),
    st.none() | st.sampled_from([68, 546]),
    from_tor=st.booleans(),
    onion_name=st.booleans(),
)
STATES: st.SearchStrategy[State] = st.sampled_from(get_args(State))


@given(policies() | scoped_policies(), PACKETS, st.lists(st.ip_addresses(), max_size=3), STATES)
def test_every_packet_has_a_verdict_that_a_rule_decides(
    given_policy: Policy, given_packet: Packet, own: list[Address], state: State
) -> None:
    ruleset = nftables.route(given_policy) if state == "routed" else nftables.block(given_policy)
    verdict = explain(given_policy, given_packet, own, state=state)
    assert verdict.outcome in get_args(Outcome)
    assert verdict.rule in comments(ruleset)[verdict.chain]
    assert verdict.words().endswith(f'(chain {verdict.chain}, rule "{verdict.rule}")')


@given(
    scoped_policies().filter(lambda drawn: bool(drawn.lans)),
    PACKETS,
    st.ip_addresses(v=4)
    | st.ip_addresses(v=6)
    | st.sampled_from(ETH1.networks).map(lambda n: n[9]),
    STATES,
)
def test_every_packet_of_a_client_too(
    given_policy: Policy, given_packet: Packet, source: Address, state: State
) -> None:
    ruleset = nftables.route(given_policy) if state == "routed" else nftables.block(given_policy)
    lan = given_policy.lans[0]
    sent = replace(given_packet, interface=lan.interface, source=source)
    verdict = explain(given_policy, sent, ETH1.addresses, state=state)
    assert verdict.rule in comments(ruleset)[verdict.chain]
    # nothing of a client's ever leaves as it is
    assert verdict.outcome != "direct"
    if state == "blocked":
        assert verdict.outcome in ("local", "refused", "dropped")
    if verdict.outcome in ("trans-port", "dns-port", "local") and not source.is_unspecified:
        assert contains((*lan.networks, net("fe80::/64")), source)


@given(policies() | scoped_policies(), PACKETS, st.lists(st.ip_addresses(), max_size=3))
def test_a_blocked_machine_lets_out_less_than_a_routed_one(
    given_policy: Policy, given_packet: Packet, own: list[Address]
) -> None:
    blocked = explain(given_policy, given_packet, own, state="blocked")
    routed = explain(given_policy, given_packet, own)
    assert blocked.outcome in ("local", "direct", "refused", "dropped")
    if blocked.outcome in ("direct", "dropped"):
        assert routed.outcome in (blocked.outcome, "dns-port", "trans-port")
    if blocked.outcome == "local":
        assert routed.outcome in ("local", "dns-port", "trans-port")


@given(policies(), PACKETS)
def test_only_tor_dhcp_and_bypassed_networks_leave_a_routed_host(
    given_policy: Policy, given_packet: Packet
) -> None:
    verdict = explain(given_policy, given_packet)
    if verdict.outcome == "direct":
        assert verdict.chain in ("tor", "answers", "bypass")
        if verdict.chain == "bypass" and given_packet.protocol in ("tcp", "udp"):
            assert given_packet.port not in NAME_PORTS


@given(scoped_policies(), PACKETS, STATES)
def test_a_routed_account_sends_nothing_in_clear(
    given_policy: Policy, given_packet: Packet, state: State
) -> None:
    verdict = explain(given_policy, given_packet, state=state)
    user = given_policy.user_of(given_packet.uid)
    if user and given_policy.route != "tor" and given_packet.uid != given_policy.tor_uid:
        assert verdict.outcome != "direct"
    if given_policy.route == "onion" and given_packet.is_query and given_packet.onion_name:
        assert verdict.outcome in ("dns-port", "refused")
    is_onion = contains(given_policy.virtual, given_packet.destination)
    if is_onion and given_packet.uid != given_policy.tor_uid:
        assert verdict.outcome != "direct"
