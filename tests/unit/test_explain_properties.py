"""What is true of every verdict, whatever the policy and the packet."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from onionward.explain import NAME_PORTS, Outcome, Packet, explain
from onionward.networks import Address
from onionward.policy import Policy
from onionward.render import nftables
from tests.unit.test_explain import DHCP, SOMEBODY, TOR
from tests.unit.test_networks import NETWORKS
from tests.unit.test_render import policies

PACKETS = st.builds(
    Packet,
    st.sampled_from(["tcp", "udp", "icmp", "ipv6-icmp", "gre"]),
    st.ip_addresses() | NETWORKS.map(lambda network: network[0]),
    st.none() | st.integers(1, 65535) | st.sampled_from(sorted(NAME_PORTS)),
    st.sampled_from([0, DHCP, SOMEBODY, TOR]),
    st.none() | st.sampled_from([68, 546]),
    from_tor=st.booleans(),
)


@given(policies(), PACKETS, st.lists(st.ip_addresses(), max_size=3))
def test_every_packet_has_a_verdict(
    given_policy: Policy, given_packet: Packet, own: list[Address]
) -> None:
    chains = {name for _, name, _ in nftables.route(given_policy).chains}
    verdict = explain(given_policy, given_packet, own)
    assert verdict.outcome in get_args(Outcome)
    assert verdict.chain in chains
    assert verdict.words().endswith(f"(chain {verdict.chain})")


@given(policies(), PACKETS, st.lists(st.ip_addresses(), max_size=3))
def test_a_blocked_machine_lets_out_less_than_a_routed_one(
    given_policy: Policy, given_packet: Packet, own: list[Address]
) -> None:
    blocked = explain(given_policy, given_packet, own, state="blocked")
    routed = explain(given_policy, given_packet, own)
    assert blocked.outcome in ("local", "direct", "refused")
    assert blocked.chain in {name for _, name, _ in nftables.block(given_policy).chains}
    if blocked.outcome == "direct":
        assert routed.outcome in ("direct", "dns-port", "trans-port")
    if blocked.outcome == "local":
        assert routed.outcome in ("local", "dns-port", "trans-port")


@given(policies(), PACKETS)
def test_only_tor_dhcp_and_bypassed_networks_leave(
    given_policy: Policy, given_packet: Packet
) -> None:
    verdict = explain(given_policy, given_packet)
    if verdict.outcome == "direct":
        assert verdict.chain in ("tor", "answers", "bypass")
        if verdict.chain == "bypass" and given_packet.protocol in ("tcp", "udp"):
            assert given_packet.port not in NAME_PORTS
