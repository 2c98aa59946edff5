"""The command line: what is printed, and with which status it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from onionward import __main__, __version__, lifecycle, preview, status
from onionward.cli import cli
from onionward.config import Config, Source
from onionward.errors import CommandError, JournalError, OnionwardError, RefusedError, StepError
from onionward.state import Journal
from tests.support import FACTS, policy


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line as `python -m onionward` does."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["onionward", *map(str, arguments)])
        try:
            __main__.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else -1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Configurations that `show` was asked for."""
    found: list[Config] = []

    def show(_system: object, config: Config, *_: object) -> str:
        found.append(config)
        return "shown\n"

    monkeypatch.setattr(preview, "show", show)
    return found


CONTEXT = click.Context(cli)
NAMES = cli.list_commands(CONTEXT)


def test_help_names_every_command(run: Run) -> None:
    for option in ("--help", "-h"):
        outcome = run(option)
        assert outcome.status == 0
        for name in NAMES:
            command = cli.get_command(CONTEXT, name)
            assert name in outcome.out
            assert command is not None
            assert command.help
    assert run("--version").out == f"onionward {__version__}\n"


@pytest.mark.parametrize("command", [name for name in NAMES if name != "lab"])
def test_every_command_takes_help_and_config(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert command == "run" or "--config" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sohw"],
        ["show"],
        ["show", "everything"],
        ["show", "policy", "more"],
        ["show", "policy", "--state", "open"],
        ["--nonsense"],
        ["up", "--nonsense"],
        ["--config"],
        ["lab", "exec"],
    ],
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert "Usage" in outcome.err + outcome.out or outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err


def test_an_unknown_argument_of_show_names_the_known_ones(run: Run) -> None:
    outcome = run("show", "everything")
    for known in ("policy", "nftables", "torrc", "resolver"):
        assert known in outcome.err


