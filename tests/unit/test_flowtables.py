"""Flowtables of other programs on a LAN's interface: found, and refused while they matter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onionward import state
from onionward.config import parse as parse_config
from onionward.errors import CommandError
from onionward.lan import flowtables
from onionward.lan.flowtables import Flowtable
from onionward.lifecycle.validation import flowtable_problems
from onionward.paths import Paths
from onionward.state import Journal
from tests.support import LocalSystem, ScriptedSystem

FAST = Flowtable("inet", "filter", "fast", ("eth0", "eth1"))
ALONE = Flowtable("ip", "x", "f", ("wlan0",))
OURS = "table inet onionward\n"
LAN = "[[lan]]\ninterface = 'eth1'\n"


def listed(*tables: Flowtable) -> str:
    found = [
        {
            "flowtable": {
                "family": table.family,
                "name": table.name,
                "table": table.table,
                "handle": 4,
                "hook": "ingress",
                "prio": 0,
                "dev": list(table.devices) if len(table.devices) > 1 else table.devices[0],
            }
        }
        for table in tables
    ]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *found]})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for lower in ("br0/lower_eth1", "eth1", "eth1.5/lower_br0", "eth7"):
        (tmp_path / "net" / lower).mkdir(parents=True)
    monkeypatch.setattr(flowtables, "_INTERFACES", tmp_path / "net")
    return Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")


def machine(*tables: Flowtable, ours: str = "") -> ScriptedSystem:
    return ScriptedSystem({"nft -j list flowtables": listed(*tables), "nft list tables": ours})


def test_what_nft_lists_is_read() -> None:
    assert flowtables.present(machine(FAST, ALONE)) == (FAST, ALONE)
    assert flowtables.present(machine()) == ()


def test_a_kernel_without_them_has_none() -> None:
    error = CommandError(["nft"], 1, "Error: Operation not supported")
    assert flowtables.present(ScriptedSystem({"nft -j list flowtables": error})) == ()


@pytest.mark.parametrize("interface", ["eth1", "br0", "eth1.5"])
def test_one_on_the_interface_or_beneath_is_refused(paths: Paths, interface: str) -> None:
    config = parse_config(f"onion = true\n{LAN.replace('eth1', interface)}", "o.toml")
    (words,) = flowtable_problems(machine(FAST, ALONE), config, paths)
    assert words.startswith(
        "o.toml:3: lan[0].interface: a flowtable of another program (inet filter fast) may carry "
        f"connections of clients behind {interface} past all rules"
    )
    assert "nft delete flowtable inet filter fast" in words


def test_one_elsewhere_is_none_of_our_business(paths: Paths) -> None:
    config = parse_config(LAN.replace("eth1", "eth7"), "o.toml")
    assert flowtable_problems(machine(FAST, ALONE), config, paths) == ()


def test_clients_that_are_blocked_have_nothing_open(paths: Paths) -> None:
    config = parse_config(LAN, "o.toml")
    since_boot = machine(FAST, ours="table inet onionward_boot\n")
    assert flowtable_problems(since_boot, config, paths) == ()
    # routed already: what a flowtable of now could have is nothing of theirs
    journal = Journal("routed", 0.0, "abcd", 1, undo={"rules": {"lans": ["eth1"]}})
    state.save(LocalSystem(), paths, journal)
    assert flowtable_problems(machine(FAST, ours=OURS), config, paths) == ()
    # the journal of a boot before, whose rules are gone
    assert len(flowtable_problems(machine(FAST), config, paths)) == 1
    state.save(LocalSystem(), paths, replace(journal, undo={"rules": {"lans": ["eth7"]}}))
    assert len(flowtable_problems(machine(FAST, ours=OURS), config, paths)) == 1


def test_a_routed_host_forwards_nothing(paths: Paths) -> None:
    config = parse_config(f"[host]\n{LAN}", "o.toml")
    assert flowtable_problems(machine(FAST), config, paths) == ()
