"""What nft prints, and what is concluded from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from onionward.backend import nftables as backend
from onionward.errors import CommandError, RefusedError, VerifyError
from onionward.render.nftables import Ruleset
from tests.support import ScriptedSystem

# as nft 1.0.6 prints it
INET = """\
table inet onionward {
	comment "onionward: routed"
	counter refused {
		packets 12 bytes 900
	}

	counter escaped {
		packets 1 bytes 60
	}

	set bypass4 {
		type ipv4_addr
		flags interval
		elements = { 192.168.1.0/24 }
	}

	chain output {
		type filter hook output priority filter; policy drop;
		counter name "refused" reject with tcp reset
	}
}
"""
NETDEV = """\
table netdev onionward_l2 {
	comment "onionward: routed"
	counter escaped {
		packets 2 bytes 120
	}

	chain egress {
		type filter hook egress device "eth0" priority filter; policy drop;
		counter name "escaped"
	}
}
"""
SEVERAL = NETDEV.replace('device "eth0"', "devices = { eth0, usb0.7@x, wlan-0 }")
RULESET = Ruleset(
    "routed",
    "THE TEXT",
    (("onionward", "output", 1), ("onionward_l2", "egress", 1)),
    ("eth0",),
)
MISSING = CommandError(["nft"], 1, "Error: No such file or directory\nlist table inet onionward")


def as_json(table: str, chain: str, rules: int) -> str:
    objects: list[Mapping[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"name": table}},
        {"chain": {"table": table, "name": chain}},
    ]
    objects += [{"rule": {"table": table, "chain": chain}}] * rules
    return json.dumps({"nftables": objects})


def kernel(**changes: str | CommandError) -> ScriptedSystem:
    answers: dict[str, str | CommandError] = {
        "nft list table inet onionward": INET,
        "nft list table netdev onionward_l2": NETDEV,
        "nft --json list table inet onionward": as_json("onionward", "output", 1),
        "nft --json list table netdev onionward_l2": as_json("onionward_l2", "egress", 1),
        "nft list tables": "table inet onionward\ntable netdev onionward_l2\n",
    }
    short = {"inet": 0, "netdev": 1, "inet_json": 2, "netdev_json": 3, "tables": 4}
    names = list(answers)
    answers |= {names[short[key]]: value for key, value in changes.items()}
    return ScriptedSystem(answers)


def test_counters_are_summed_over_both_tables() -> None:
    assert backend.counters(INET + NETDEV) == {"refused": 12, "escaped": 3}
    assert backend.counters("") == {}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (NETDEV, ("eth0",)),
        (SEVERAL, ("eth0", "usb0.7@x", "wlan-0")),
        (NETDEV.replace('device "eth0"', 'devices = { "b", "a" }'), ("a", "b")),
        (INET, ()),
        ("", ()),
    ],
)
def test_watched_devices(held: str, expected: tuple[str, ...]) -> None:
    assert backend.watched_devices(held) == expected


def test_the_digest_knows_rules_from_counts() -> None:
    digest = backend.digest(INET)
    assert backend.digest(INET.replace("packets 12 bytes 900", "packets 13 bytes 960")) == digest
    for old, new in (
        ("policy drop", "policy accept"),
        ("192.168.1.0/24", "192.168.0.0/16"),
        ("reject with tcp reset", "accept"),
        ("routed", "blocked"),
    ):
        assert backend.digest(INET.replace(old, new)) != digest
    assert backend.digest(INET + NETDEV) != backend.digest(INET + SEVERAL)


def test_the_digest_does_not_know_what_packets_have_put_into_a_set() -> None:
    dynamic = """\
	set user_flows4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service
		size 65535
		flags dynamic,timeout
		timeout 2h
	}
"""
    empty = INET.replace("\tset bypass4", f"{dynamic}\tset bypass4")
    element = "192.0.2.1 . 80 . 192.0.2.2 . 40000 expires 1h59m59s880ms"
    filled = empty.replace(
        "timeout 2h\n", f"timeout 2h\n\t\telements = {{ {element},\n{element} }}\n"
    )
    assert filled != empty
    assert backend.digest(filled) == backend.digest(empty)
    assert backend.digest(filled.replace("192.168.1.0/24", "192.168.2.0/24")) != backend.digest(
        empty
    )


def test_verify_returns_the_digest_of_what_is_held() -> None:
    assert backend.verify(kernel(), RULESET) == backend.digest(INET + NETDEV)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inet": MISSING}, "does not hold the rules"),
        ({"netdev": MISSING}, "watched interfaces: () instead of"),
        ({"inet_json": as_json("onionward", "output", 2)}, "output: 2 rules instead of 1"),
        ({"inet_json": as_json("onionward", "output", 0)}, "output: 0 rules instead of 1"),
        ({"inet_json": as_json("onionward", "more", 0)}, "more: 0 rules instead of 0"),
        ({"netdev_json": '{"nftables": []}'}, "egress: 0 rules instead of 1"),
        ({"netdev": SEVERAL}, "watched interfaces: ('eth0', 'usb0.7@x', 'wlan-0') instead of"),
    ],
)
def test_verify_refuses(changes: dict[str, str | CommandError], expected: str) -> None:
    with pytest.raises(VerifyError) as caught:
        backend.verify(kernel(**changes), RULESET)
    assert expected in str(caught.value)


def test_a_listing_that_fails_is_no_missing_table() -> None:
    broken = CommandError(["nft"], 1, "Operation not permitted")
    with pytest.raises(CommandError):
        backend.read(kernel(inet=broken))
    assert backend.read(kernel(inet=MISSING)) is None
    assert backend.read(kernel(netdev=MISSING)) == INET
    assert backend.read(kernel()) == INET + NETDEV


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("", False),
        ("table inet filter\n", False),
        ("table inet onionward2\ntable ip onionward\n", False),
        ("table inet filter\ntable inet onionward\n", True),
        ("table netdev onionward_l2\n", True),
    ],
)
def test_any_table(tables: str, *, expected: bool) -> None:
    assert backend.any_table(kernel(tables=tables)) is expected


def test_nothing_is_removed_where_nothing_is() -> None:
    system = kernel(tables="")
    backend.remove_tables(system)
    assert system.effects == []
    assert system.asked == ["nft list tables"]


def test_removal_and_loading_are_one_transaction_each() -> None:
    given: list[str] = []

    def load(text: str) -> str:
        given.append(text)
        return ""

    system = kernel()
    system.answers["nft --file -"] = load
    backend.apply(system, RULESET)
    backend.remove_tables(system)
    of_boot = "table inet onionward_boot\ndelete table inet onionward_boot\n"
    assert given[0] == f"{of_boot}THE TEXT"
    assert given[1].startswith(of_boot)
    assert given[1].count("delete table") == 4
    assert len(system.effects) == 2


def test_a_check_is_no_change_and_speaks_with_the_words_of_nft() -> None:
    system = kernel()
    system.answers["nft --check"] = ""
    backend.check(system, RULESET)
    assert system.effects == []
    system.answers["nft --check"] = CommandError(["nft"], 1, "Error: syntax error\n")
    with pytest.raises(RefusedError, match=r"states routed: Error: syntax error") as caught:
        backend.check(system, RULESET)
    assert caught.value.exit_status == 2
