"""Services closed to one account, and everything put back, from every point of interruption."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from onionward import acl, exposure, masks
from onionward.errors import CommandError, StepError
from onionward.masks import Routed, Saved
from tests.support import DyingSystem, LocalSystem, ScriptedSystem
from tests.unit.exposed_machine import BOB, CAROL, NSCD, RESOLVED, furnish, snapshot, write

BOTH: tuple[Routed, ...] = ((BOB, ()), (CAROL, ()))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(exposure, "find_tool", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(masks, "find_tool", lambda name: f"/usr/bin/{name}")
    furnish(tmp_path)
    return tmp_path


def _survey(root: Path, users: tuple[Routed, ...], before: Saved | None = None) -> Saved:
    return masks.survey(exposure.look(root), users, before)


def _system() -> ScriptedSystem:
    return ScriptedSystem({"busctl": ""})


def _denied(path: Path) -> list[int]:
    entries = acl.read(path) or ()
    return [entry.id for entry in entries if entry.tag == 2 and entry.permissions == 0]


def test_directories_and_sockets_are_closed_to_the_account(machine: Path) -> None:
    system = _system()
    masks.apply(system, _survey(machine, ((BOB, ()),)))
    for path in (RESOLVED, f"{RESOLVED}/io.systemd.Resolve", NSCD, f"{NSCD}/socket"):
        assert _denied(machine / path) == [61002]
    assert _denied(machine / "run/docker.sock") == [61002]
    assert _denied(machine / "run") == []
    assert _denied(machine / "run/dbus/system_bus_socket") == []
    # the mode shows nothing but the list's existence
    assert (machine / RESOLVED).stat().st_mode & 0o7777 == 0o755
    assert system.asked == [
        "busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus "
        "ReloadConfig"
    ]
    found = exposure.look(machine)
    assert masks.open_places(found, ((BOB, ()),)) == ()
    assert masks.open_places(found, ()) == ()


def test_the_policy_of_the_bus(machine: Path) -> None:
    masks.apply(_system(), _survey(machine, ((BOB, ("avahi",)), (CAROL, ()))))
    text = (machine / "etc/dbus-1/system.d/onionward.conf").read_text()
    tree = ElementTree.fromstring(text)  # noqa: S314  # our own
    policies = {p.get("user"): {d.get("send_destination") for d in p} for p in tree.iter("policy")}
    assert policies.keys() == {"61002", "61003"}
    assert "org.freedesktop.resolve1" in policies["61002"]
    assert "org.freedesktop.Avahi" not in policies["61002"]
    assert "org.freedesktop.Avahi" in policies["61003"]
    assert {child.tag for policy in tree.iter("policy") for child in policy} == {"deny"}


def test_what_is_accepted_stays_open(machine: Path) -> None:
    masks.apply(_system(), _survey(machine, ((BOB, ("nscd", "resolved")), (CAROL, ("nscd",)))))
    assert _denied(machine / NSCD) == []
    assert _denied(machine / RESOLVED) == [61003]


@pytest.mark.parametrize("users", [((BOB, ()),), BOTH])
def test_everything_returns(machine: Path, users: tuple[Routed, ...]) -> None:
    _enrich(machine)
    before = snapshot(machine)
    saved = _survey(machine, users)
    assert snapshot(machine) == before
    for _ in range(2):
        masks.apply(_system(), saved)
    assert snapshot(machine) != before
    for _ in range(2):
        assert masks.restore(_system(), saved) == ""
        assert snapshot(machine) == before


def _enrich(machine: Path) -> None:
    """Lists that were there already, one of them naming the account."""
    named = acl.decode(acl.encode(acl.readmitted(acl.denied(acl.minimal(0o750), 61002), 61002, 5)))
    os.setxattr(machine / NSCD, acl.ATTRIBUTE, acl.encode(named))
    other = acl.denied(acl.minimal(0o755), 5)
    os.setxattr(machine / RESOLVED, acl.ATTRIBUTE, acl.encode(other))


class _DyingScripted(DyingSystem, ScriptedSystem):
    """Dies before one of its effects, and runs no command."""

    def __init__(self, survives: int) -> None:
        DyingSystem.__init__(self, survives)
        self.answers = {"busctl": ""}
        self.asked = []


def _effects(machine: Path) -> tuple[int, int]:
    saved = _survey(machine, BOTH)
    applying, restoring = _system(), _system()
    masks.apply(applying, saved)
    masks.restore(restoring, saved)
    return len(applying.effects), len(restoring.effects)


def test_killed_anywhere(machine: Path) -> None:
    _enrich(machine)
    before = snapshot(machine)
    applying, restoring = _effects(machine)
    assert applying > 6
    saved = _survey(machine, BOTH)
    for survives in range(applying):
        with pytest.raises(DyingSystem.DeathError):
            masks.apply(_DyingScripted(survives), saved)
        assert masks.restore(_system(), saved) == ""
        assert snapshot(machine) == before
    for survives in range(restoring):
        masks.apply(_system(), saved)
        with pytest.raises(DyingSystem.DeathError):
            masks.restore(_DyingScripted(survives), saved)
        last = _system()
        assert masks.restore(last, saved) == ""
        assert snapshot(machine) == before
        # whether the bus had read it before the end cannot be known
        assert len(last.asked) == 1


def test_a_temporary_file_of_a_killed_program_goes(machine: Path) -> None:
    saved = _survey(machine, BOTH)
    left = machine / "etc/dbus-1/system.d/.onionward.conf.onionward-new"
    left.write_text("<busc")
    masks.restore(_system(), saved)
    assert not left.exists()


def test_what_others_changed_stays(machine: Path) -> None:
    saved = _survey(machine, ((BOB, ()),))
    masks.apply(_system(), saved)
    entries = acl.denied(acl.read(machine / NSCD) or (), 7)
    os.setxattr(machine / NSCD, acl.ATTRIBUTE, acl.encode(entries))
    (machine / RESOLVED).chmod(0o700)
    (machine / "run/docker.sock").unlink()
    (machine / "etc/dbus-1/system.d/onionward.conf").write_text("<busconfig/>")
    note = masks.restore(_system(), saved)
    assert "onionward.conf was changed by somebody else" in note
    assert _denied(machine / NSCD) == [7]
    assert acl.read(machine / RESOLVED) is None
    assert (machine / RESOLVED).stat().st_mode & 0o7777 == 0o700


def test_an_account_that_was_let_in_again_by_hand_stays_in(machine: Path) -> None:
    saved = _survey(machine, ((BOB, ()),))
    masks.apply(_system(), saved)
    entries = acl.readmitted(acl.read(machine / NSCD) or (), 61002, 7)
    os.setxattr(machine / NSCD, acl.ATTRIBUTE, acl.encode(entries))
    masks.restore(_system(), saved)
    assert acl.permissions_of(acl.read(machine / NSCD) or (), 61002) == 7


def test_another_configuration_needs_no_gap(machine: Path) -> None:
    before = snapshot(machine)
    first = _survey(machine, ((BOB, ()),))
    masks.apply(_system(), first)
    second = _survey(machine, ((CAROL, ("resolved",)),), first)
    masks.apply(_system(), second)
    assert _denied(machine / NSCD) == [61003]
    assert _denied(machine / RESOLVED) == []
    text = (machine / "etc/dbus-1/system.d/onionward.conf").read_text()
    assert "61002" not in text
    assert masks.restore(_system(), second) == ""
    assert snapshot(machine) == before


def test_a_policy_of_an_activation_that_nobody_remembers(machine: Path) -> None:
    masks.apply(_system(), _survey(machine, ((BOB, ()),)))
    saved = _survey(machine, ((CAROL, ()),))
    assert saved["policy"] is not None
    assert saved["policy"]["was"] is None


def test_a_policy_of_somebody_else_at_the_same_place(machine: Path) -> None:
    file = machine / "etc/dbus-1/system.d/onionward.conf"
    file.write_text("<busconfig/>")
    saved = _survey(machine, ((BOB, ()),))
    masks.apply(_system(), saved)
    assert file.read_text() != "<busconfig/>"
    assert masks.restore(_system(), saved) == ""
    assert file.read_text() == "<busconfig/>"


def test_a_directory_for_policies_is_made_and_removed(machine: Path) -> None:
    (machine / "etc/dbus-1/system.d").rmdir()
    saved = _survey(machine, ((BOB, ()),))
    masks.apply(_system(), saved)
    assert (machine / "etc/dbus-1/system.d/onionward.conf").exists()
    masks.restore(_system(), saved)
    assert not (machine / "etc/dbus-1/system.d").exists()


def test_a_bus_that_does_not_run_is_not_asked(machine: Path) -> None:
    (machine / "run/dbus/system_bus_socket").unlink()
    system = LocalSystem()
    saved = _survey(machine, ((BOB, ()),))
    masks.apply(system, saved)
    assert (machine / "etc/dbus-1/system.d/onionward.conf").exists()
    assert masks.restore(system, saved) == ""


def test_a_bus_that_does_not_read_its_policy(machine: Path) -> None:
    saved = _survey(machine, ((BOB, ()),))
    failing = ScriptedSystem({"busctl": CommandError(["busctl"], 1, "Failed: timed out\n")})
    with pytest.raises(StepError, match="Failed: timed out"):
        masks.apply(failing, saved)
    assert "Failed: timed out" in masks.restore(failing, saved)
    assert not (machine / "etc/dbus-1/system.d/onionward.conf").exists()


def test_no_bus_and_nobody(machine: Path) -> None:
    write(machine, "nothing", "")
    empty = machine / "empty"
    empty.mkdir()
    saved = _survey(empty, BOTH)
    assert saved == {"lists": [], "policy": None}
    masks.apply(LocalSystem(), saved)
    assert masks.restore(LocalSystem(), saved) == ""
    assert _survey(machine, ()) == {"lists": [], "policy": None}


def test_what_is_open_again_is_told(machine: Path) -> None:
    users: tuple[Routed, ...] = ((BOB, ()),)
    masks.apply(_system(), _survey(machine, users))
    os.removexattr(machine / NSCD, acl.ATTRIBUTE)
    os.removexattr(machine / NSCD / "socket", acl.ATTRIBUTE)
    # what is in a closed directory cannot be reached
    os.removexattr(machine / RESOLVED / "io.systemd.Resolve", acl.ATTRIBUTE)
    (machine / "etc/dbus-1/system.d/onionward.conf").unlink()
    words = masks.open_places(exposure.look(machine), users)
    assert len(words) == 3
    assert f"{machine / NSCD} is open to bob: the name service cache" in words[0]
    assert "onionward.conf is not what was put there" in words[2]
