"""What `onionward status` says in each situation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onionward import limits, state, status_checks
from onionward.attempts.packet import Packet
from onionward.attempts.record import Record
from onionward.backend import nftables as backend
from onionward.bsd.status import Status as BsdStatus
from onionward.dns import host
from onionward.errors import JournalError
from onionward.paths import Paths
from onionward.state import Journal
from onionward.status import Status, gather
from onionward.status_text import EXIT_STATUS, to_json, to_text
from onionward.tor import process
from tests import json_reference
from tests.support import ScriptedSystem
from tests.unit.test_backend import INET, MISSING, NETDEV

BLOCKED = (INET + NETDEV).replace("routed", "blocked")

COUNTED = """\
	set refused_by {
		type uid . inet_proto
		flags dynamic,timeout
		elements = { 0 . udp counter packets 300 bytes 8700 limit rate 10/second burst 20 packets }
	}
"""

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
    monkeypatch.setattr(status_checks, "_DEVICES", file)
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
    original = {"kind": "absent", "content": "", "immutable": False, "times": [0, 0], "ours": ours}
    saved: dict[str, Any] = dict.fromkeys(host.Saved.__annotations__)
    saved["resolv_conf"] = original
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


def test_the_rules_and_the_guard_are_gone(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    activated(paths, INET + NETDEV, undo={"guard": {}})
    monkeypatch.setattr("onionward.backend.is_guarded", lambda _system: False)
    (words,) = (p for p in gather(machine(None), paths).problems if "guard" in p)
    assert "the rules hold" not in words
    (words,) = (p for p in gather(machine(INET + NETDEV), paths).problems if "guard" in p)
    assert "the rules hold" in words


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


def test_the_guard_is_at_work(
    paths: Paths, running: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who is frightened is to be told of `down`, which opens the network."""
    assert running
    activated(paths, BLOCKED, state="blocked", undo={"guard": {}})
    monkeypatch.setattr("onionward.backend.is_guarded", lambda _system: True)
    found = gather(machine(BLOCKED), paths)
    assert found.state == "blocked"
    assert "the guard is putting it right" in found.problems[0]
    assert "down" not in found.problems[0]


def test_names_of_others_steer_no_terminal(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV, config="/etc/\033[31m.toml")
    shown = to_text(gather(machine(INET + NETDEV), paths))
    assert "config    /etc/?[31m.toml" in shown
    assert "\033" not in shown


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
    system = machine(None)
    system.answers["nft --terse list table inet onionward_lock"] = ""
    with pytest.raises(JournalError):
        gather(system, paths)


def test_json_holds_the_same(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    found = gather(machine(INET + NETDEV), paths)
    document = json.loads(to_json(found))
    assert document["format"] == 1
    assert document.keys() == set(Status.__dataclass_fields__)
    lists = {name: tuple(value) for name, value in document.items() if isinstance(value, list)}
    document |= lists
    assert Status(**document) == found


def test_every_key_is_in_the_reference(paths: Paths, running: list[int]) -> None:
    assert running
    activated(paths, INET + NETDEV)
    paths.runtime.mkdir()
    record = Record(ScriptedFiles(), paths.attempts, pytest.fail)
    record.add(Packet("refused", 0, "", False, "udp", "::1", 4, "::2", 443), None)
    record.write()
    limits.save(ScriptedFiles(), paths, ["one"])
    held = INET.replace("	set bypass4", f"{COUNTED}	set bypass4") + NETDEV
    found = gather(machine(held), paths)
    assert json_reference.tables()["The object"].keys() == set(Status.__dataclass_fields__)
    document = json.loads(to_json(found))
    assert [*json_reference.mismatches(document)] == []
    assert (document["limits"], document["attempts"][0]["account"]) == (["one"], "root")
    assert document["stopped"][0]["packets"] == 300
    text = to_text(found)
    assert "  limit     one\n" in text
    assert "  by        root: 300 UDP refused\n" in text
    assert (
        "  tried     a program of root tried UDP 443 → ::2, once: QUIC, refused; it falls" in text
    )
    del document["attempts"][0]["words"]
    document["state"] = 3
    assert len([*json_reference.mismatches(document)]) == 3


def test_the_reference_says_what_there_is_with_pf() -> None:
    words = json_reference.REFERENCE.read_text().partition("On OpenBSD and FreeBSD")[2]
    named = re.findall(r"`(\w+)`", words.partition("alone.")[0])
    assert named == [*BsdStatus.__dataclass_fields__]


def test_the_exit_status_is_documented() -> None:
    reference = json_reference.REFERENCE.read_text()
    for state_name, status_number in EXIT_STATUS.items():
        assert f"{status_number} {state_name}" in reference


def test_who_is_behind_which_interface(
    paths: Paths, running: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running
    for name in ("eth0", "eth1", "docker0/bridge"):
        (tmp_path / "net" / name).mkdir(parents=True)
    monkeypatch.setattr(status_checks, "_INTERFACES", tmp_path / "net")
    undo = {"rules": {"host": True, "lans": ["eth1", "usb0"]}}
    activated(paths, INET + NETDEV, undo=undo)
    found = gather(machine(INET + NETDEV), paths)
    assert found.forwarded == {"docker0": "blocked", "eth1": "routed", "usb0": "absent"}
    assert "  clients   behind docker0: blocked\n" in to_text(found)
    activated(paths, INET + NETDEV, undo={"rules": {"host": False, "lans": ["docker0"]}})
    assert gather(machine(INET + NETDEV), paths).forwarded == {"docker0": "routed"}


PORTS = """\
table bridge onionward_ports {
	chain ports {
		iifname "eth1" counter name "ports" drop
	}
}
"""


@pytest.mark.parametrize(
    ("is_bridge", "host", "held", "behind", "words"),
    [
        (True, False, PORTS, "blocked: a port of br9", "eth1 has become a port of br9: its client"),
        (True, False, MISSING, "NOT COVERED: a port of br9", "IN CLEAR: eth1 has become a port of"),
        (False, False, PORTS, "NOT COVERED: a port of br9", "IN CLEAR: eth1 has become a port of"),
        (False, True, PORTS, "blocked: a port of br9", "eth1 has become a port of br9: its client"),
    ],
)
def test_an_interface_of_a_lan_is_a_port_now(
    paths: Paths,
    running: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_bridge: bool,
    host: bool,
    held: Any,
    behind: str,
    words: str,
) -> None:
    assert running
    (tmp_path / "net" / "eth1").mkdir(parents=True)
    (tmp_path / "net" / "br9").mkdir()
    if is_bridge:
        (tmp_path / "net" / "br9" / "bridge").mkdir()
    (tmp_path / "net" / "eth1" / "master").symlink_to("../br9")
    monkeypatch.setattr(status_checks, "_INTERFACES", tmp_path / "net")
    undo = {
        "rules": {"host": host, "lans": ["eth1"]},
        "ports": {"key": [["eth1", 3]], "saved": {"known": True}},
    }
    activated(paths, INET + NETDEV, undo=undo)
    system = machine(INET + NETDEV)
    system.answers["nft list table bridge onionward_ports"] = held
    found = gather(system, paths)
    assert found.forwarded["eth1"] == behind
    lost = ["the rules that keep clients behind eth1 from bridges are gone"] * (held is MISSING)
    assert found.problems[0].startswith(words)
    assert [problem.partition(";")[0] for problem in found.problems[1:]] == lost
