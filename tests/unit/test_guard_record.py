"""What the guard remembers, and how it is recognised."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from onionward import background
from onionward.guard import process, record
from onionward.paths import Paths
from tests.support import LocalSystem


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr("onionward.guard.record.syslog.syslog", said.append)
    return said


def test_the_same_words_are_counted_and_said_ever_less(tmp_path: Path, log: list[str]) -> None:
    kept = record.Record(LocalSystem(), tmp_path / "guard.json")
    for _ in range(9):
        kept.add("rules were changed")
    kept.add("tor has ended")
    assert log == [
        "rules were changed",
        *(f"rules were changed ({times} times)" for times in (2, 4, 8)),
        "tor has ended",
    ]
    found = record.load(tmp_path / "guard.json")
    assert [(event["words"], event["count"]) for event in found] == [
        ("rules were changed", 9),
        ("tor has ended", 1),
    ]


@pytest.mark.usefixtures("log")
def test_it_does_not_grow(tmp_path: Path) -> None:
    kept = record.Record(LocalSystem(), tmp_path / "guard.json")
    for number in range(100):
        kept.add(f"event {number}")
    found = record.load(tmp_path / "guard.json")
    assert [event["words"] for event in found] == [f"event {n}" for n in range(80, 100)]


@pytest.mark.usefixtures("log")
def test_where_there_is_no_place_nothing_is_written(tmp_path: Path) -> None:
    record.Record(LocalSystem(), tmp_path / "gone" / "guard.json").add("event")
    assert not (tmp_path / "gone").exists()


def test_no_room_and_words_that_are_no_text_end_nothing(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    system = LocalSystem()
    monkeypatch.setattr(system, "write_file", full)
    record.Record(system, tmp_path / "guard.json").add("interface x\udcffy has appeared")
    assert log == ["interface x\\udcffy has appeared"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "guard.json").write_text(text)
    assert record.load(tmp_path / "guard.json") == []
    assert record.load(tmp_path / "absent") == []


def test_settings_of_the_service_have_one_line_each() -> None:
    # of a transient service the second line would take the place of the first
    words = [word for word in process._service() if word.startswith("--property=")]
    names = [word.split("=")[1] for word in words]
    assert len(names) == len(set(names))
    (capabilities,) = (word for word in words if "CapabilityBoundingSet" in word)
    assert {"CAP_NET_ADMIN", "CAP_SYS_PTRACE"} <= set(capabilities.split("=")[2].split())


def test_command_is_that_of_its_paths(tmp_path: Path) -> None:
    one = process.command(Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf"))
    other = process.command(Paths(tmp_path / "x", tmp_path / "run", tmp_path / "resolv.conf"))
    assert one[:5] == other[:5]
    assert one != other
    assert background.running(one) == ()
