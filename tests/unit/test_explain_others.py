"""What becomes of packets that arrive at interfaces which are no [[lan]]."""

from __future__ import annotations

from typing import Any

import pytest

from onionward.errors import RefusedError
from onionward.explain import Packet, State
from onionward.policy import Policy
from onionward.rules import Rule
from tests.support import addr
from tests.unit.test_explain import packet
from tests.unit.test_explain_scopes import BYPASSED, GATE, GATE_HOST, ONION, USER, judged

STATES: tuple[State, ...] = ("routed", "blocked")


def container(words: str, **changes: Any) -> Packet:
    return packet(words, source=addr("198.18.9.2"), interface="br0", **changes)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("words", ["tcp 1.1.1.1 443", "udp 2606:4700::1111 53", "icmp 198.18.8.77"])
def test_a_routed_host_forwards_nothing(words: str, state: State) -> None:
    for policy in (GATE_HOST, BYPASSED):
        verdict = judged(policy, container(words), state)
        assert (verdict.outcome, verdict.rule) == ("dropped", Rule.FORWARDED)
        assert "a [[lan]] with br0 routes what comes from behind it" in verdict.words()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("policy", [GATE, USER, ONION])
def test_what_nobody_routes_is_forwarded_as_ever(policy: Policy, state: State) -> None:
    for words in ("tcp 1.1.1.1 443", "udp 2606:4700::1111 53"):
        verdict = judged(policy, container(words), state)
        assert (verdict.outcome, verdict.rule) == ("direct", Rule.UNROUTED)
        assert "in clear, if this machine forwards" in verdict.words()


def test_nothing_is_forwarded_to_clients() -> None:
    verdict = judged(GATE, container("tcp 198.18.8.77 80"))
    assert (verdict.outcome, verdict.chain, verdict.rule) == (
        "dropped",
        "forwarded",
        Rule.FORWARDED,
    )
    assert judged(USER, container("tcp 198.18.8.77 80")).outcome == "direct"


@pytest.mark.parametrize("policy", [GATE, GATE_HOST, USER, ONION])
def test_addresses_of_onion_names_are_not_for_others(policy: Policy) -> None:
    for address in (policy.virtual4[1], policy.virtual6[1]):
        verdict = judged(policy, container(f"tcp {address} 80"))
        assert (verdict.outcome, verdict.chain) == ("dropped", "strong_host")


@pytest.mark.parametrize("to", ["198.18.8.1", "127.0.0.1", "224.0.0.251", "198.18.8.255"])
def test_what_is_for_this_machine_is_not_explained(to: str) -> None:
    for policy in (GATE, GATE_HOST):
        with pytest.raises(RefusedError, match=f"{to} is not elsewhere"):
            judged(policy, container(f"udp {to} 5353"))


def test_the_lan_itself_is_judged_as_ever() -> None:
    asked = packet("tcp 1.1.1.1 443", source=addr("198.18.8.77"), interface="eth1")
    assert judged(GATE, asked).outcome == "trans-port"
