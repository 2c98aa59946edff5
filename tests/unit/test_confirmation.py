"""What `up --confirm` notes, and when it is due."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onionward import applied, confirmation, state
from onionward.config import Config, Source
from onionward.confirmation import process, undo
from onionward.errors import RefusedError
from onionward.lifecycle import Request
from onionward.paths import Paths
from onionward.state import Journal
from tests.support import LocalSystem

JOURNAL = Journal("routed", 1.0, "abcd", 1, config="a.toml")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since boot; the clock on the wall is of no use here."""
    seconds = [100.0]
    monkeypatch.setattr(confirmation, "now", lambda: seconds[0])
    monkeypatch.setattr(undo, "now", lambda: seconds[0])
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the clock on the wall was asked"))
    return seconds


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")


def noted(entry: dict[str, Any]) -> Journal:
    return replace(JOURNAL, undo={"confirm": entry})


def store(paths: Paths, text: str) -> None:
    applied.save(LocalSystem(), paths, Config(source=Source("a.toml", text)))


def test_seconds_left(paths: Paths, clock: list[float]) -> None:
    assert confirmation.seconds_left(None) is None
    assert confirmation.seconds_left(JOURNAL) is None
    journal = noted(confirmation.awaited(paths, None, 60))
    clock[0] += 20
    assert confirmation.seconds_left(journal) == 40
    clock[0] += 3600
    assert confirmation.seconds_left(journal) == 0
    assert confirmation.seconds_left(confirmation.renewed(journal, 30)) == 30
    assert confirmation.without(journal) == JOURNAL


def test_a_deadline_of_another_boot_has_passed(
    paths: Paths, clock: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = noted(confirmation.awaited(paths, None, 60))
    other = tmp_path / "boot_id"
    other.write_text("another\n")
    monkeypatch.setattr(confirmation, "_BOOT", other)
    assert clock
    assert confirmation.seconds_left(journal) == 0


@pytest.mark.usefixtures("clock")
def test_what_comes_back(paths: Paths) -> None:
    assert confirmation.awaited(paths, None, 60)["back"] is None
    store(paths, "onion = true\n")
    assert paths.applied.stat().st_mode & 0o777 == 0o600
    first = confirmation.awaited(paths, JOURNAL, 60)
    assert first["back"] == {"name": "a.toml", "text": "onion = true\n"}
    store(paths, "[host]\n")
    assert confirmation.awaited(paths, noted(first), 60)["back"] == first["back"]


@pytest.mark.usefixtures("clock")
def test_without_a_way_back_it_is_refused(paths: Paths) -> None:
    confirmation.refuse_without_a_way_back(paths, None)
    with pytest.raises(RefusedError, match="nothing to go back to"):
        confirmation.refuse_without_a_way_back(paths, JOURNAL)
    store(paths, "")
    confirmation.refuse_without_a_way_back(paths, JOURNAL)


class Silent:
    """A reporter."""

    def step(self, words: str) -> None: ...
    def warn(self, words: str) -> None: ...
    def bootstrap(self, percent: int, words: str) -> None: ...


def test_what_is_due_is_undone_once_and_failures_are_noted(
    paths: Paths, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)
    store(paths, "[host]\n")
    system = LocalSystem()
    state.save(system, paths, noted(confirmation.awaited(paths, JOURNAL, 60)))
    wanted: list[str] = []

    def fails(_system: object, request: Request, *_: object) -> None:
        wanted.append(request.config.source.text)
        if len(wanted) == 1:
            raise RefusedError("not now")

    monkeypatch.setattr(undo, "up_under_lock", fails)
    assert undo.undo_when_due(system, paths, Silent()) == 60
    assert wanted == []
    clock[0] += 61
    with pytest.raises(RefusedError):
        undo.undo_when_due(system, paths, Silent())
    journal = state.load(paths)
    assert journal is not None
    monkeypatch.setattr(process, "running", lambda _: (7,))
    assert "has failed: not now" in confirmation.problems(journal, paths)[0]
    assert undo.undo_when_due(system, paths, Silent()) == 0
    assert state.load(paths) == JOURNAL
    assert undo.undo_when_due(system, paths, Silent()) == 0
    assert wanted == ["[host]\n"] * 2
