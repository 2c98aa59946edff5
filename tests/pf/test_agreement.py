"""The rules of every dialect give the answers of `explain`: same policies, same packets."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onionward.explain import Packet, State
from onionward.explain.pf import explain
from onionward.networks import Address
from onionward.policy import Policy
from onionward.render.pf import DialectName
from tests.kernel.policies import LINKS, PLACES, drawn_links, drawn_policies, edges
from tests.pf.machine import DIALECTS, Machine, all_own, anchor_of, for_pf, is_possible
from tests.support import addr
from tests.unit.scopes import scoped_policies
from tests.unit.test_explain_properties import ADDRESSES, STATES
from tests.unit.test_render import policies

_KERNEL = drawn_links().flatmap(drawn_policies) | drawn_policies(LINKS)
POLICIES = (policies() | scoped_policies() | _KERNEL).map(for_pf)
# three dialects, a policy and ten packets each: more than a thousand pairs, or as many as wanted
POLICIES_ASKED = settings(max_examples=int(os.environ.get("ONIONWARD_PF_POLICIES", "50")))
PACKETS_EACH = 10


PROTOCOLS = st.sampled_from(["tcp", "tcp", "tcp", "udp", "udp", "udp", "icmp", "gre"])
PORTS = st.sampled_from([53, 53, 53, 443, 443, 22, 25, 67, 69, 80, 547, 853, 8080, 8118, 5353])


@st.composite
def packets(draw: st.DrawFn, policy: Policy) -> Packet:
    """Of a program of the machine or of a client; those that can exist."""
    networks = (*policy.bypass, *policy.link, *policy.virtual)
    lans = [n for lan in policy.lans for n in lan.networks]
    near = [*edges((*networks, *lans)), *PLACES]
    named = (*policy.users, *policy.direct_users)
    uids = {uid for user in named for ids in user.uids for uid in ids}
    special = sorted({0, policy.tor_uid, *uids, *policy.dhcp_uids})
    public = [addr("1.1.1.1"), addr("2606:4700::1111")]
    to = draw(st.sampled_from(public) | st.sampled_from(near) | ADDRESSES)
    protocol, ports = draw(PROTOCOLS), draw(st.sampled_from([None, None, (68, 67), (546, 547)]))
    if protocol == "icmp" and to.version == 6:
        protocol = "ipv6-icmp"
    packet = Packet(
        protocol,
        to,
        ports[1] if ports and protocol == "udp" else draw(PORTS | st.integers(1, 65535)),
        draw(st.just(12345) | st.sampled_from(special)),
        ports[0] if ports else None,
        is_echo=draw(st.booleans()),
    )
    # what was open before is known where all that leaves is judged
    if policy.route == "tor" and policy.kept and draw(st.integers(0, 5)) == 0:
        flow = draw(st.sampled_from(policy.kept))
        return replace(
            packet,
            protocol="tcp",
            destination=flow.peer,
            port=flow.peer_port,
            source=flow.local,
            source_port=flow.local_port,
            opens=draw(st.booleans()),
        )
    if draw(st.booleans()) and policy.lans:
        lan = draw(st.sampled_from(policy.lans))
        clients = [n[9] for n in lan.networks if n.version == to.version and n.num_addresses > 16]
        strangers = [*edges((*lan.networks, *networks)), *lan.addresses, *PLACES]
        sources = [a for a in strangers if a.version == to.version]
        source = draw(st.sampled_from(clients or sources) | st.sampled_from(sources))
        return replace(packet, interface=lan.interface, source=source)
    return packet


@st.composite
def questions(draw: st.DrawFn) -> tuple[Policy, list[Packet], tuple[Address, ...]]:
    policy = draw(POLICIES)
    own = tuple(draw(st.lists(ADDRESSES, max_size=2)))
    assume(is_possible(policy, own))
    # pf refuses what a client sends to such an address of another interface; explain: dropped
    assume(not any(a.version == 4 and a.is_link_local for a in own))
    asked = st.lists(packets(policy), min_size=PACKETS_EACH, max_size=PACKETS_EACH)
    return policy, draw(asked), own


@pytest.mark.parametrize("dialect", DIALECTS)
@POLICIES_ASKED
@given(questions(), STATES)
def test_every_packet_meets_the_fate_that_explain_tells(
    dialect: DialectName, question: tuple[Policy, list[Packet], tuple[Address, ...]], state: State
) -> None:
    policy, asked, own = question
    machine = Machine(policy, anchor_of(policy, state, dialect), own)
    for packet in asked:
        verdict = explain(policy, packet, all_own(policy, own), state=state)
        assert machine.fate(packet) == verdict.outcome, (
            packet,
            verdict.words(),
            [rule.text for rule in machine.decided],
        )
