"""What `verify` tries, by whom, and where it aims."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from onionward.errors import RefusedError
from onionward.leaks.model import Needs, Place
from onionward.leaks.vectors import CATALOGUE
from onionward.verify import aims, plan
from onionward.verify.conduct import Surroundings, reason_against
from tests.unit.verify_values import CANARIES, EPHEMERAL, TARGETS, UPLINK, drawn, people, planned

LINKS: list[dict[str, Any]] = [
    {"ifname": "lo", "link_type": "loopback"},
    {
        "ifname": "wlan0",
        "link_type": "ether",
        "address": "02:00:00:00:00:02",
        "addr_info": [
            {"family": "inet", "local": "192.168.7.5", "prefixlen": 24,
             "broadcast": "192.168.7.255", "scope": "global"},
            {"family": "inet6", "local": "fe80::2", "prefixlen": 64, "scope": "link"},
        ],
    },
    {"ifname": "wwan0", "link_type": "none", "addr_info": []},
]  # fmt: skip
ROUTES4 = [{"dst": "default", "gateway": "192.168.7.1", "dev": "wlan0"}]
ROUTES6 = [{"dst": "default", "gateway": "fe80::1", "dev": "wlan0"}]
NEIGHBOURS = [{"dst": "192.168.7.1", "dev": "wlan0", "lladdr": "02:00:00:00:00:01"}]


# -- where it aims ---------------------------------------------------------------------------------


def test_probes_are_aimed_at_documentation_addresses_only() -> None:
    ranges = [ipaddress.ip_network(n) for n in CANARIES.networks]
    far = (TARGETS.web4, TARGETS.web6, TARGETS.dns4, TARGETS.dns6, TARGETS.stranger4,
           TARGETS.stranger6, TARGETS.relay[0])  # fmt: skip
    for address in map(ipaddress.ip_address, far):
        assert any(address in n for n in ranges if n.version == address.version), address


@pytest.mark.parametrize("seed", range(20))
def test_numbers_stay_below_the_ports_of_the_kernel(seed: int) -> None:
    first = drawn(seed, 3 * len(CATALOGUE), EPHEMERAL).first
    assert first > 1024
    assert first + 3 * len(CATALOGUE) <= EPHEMERAL


def test_no_two_runs_use_the_same_canaries() -> None:
    assert len({drawn(seed, 600, EPHEMERAL) for seed in range(50)}) == 50


def test_the_uplink_is_that_of_the_default_route() -> None:
    found = aims.choose("", LINKS, ROUTES4, ROUTES6, NEIGHBOURS)
    assert found == aims.Uplink(
        "wlan0", "02:00:00:00:00:02", "192.168.7.5/24", "", "192.168.7.255", "192.168.7.1", "",
        "fe80::1", "02:00:00:00:00:01", routes4=True, routes6=True,
    )  # fmt: skip


def test_an_interface_may_be_named() -> None:
    found = aims.choose("wwan0", LINKS, ROUTES4, ROUTES6, NEIGHBOURS)
    assert (found.device, found.hardware) == ("wwan0", "")
    assert not found.routes4
    assert not found.routes6


def test_a_route_with_several_next_hops_counts() -> None:
    hops = [{"dst": "default", "nexthops": [{"gateway": "192.168.7.9", "dev": "wlan0"}]}]
    assert aims.choose("", LINKS, hops, [], []).router4 == "192.168.7.9"


@pytest.mark.parametrize(
    ("wanted", "routes"), [("eth9", ROUTES4), ("", []), ("", [{"type": "unreachable"}])]
)
def test_without_an_uplink_nothing_is_tried(wanted: str, routes: list[dict[str, Any]]) -> None:
    with pytest.raises(RefusedError):
        aims.choose(wanted, LINKS, routes, [], [])


def test_a_router_with_a_link_local_address_alone_stands_for_neighbours() -> None:
    uplink = replace(UPLINK, router6="")
    found = aims.targets(uplink, CANARIES, ("127.192.0.7", "fd5a:7011::7"), (940, 941))
    assert found.neighbour6 == "fe80::1%eth0"


# -- what is tried ---------------------------------------------------------------------------------


def tried(made: plan.Plan, who: str) -> set[str]:
    return {trial.vector.id for trial in made.trials if trial.who.title == who}


def test_every_vector_of_a_host_is_tried_or_has_a_reason() -> None:
    made = planned()
    named = {trial.vector.id for trial in made.trials} | {u.vector.id for u in made.untried}
    assert named == {v.id for v in CATALOGUE.values() if v.scope.value == "host"}
    assert all(untried.why for untried in made.untried)


def test_root_an_account_and_tors_account_try() -> None:
    made = planned()
    assert {"udp.quic4", "ping.any4", "raw.gre4", "frame.udp4"} <= tried(made, "root")
    assert "udp.quic4" in tried(made, "nobody")
    assert "raw.gre4" not in tried(made, "nobody")
    assert {"tor.udp4", "tor-group.dns4", "tor-group.user"} <= tried(made, "tor's account")


def test_a_routed_account_tries_with_its_own_name_and_rights() -> None:
    made = planned(*people("direct", (("alice", 0), ("bob", 100123))))
    assert {"udp.quic4", "namespace.udp4"} <= tried(made, "alice")
    assert "subordinate.udp4" not in tried(made, "alice")
    assert "subordinate.udp4" in tried(made, "bob")
    options = [batch.options for batch in made.batches if batch.who.title == "alice"]
    assert {found[-2:] for found in options} == {("--account", "alice"), ("--owner", "alice")}


def test_only_onion_names_are_tried_where_only_they_are_routed() -> None:
    made = planned(*people("onion"))
    assert "onion-name.udp4" in tried(made, "nobody")
    assert not any(name.startswith("udp.") for name in tried(made, "nobody"))


def test_no_two_trials_share_a_number() -> None:
    made = planned(*people("tor", (("alice", 0),)))
    numbers = [trial.attempt.number for trial in made.trials]
    assert len(numbers) == len(set(numbers))
    assert max(numbers) < EPHEMERAL


def test_accounts_beyond_the_numbers_are_named() -> None:
    users = tuple((f"user{n}", 0) for n in range(60))
    made = planned(*people("direct", users))
    assert {u.who.title for u in made.untried if "too many" in u.why} >= {"user59"}


def test_without_root_nothing_that_takes_rights_is_tried() -> None:
    made = planned(*people(rights="own"), rights="own")
    assert {trial.who.title for trial in made.trials} == {"nobody"}
    whys = {untried.vector.id: untried.why for untried in made.untried}
    assert whys["raw.gre4"] == whys["tor.udp4"] == "it takes root's rights"


# -- what is not -----------------------------------------------------------------------------------


def test_nothing_from_the_wire_nothing_of_before_and_no_limit_is_tried() -> None:
    for vector in CATALOGUE.values():
        if vector.place is Place.WIRE or vector.prepared or vector.limit:
            assert reason_against(vector, Surroundings()), vector.id


@pytest.mark.parametrize(
    "name", ["foreign.accept", "stacked.bridge", "guest.bridge-slow", "mark.route", "forward.tun",
             "ping.socket4", "group.router", "copy.dup-netdev", "dns.stub-53", "stub.udp4",
             "forgotten.send", "route.pushed-udp", "onion-address.translated"]
)  # fmt: skip
def test_nothing_that_changes_the_machine_is_tried_even_when_asked(name: str) -> None:
    assert reason_against(CATALOGUE[name], Surroundings(disturb=True))


def test_a_name_that_begins_like_another_is_not_taken_for_it() -> None:
    assert not reason_against(CATALOGUE["dns.stub-5300"], Surroundings())


@pytest.mark.parametrize(
    "name", ["raw.vrrp", "raw.router-advert", "frame.lldp", "frame.other-mac", "dhcp.other-frame",
             "spoof.neighbour"]
)  # fmt: skip
def test_what_could_disturb_others_is_tried_when_asked_for(name: str) -> None:
    assert "--all" in reason_against(CATALOGUE[name], Surroundings())
    assert not reason_against(CATALOGUE[name], Surroundings(disturb=True))


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("dns.router6", {"router6_local": False}),
        ("udp.neighbour4", {"router4": False}),
        ("tcp.neighbour6", {"router6": False}),
        ("cast.netbios", {"broadcast": False}),
        ("frame.udp4", {"ethernet": False}),
        ("subordinate.udp4", {"subordinate": False}),
    ],
)
def test_what_the_network_lacks_is_the_reason(name: str, lacking: dict[str, bool]) -> None:
    assert not reason_against(CATALOGUE[name], Surroundings())
    assert reason_against(CATALOGUE[name], replace(Surroundings(), **lacking))


def test_a_bypassed_router_may_be_spoken_to_but_not_asked_for_names() -> None:
    around = Surroundings(bypassed4=True)
    assert "bypassed" in reason_against(CATALOGUE["udp.gateway4"], around)
    assert not reason_against(CATALOGUE["dns.gateway4"], around)
    bypass = [v for v in CATALOGUE.values() if v.needs is Needs.BYPASS and not v.prepared]
    assert any(not reason_against(vector, around) for vector in bypass)
    assert all(reason_against(vector, Surroundings()) for vector in bypass)
