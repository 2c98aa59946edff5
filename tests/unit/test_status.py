"""What `onionward status` says in each situation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onionward import state, status
from onionward.backend import nftables as backend
from onionward.errors import JournalError
from onionward.paths import Paths
from onionward.state import Journal
from onionward.status import Status, gather, to_json, to_text
from onionward.tor import process
from tests.support import ScriptedSystem
from tests.unit.test_backend import INET, MISSING, NETDEV

BLOCKED = (INET + NETDEV).replace("routed", "blocked")


DEVICES = """\
Inter-|   Receive
 face |bytes
    lo: 12 0
  eth0:34 0
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interfaces that the kernel names."""
    file = tmp_path / "dev"
    file.write_text(DEVICES)
    monkeypatch.setattr(status, "_DEVICES", file)
    return file


@pytest.fixture
def paths(tmp_path: Path, devices: Path) -> Paths:
    assert devices.exists()
    return Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the tor that is there."""
    pids = [4711]
    monkeypatch.setattr(process, "running", lambda _paths: tuple(pids))
    return pids


def machine(held: str | None) -> ScriptedSystem:
    if held is None:
        return ScriptedSystem({"nft list table ": MISSING, "nft list tables": ""})
    inet, _, netdev = held.partition("table netdev")
    return ScriptedSystem(
        {
            "nft list tables": "table inet onionward\ntable netdev onionward_l2\n",
            "nft list table inet onionward": inet,
            "nft list table netdev onionward_l2": f"table netdev{netdev}",
        }
    )


def activated(paths: Paths, held: str, **changes: Any) -> None:
    ours = "nameserver 127.0.0.1\n"
    paths.resolv_conf.write_text(ours)
    saved = {"kind": "absent", "content": "", "immutable": False, "times": [0, 0], "ours": ours}
    fields: dict[str, Any] = {
        "state": "routed",
        "since": 1_700_000_000.0,
        "instance": "abcd",
        "stamp": 1,
        "undo": {"resolver": saved},
        "digest": backend.digest(held),
        "config": "o.toml",
        "scopes": ["host: everything"],
    }
    state.save(ScriptedFiles(), paths, Journal(**fields | changes))


class ScriptedFiles(ScriptedSystem):
    """Writes files; no command has an answer."""


def test_off(paths: Paths, running: list[int]) -> None:
    running.clear()
    system = machine(None)
    found = gather(system, paths)
    assert (found.state, found.tor, found.problems) == ("off", "stopped", ())
    assert to_text(found) == "off: traffic leaves in clear"
    assert system.effects == []


def test_routed(paths: Paths, running: list[int]) -> None:
    assert running
    held = INET + NETDEV
    activated(paths, held)
    found = gather(machine(held), paths)
    assert found.state == "routed"
    assert found.problems == ()
    assert (found.tor, found.tor_pid, found.resolver) == ("running", 4711, "tor")
    assert found.interfaces == ("eth0",)
    assert found.counters == {"refused": 12, "escaped": 3}
    text = to_text(found)
    assert text.startswith("routed: the scopes below go through Tor or nowhere\n")
    assert "  scope     host: everything\n" in text
    assert "running (process 4711)" in text
    assert "12 refused, 3 escaped" in text
    assert "problem" not in text


def test_the_rules_are_gone(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    found = gather(machine(None), paths)
    assert found.state == "open"
    assert found.problems[0].startswith("NOT PROTECTED")
    assert "OPEN: traffic leaves in clear" in to_text(found)


def test_the_rules_are_others(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    found = gather(machine((INET + NETDEV).replace("policy drop", "policy accept")), paths)
    assert found.state == "routed"
    assert len(found.problems) == 1
    assert "not the ones that were loaded" in found.problems[0]


def test_tor_is_gone(paths: Paths, running: list[int]) -> None:
    running.clear()
    activated(paths, INET + NETDEV)
    found = gather(machine(INET + NETDEV), paths)
    assert (found.state, found.tor, found.tor_pid) == ("blocked", "stopped", None)
    assert "tor is not running: traffic is blocked" in "\n".join(found.problems)


def test_up_has_not_finished(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, BLOCKED, state="blocked")
    found = gather(machine(BLOCKED), paths)
    assert found.state == "blocked"
    assert "has not finished" in "\n".join(found.problems)
    assert to_text(found).startswith("blocked: nothing of the scopes below leaves but tor itself")


def test_somebody_has_written_resolv_conf(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    paths.resolv_conf.write_text("nameserver 203.0.113.1\n")
    found = gather(machine(INET + NETDEV), paths)
    assert found.resolver == "changed"
    assert "was changed by another program" in "\n".join(found.problems)


def test_rules_without_a_journal(paths: Paths, running: list[int]) -> None:
    running.clear()
    found = gather(machine(INET + NETDEV), paths)
    assert found.state == "blocked"
    assert "the journal is missing" in found.problems[0]


def test_an_interface_has_appeared(paths: Paths, running: list[int], devices: Path) -> None:
    assert running
    activated(paths, INET + NETDEV)
    devices.write_text(DEVICES + " wlan0: 1 0\n")
    found = gather(machine(INET + NETDEV), paths)
    assert found.state == "routed"
    assert [problem.split(":")[0] for problem in found.problems] == ["wlan0 appeared since"]


def test_tor_without_a_journal(paths: Paths, running: list[int]) -> None:
    assert running
    paths.runtime.mkdir()
    found = gather(machine(None), paths)
    assert found.state == "off"
    assert "the journal is missing" in found.problems[0]


def test_a_damaged_journal_is_said(paths: Paths, running: list[int]) -> None:
    assert running
    paths.journal.write_text("{")
    with pytest.raises(JournalError):
        gather(machine(None), paths)


def test_json_holds_the_same(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    found = gather(machine(INET + NETDEV), paths)
    document = json.loads(to_json(found))
    assert document["format"] == 1
    assert document.keys() == set(Status.__dataclass_fields__)
    document["interfaces"] = tuple(document["interfaces"])
    document["problems"] = tuple(document["problems"])
    document["scopes"] = tuple(document["scopes"])
    assert Status(**document) == found


def test_who_is_behind_which_interface(
    paths: Paths, running: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running
    for name in ("eth0", "eth1", "docker0/bridge"):
        (tmp_path / "net" / name).mkdir(parents=True)
    monkeypatch.setattr(status, "_INTERFACES", tmp_path / "net")
    undo = {"rules": {"host": True, "lans": ["eth1", "usb0"]}}
    activated(paths, INET + NETDEV, undo=undo)
    found = gather(machine(INET + NETDEV), paths)
    assert found.forwarded == {"docker0": "blocked", "eth1": "routed", "usb0": "absent"}
    assert "  clients   behind docker0: blocked\n" in to_text(found)
    activated(paths, INET + NETDEV, undo={"rules": {"host": False, "lans": ["docker0"]}})
    assert gather(machine(INET + NETDEV), paths).forwarded == {"docker0": "routed"}