@pytest.mark.parametrize(
    "arguments", [["torrc", "--dialect", "freebsd"], ["system", "--pf-conf", __file__]]
)
def test_show_takes_options_of_pf_for_pf_only(run: Run, arguments: list[str]) -> None:
    outcome = run("show", *arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert arguments[1] in outcome.err


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("command", [["up"], ["check"], ["show", "policy"]])
def test_a_wrong_configuration(run: Run, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "o.toml"
    path.write_text("[host]\nroute = 'x'\n[tor]\nuser = 7\n")
    outcome = run(*command, "--config", path)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"onionward: {path}:2: host.route: ")
    assert f"\n{path}:4: tor.user: " in outcome.err


def test_config_before_and_after_the_command(
    run: Run, tmp_path: Path, loaded: list[Config]
) -> None:
    path, other = tmp_path / "o.toml", tmp_path / "p.toml"
    path.write_text("[host]\ninbound = 'none'\n")
    other.write_text("[host]\ninbound = 'all'\n")
    assert run("show", "policy", "--config", path).out == "shown\n"
    assert run("--config", path, "show", "policy").status == 0
    assert run("show", "--config", path, "policy").status == 0
    assert run("--config", path, "show", "policy", "--config", other).status == 0
    assert [config.inbound for config in loaded] == ["none", "none", "none", "all"]


def test_a_named_configuration_must_exist(run: Run, tmp_path: Path, loaded: list[Config]) -> None:
    for arguments in (
        ["--config", tmp_path / "absent", "show", "policy"],
        ["show", "policy", "--config", tmp_path / "absent"],
    ):
        outcome = run(*arguments)
        assert outcome.status == 2
        assert "there is no such file" in outcome.err
    assert loaded == []


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OnionwardError("it failed", "try again"), 1, "onionward: it failed\n  try again\n"),
        (StepError("half way"), 1, "onionward: half way\n"),
        (
            CommandError(["nft", "a b"], 3, "no"),
            1,
            "onionward: nft 'a b' ended with status 3: no\n",
        ),
        (RefusedError("not here"), 2, "onionward: not here\n"),
        (KeyboardInterrupt(), 1, "onionward: interrupted\n"),
    ],
)
def test_failures_end_with_one_message_and_a_status(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(preview, "show", fail)
    monkeypatch.setattr("onionward.config.load", lambda _path: Config())
    outcome = run("show", "policy")
    assert outcome.status == expected
    assert outcome.err.lstrip("\n") == words  # click ends the line of ^C
    assert outcome.out == ""


@pytest.mark.parametrize("command", [["status"], ["down"], ["lab", "up"], ["lab", "down"]])
def test_without_root(run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    outcome = run(*command)
    assert outcome.status == 2
    assert "needs root; nothing was touched\n  use sudo" in outcome.err


@pytest.mark.usefixtures("as_root")
def test_down_says_what_the_machine_is_now(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def down(*_: object, **options: Any) -> bool:
        asked.append(options)
        return len(asked) == 1

    monkeypatch.setattr(lifecycle, "down", down)
    assert run("down").out == "off: everything is as it was; traffic leaves in clear\n"
    assert run("down", "--force").out == "off already: nothing to put back\n"
    assert asked == [{"force": False}, {"force": True}]


@pytest.mark.usefixtures("as_root")
def test_status_in_both_forms(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    off = status.Status(1, "off", None, None, (), "stopped", None, "untouched", (), {}, {}, ())
    monkeypatch.setattr(status, "gather", lambda *_: off)
    assert run("status").out == "off: traffic leaves in clear\n"
    assert '"state": "off"' in run("status", "--json").out


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("state", "ends_with"), [("routed", 0), ("off", 3), ("blocked", 4), ("open", 5)]
)
def test_the_exit_status_tells_the_state(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    state: Literal["routed", "off", "blocked", "open"],
    ends_with: int,
) -> None:
    found = status.Status(1, state, None, None, (), "stopped", None, "untouched", (), {}, {}, ())
    monkeypatch.setattr(status, "gather", lambda *_: found)
    assert run("status").status == run("status", "--json").status == ends_with
    assert f"{ends_with} {state}" in " ".join(run("status", "--help").out.split())


@pytest.mark.usefixtures("as_root")
def test_the_exit_status_of_what_nobody_can_tell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> status.Status:
        raise JournalError("the journal is damaged")

    monkeypatch.setattr(status, "gather", damaged)
    assert run("status").status == 1
    assert run("status", "--exit-address=x", "--no-such-option").status == 2


def test_up_passes_on_what_was_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[lifecycle.Request] = []

    def up(_system: object, request: lifecycle.Request, *_: object) -> Journal:
        asked.append(request)
        return Journal("routed", 0.0, "abcd", 1)

    monkeypatch.setattr(lifecycle, "up", up)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("onionward.config.load", lambda _path: Config())
    run("up")
    run("up", "--yes")
    run("up", "--create-users")
    run("up", "--confirm", "60")
    assert run("up", "--confirm", "0").status == 2
    assert [request.confirm for request in asked] == [None, None, None, 60]
    assert [request.accept_cut for request in asked] == [False, True, False, False]
    assert [request.create_users for request in asked] == [False, False, True, False]


def test_check_prints_the_limits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(source=Source("o.toml"))
    monkeypatch.setattr("onionward.config.load", lambda _path: config)
    monkeypatch.setattr(
        lifecycle, "validate", lambda *_, **_options: (FACTS, ("no control groups",))
    )
    outcome = run("check")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "limit: no control groups",
        "o.toml: good; nft and tor accept it (interfaces: eth0)",
    ]


@pytest.mark.parametrize(
    ("what", "state", "expected"),
    [
        ("policy", "routed", "host: everything this machine sends goes through Tor"),
        ("nftables", "routed", 'comment "onionward: routed"'),
        ("nftables", "blocked", 'comment "onionward: blocked"'),
        ("torrc", "routed", "User onionward-tor"),
        ("resolver", "routed", "nameserver 127.0.0.1"),
    ],
)
def test_show(
    run: Run, monkeypatch: pytest.MonkeyPatch, what: str, state: str, expected: str
) -> None:
    monkeypatch.setattr("onionward.config.load", lambda _path: Config())
    monkeypatch.setattr(preview, "gather", lambda *_: FACTS)
    outcome = run("show", what, "--state", state)
    assert outcome.status == 0
    assert expected in outcome.out
    assert outcome.out.endswith("\n")
    assert f"{policy().stamp:#x}" in run("show", "nftables").out


@pytest.mark.parametrize(
    ("before", "typed", "handed"),
    [
        ((), ("ls",), ["--", "ls"]),
        (("--config", "c.toml"), ("--", "ls", "-l"), ["--config", "c.toml", "--", "ls", "-l"]),
        ((), ("ls", "--name", "n"), ["--", "ls", "--name", "n"]),
        (
            (),
            (
                "--new-circuits",
                "--allow",
                "audio",
                "--name=n",
                "--allow",
                "fd:3",
                "--as",
                "u",
                "ls",
            ),
            [
                *("--name", "n", "--as", "u", "--allow", "audio", "--allow", "fd:3"),
                *("--new-circuits", "--", "ls"),
            ],
        ),
    ],
)
def test_a_run_behind_other_options_is_the_same(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, ...],
    typed: tuple[str, ...],
    handed: list[str],
) -> None:
    found: list[list[str]] = []
    monkeypatch.setattr("onionward.app.start.main", found.append)
    assert run("--verbose", *before, "run", *typed).status == 0
    assert found == [handed]


def test_a_run_without_a_command_is_wrong_usage(run: Run) -> None:
    outcome = run("--verbose", "run", "--name", "n")
    assert outcome.status == 2
    assert "COMMAND" in outcome.err
