"""The configuration in force, and answers by another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward import applied, preview, state
from onionward.config import Config, Source
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")


def config(name: str, text: str) -> Config:
    return Config(source=Source(name, text))


def put_in_force(paths: Paths, name: str, text: str) -> None:
    undo = {"resolver": {"asked": "file"}}
    place = config(name, text).source.place
    state.save(System(), paths, Journal("routed", 0.0, "abcd", 1, undo, config=place))
    applied.save(System(), paths, config(name, text))


def test_nothing_is_in_force(paths: Paths) -> None:
    assert applied.deviation(paths, config("a.toml", "onion = true")) == ""
    found = applied.deviation(paths, config("a.toml", "onion = true"), "routed")
    assert found.startswith("onionward is not on")


def test_another_state_is_in_force(paths: Paths) -> None:
    put_in_force(paths, "a.toml", "")
    assert applied.deviation(paths, config("a.toml", ""), "routed") == ""
    found = applied.deviation(paths, config("a.toml", ""), "blocked")
    assert found == "the machine is routed; this is for blocked"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "", ""),
        ("copy.toml", "", ""),
        ("a.toml", "onion = true", "a.toml was changed since `onionward up`"),
        ("b.toml", "onion = true", f"{Path.cwd()}/a.toml is in force; this is by "),
    ],
)
def test_an_answer_by_another_configuration(paths: Paths, name: str, text: str, words: str) -> None:
    put_in_force(paths, "a.toml", "")
    found = applied.deviation(paths, config(name, text))
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_a_damaged_journal_says_nothing(paths: Paths) -> None:
    put_in_force(paths, "a.toml", "")
    paths.journal.write_text("{")
    assert applied.deviation(paths, config("b.toml", "onion = true")) == ""


def test_show_resolver_keeps_to_the_named_manager(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "gather", lambda *_: None)
    monkeypatch.setattr(preview, "_policy", lambda *_: type("Stub", (), {"dns_port": 941}))
    monkeypatch.setattr("onionward.dns.host.text", lambda _system, wanted, _paths: wanted)
    assert preview.show(System(), Config(), paths, "resolver", "routed") == "auto"
    put_in_force(paths, "a.toml", "")
    assert preview.show(System(), Config(), paths, "resolver", "routed") == "file"
