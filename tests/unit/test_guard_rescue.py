"""Rules that the guard puts back while somebody else changes them: what is newer wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onionward import backend, state
from onionward.guard import rescue
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System
from tests.support import LocalSystem


class Filter:
    """A packet filter that notes what it is told; `meanwhile` is what others do by then."""

    NAME = "nftables"

    def __init__(self, held: str | None, meanwhile: list[Callable[[], object]]) -> None:
        self.held, self.loaded, self._meanwhile = held, list[str](), meanwhile

    def read(self, _system: System) -> str | None:
        return self.held

    def put_back(self, _system: System, text: str) -> None:
        self.loaded.append(text)
        if self._meanwhile:
            self._meanwhile.pop(0)()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(state=tmp_path / "state", runtime=tmp_path / "run")
    for directory in (found.state, found.runtime):
        directory.mkdir()
    found.rules.write_text("old")
    save(found)
    return found


def save(paths: Paths) -> None:
    state.save(LocalSystem(), paths, Journal("routed", 0.0, "one", 1, digest="known"))


@pytest.mark.parametrize(
    ("held", "changes", "loaded"),
    [
        ("rules", (), []),
        (None, (), ["old"]),
        (None, ("new",), ["old", "new"]),
        (None, ("new", "newer"), ["old", "new", "newer"]),
    ],
)
def test_what_is_in_force_is_read_again_until_nothing_changes(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    held: str | None,
    changes: tuple[str, ...],
    loaded: list[str],
) -> None:
    meanwhile: list[Callable[[], object]] = [
        lambda text=text: paths.rules.write_text(text)  # type: ignore[misc]
        for text in changes
    ]
    known = Filter(held, meanwhile)
    monkeypatch.setattr(backend, "in_force", lambda _: known)
    assert rescue.put_back(LocalSystem(), paths) == bool(loaded)
    assert known.loaded == loaded


def test_a_machine_that_is_off_by_then_gets_nothing_more(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Filter(None, [paths.journal.unlink])
    monkeypatch.setattr(backend, "in_force", lambda _: known)
    assert rescue.put_back(LocalSystem(), paths)
    assert known.loaded == ["old"]


def test_another_filter_by_then_loads_its_own(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Filter(None, [])
    other.NAME = "iptables-nft"
    filters = [Filter(None, [lambda: paths.rules.write_text("its")]), other, other]
    monkeypatch.setattr(backend, "in_force", lambda _: filters.pop(0))
    rescue.put_back(LocalSystem(), paths)
    assert other.loaded == ["its"]
