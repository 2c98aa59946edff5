"""An example machine for every scope: a gateway with accounts; and policies of any kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from onionward.accounts import Uids
from onionward.accounts import User as Found
from onionward.config.values import Route
from onionward.facts import Account, Link
from onionward.policy import Lan, Policy, User
from tests.support import ETH0, FACTS, addr, net, policy
from tests.unit.test_networks import NETWORKS

ETH1 = Link(
    "eth1",
    (addr("198.18.8.1"), addr("2001:db8:8::1"), addr("fe80::8")),
    (net("198.18.8.0/24"), net("2001:db8:8::/64"), net("fe80::/64")),
)
ALICE, BOB, CAROL, IN_CONTAINER = 1001, 1002, 1003, 100_500


def found(name: str, uid: int, *subordinate: Uids) -> Found:
    """An account as the machine has it."""
    login = Account(name, uid, uid, Path("/home") / name)
    return Found(login, frozenset({uid}), subordinate)


GATEWAY = replace(
    FACTS,
    links=(ETH0, ETH1),
    users=(
        found("alice", ALICE),
        found("bob", BOB, Uids(100_000, 165_535)),
        found("carol", CAROL),
    ),
)
LAN = "[[lan]]\ninterface = 'eth1'\n"
USERS = "[[user]]\nname = 'alice'\n[[user]]\nname = 'bob'\n"


def gateway(text: str) -> Policy:
    """The policy of a configuration on that machine."""
    return policy(text, GATEWAY)


_PORTS = st.lists(st.sampled_from([22, 80, 443, 8080]), unique=True).map(tuple)
_UIDS = st.tuples(st.integers(1000, 1100), st.integers(0, 50)).map(lambda p: (p[0], p[0] + p[1]))
_LANS = st.builds(
    Lan,
    st.sampled_from(["eth1", "wlan0"]),
    st.just(ETH1.addresses),
    st.just(ETH1.networks) | st.lists(NETWORKS, max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
    _PORTS,
    _PORTS,
)
_USERS = st.builds(User, st.sampled_from(["alice", "bob"]), _UIDS.map(lambda pair: (pair,)))


@st.composite
def scoped_policies(draw: st.DrawFn) -> Policy:
    """Any scopes, together."""
    routes: list[Route] = ["tor", "onion", "direct"]
    route = draw(st.sampled_from(routes))
    lans = draw(st.lists(_LANS, max_size=2, unique_by=lambda lan: lan.interface))
    bypassed = User("carol", ((CAROL, CAROL),))
    virtual4 = ["10.192.0.0/10", *([] if lans else ["127.192.0.0/10"])]
    return replace(
        policy(),
        route=route,
        lans=tuple(lans),
        users=tuple(draw(st.lists(_USERS, max_size=2, unique_by=lambda user: user.name))),
        direct_users=(bypassed,) if route == "tor" and draw(st.booleans()) else (),
        virtual4=net(draw(st.sampled_from(virtual4))),
        tor_cgroup=draw(st.sampled_from([None, policy().tor_cgroup])),
        bypass=tuple(draw(st.lists(NETWORKS, max_size=3))),
        inbound=draw(st.sampled_from(["none", "bypass", "link", "all"])),
        devices=("eth0",) if route == "tor" else (),
        ipv6=draw(st.booleans()),
        isolate_destinations=draw(st.booleans()),
    )
