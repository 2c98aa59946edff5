"""Ports of local services that connect for whoever asks: closed to routed accounts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from onionward.accounts import Uids, User
from onionward.explain import Packet, explain
from onionward.facts import Account
from onionward.policy import Policy
from onionward.render import nftables
from onionward.rules import Rule
from tests.support import FACTS, addr, policy

ALICE = User(Account("alice", 1001, 1001, Path("/home/alice")), frozenset({1001}))
BOB = User(
    Account("bob", 1002, 1002, Path("/home/bob")), frozenset({1002}), (Uids(100000, 100009),)
)
CONFIG = "[[user]]\nname = 'alice'\n[[user]]\nname = 'bob'\naccept = ['mail']"


@pytest.fixture
def users() -> Policy:
    return policy(CONFIG, replace(FACTS, users=(ALICE, BOB)))


@pytest.mark.parametrize(
    ("uid", "port", "outcome", "rule"),
    [
        (1001, 25, "refused", Rule.USER_SERVICES),
        (1001, 3128, "refused", Rule.USER_SERVICES),
        (1001, 80, "local", Rule.OWN_ADDRESS),
        (1002, 25, "local", Rule.OWN_ADDRESS),
        (100009, 25, "local", Rule.OWN_ADDRESS),
        (1002, 3128, "refused", Rule.USER_SERVICES),
        (1003, 3128, "local", Rule.UNROUTED),
    ],
)
def test_who_reaches_them(users: Policy, uid: int, port: int, outcome: str, rule: Rule) -> None:
    verdict = explain(users, Packet("tcp", addr("127.0.0.1"), port, uid))
    assert (verdict.outcome, verdict.rule) == (outcome, rule)


def test_a_port_that_somebody_accepts_is_left_open_to_nobody_else(users: Policy) -> None:
    text = nftables.route(users).text
    exempt = re.search(r"tcp dport \{ ([^}]*) \} meta skuid \{ ([^}]*) \} fib .* accept", text)
    assert exempt is not None
    assert exempt[1] == "25, 465, 587"
    assert exempt[2] == "1002-1002, 100000-100009"
    refused = re.findall(rf'tcp dport \{{ ([^}}]*) \}} .* comment "{Rule.USER_SERVICES}"', text)
    assert sorted(refused) == ["25, 465, 587", "631, 1080, 3128, 8118, 8123"]
