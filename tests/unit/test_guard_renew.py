"""Another guard after an upgrade of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onionward import applied, state
from onionward.errors import StepError
from onionward.guard import process as guard
from onionward.guard import renew
from onionward.lifecycle.activation import Request
from onionward.paths import Paths
from onionward.state import Journal
from tests.support import LocalSystem


class Log:
    def step(self, words: str) -> None: ...

    def warn(self, words: str) -> None: ...

    def bootstrap(self, percent: int, words: str) -> None: ...


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state", tmp_path / "run", tmp_path / "resolv.conf")
    made.runtime.mkdir()
    made.state.mkdir()
    made.journal.write_text("{}")
    made.lock_rules.write_text("rules of the guard")
    return made


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was done, in order; a guard runs, the machine is routed."""
    found: list[object] = []

    @contextmanager
    def at_work(*_: object) -> Iterator[None]:
        found.append("lock")
        yield
        found.append("unlock")

    def up(_system: object, request: Request, *_: object) -> None:
        found.append(("up", request.config.onion, request.accept_cut))

    routed = Journal(state="routed", since=1.0, instance="i", stamp=1, config="/c.toml")
    monkeypatch.setattr(renew, "at_work", at_work)
    monkeypatch.setattr(renew, "up_under_lock", up)
    monkeypatch.setattr(guard, "running", lambda _: (7,))
    monkeypatch.setattr(guard, "stop", lambda *_: found.append("stop"))
    monkeypatch.setattr(guard, "ensure", lambda *a: found.append(("start", a[2])))
    monkeypatch.setattr(state, "load", lambda _: routed)
    monkeypatch.setattr(applied, "load", lambda _: "onion = true")
    return found


def test_the_guard_is_replaced_and_the_configuration_in_force_loaded(
    paths: Paths, done: list[object]
) -> None:
    assert renew.renew(LocalSystem(), paths, Log())
    started = ("start", "rules of the guard")
    assert done == ["lock", "stop", started, ("up", True, True), "unlock"]


def test_without_a_guard_nothing_is_touched(
    paths: Paths, done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "running", lambda _: ())
    assert not renew.renew(LocalSystem(), paths, Log())
    assert done == []


def test_a_guard_of_another_machine_is_left_alone(paths: Paths, done: list[object]) -> None:
    paths.journal.unlink()
    assert not renew.renew(LocalSystem(), paths, Log())
    assert done == []


def test_what_somebody_has_begun_is_theirs_to_finish(
    paths: Paths, done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Journal(state="blocked", since=1.0, instance="i", stamp=1)
    monkeypatch.setattr(state, "load", lambda _: blocked)
    assert renew.renew(LocalSystem(), paths, Log())
    assert done == ["lock", "stop", ("start", "rules of the guard"), "unlock"]


def test_a_failure_is_said_and_the_status_tells(
    paths: Paths,
    done: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise StepError("the guard does not start")

    monkeypatch.setattr(guard, "ensure", fail)
    monkeypatch.setattr(renew, "PATHS", paths)
    with pytest.raises(SystemExit) as end:
        renew.main()
    assert end.value.code == 1
    assert "the guard does not start" in capsys.readouterr().err
