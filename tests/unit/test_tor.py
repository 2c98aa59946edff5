"""tor's words: how far it is, what is wrong, and what it is recognised by."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.errors import CommandError, RefusedError, TorError
from onionward.facts import Account
from onionward.paths import Paths
from onionward.tor import account, process
from onionward.tor.control import Phase, advice, log_tail, parse_phase
from tests.support import ScriptedSystem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"',
            Phase(100, "Done"),
        ),
        (
            'WARN BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY="Connecting to a relay" '
            'WARNING="No route to host" REASON=NOROUTE COUNT=3 RECOMMENDATION=warn '
            'HOSTID="ABCD" HOSTADDR="192.0.2.1:443"',
            Phase(5, "Connecting to a relay", "No route to host", "NOROUTE"),
        ),
        (
            'NOTICE BOOTSTRAP PROGRESS=45 SUMMARY="Asking for \\"relay\\" descriptors"',
            Phase(45, 'Asking for "relay" descriptors'),
        ),
        ("NOTICE BOOTSTRAP PROGRESS=0", Phase(0, "")),
    ],
)
def test_a_phase(text: str, expected: Phase) -> None:
    assert parse_phase(text) == expected


@pytest.mark.parametrize("text", ["", "NOTICE BOOTSTRAP TAG=x", "PROGRESS=much"])
def test_no_phase(text: str) -> None:
    with pytest.raises(TorError, match="is not understood"):
        parse_phase(text)


def test_a_phase_in_words() -> None:
    assert Phase(5, "Connecting").words() == "5 %: Connecting"
    assert Phase(5, "Connecting", "No route").words() == "5 %: Connecting (No route)"


@pytest.mark.parametrize(
    ("phase", "log", "expected"),
    [
        (Phase(5, "", "", "NOROUTE"), "", "is the uplink up?"),
        (Phase(5, "", "", "CONNECTREFUSED"), "", "relays refuse"),
        (Phase(5, "", "", "TIMEOUT"), "", "do not answer"),
        (Phase(5, "", "", "CLOCK_SKEW"), "", "the clock is wrong"),
        (Phase(5, "", "Clock skew -7200", "TIMEOUT"), "", "the clock is wrong"),
        (Phase(5, "", "", "TIMEOUT"), "[warn] Our clock is 3 hours behind", "the clock is wrong"),
        (
            Phase(14, "", "", "DONE"),
            "bad CERTS cell: At least one certificate expired",
            "by it; set",
        ),
        (Phase(5, "", "", "RESOURCELIMIT"), "", "file descriptors"),
        (Phase(5, ""), "", ""),
        (Phase(5, "", "", "SOMETHING"), "[warn] nothing about time", ""),
    ],
)
def test_advice(phase: Phase, log: str, expected: str) -> None:
    found = advice(phase, log)
    assert expected in found
    assert bool(found) == bool(expected)


def test_the_end_of_the_log(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert log_tail(paths) == ""
    paths.tor_log.parent.mkdir()
    paths.tor_log.write_bytes(b"a [notice] x\nb [warn] one \xff\nc [err] two\nd [notice] y\n")
    assert log_tail(paths, 1) == "c [err] two"
    assert log_tail(paths).splitlines() == ["b [warn] one \ufffd", "c [err] two"]


def test_the_account_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Account("x", 900, 900, Path("/"))
    answers = iter([None, made])
    monkeypatch.setattr(account, "find_account", lambda _name: next(answers))
    system = ScriptedSystem({"useradd": ""})
    assert account.ensure(system, "x", Paths()) == made
    assert len(system.asked) == 1
    assert "--system" in system.asked[0]
    assert "nologin" in system.asked[0]
    monkeypatch.setattr(account, "find_account", lambda _name: made)
    idle = ScriptedSystem()
    assert account.ensure(idle, "x", Paths()) == made
    assert idle.effects == []


def test_an_account_that_useradd_has_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "find_account", lambda _name: None)
    with pytest.raises(TorError, match="useradd made no account x"):
        account.ensure(ScriptedSystem({"useradd": ""}), "x", Paths())


def test_tor_reads_nothing_of_the_system_s_own() -> None:
    argv = process.command(Path("/run/x"))
    assert argv[1:3] == ["--defaults-torrc", "/dev/null"]
    assert argv[-2:] == ["-f", "/run/x"]


def test_this_process_is_no_tor() -> None:
    assert process.running(Paths(Path("/nowhere"), Path("/nowhere"))) == ()
    assert not process.is_own(2**22)


def test_a_refused_configuration_speaks_with_tor_s_words() -> None:
    words = "Jan 01 [notice] x\nJan 01 [warn] Unknown option 'A'.\nJan 01 [err] failed\n"
    system = ScriptedSystem({"tor": CommandError(["tor"], 1, words)})
    with pytest.raises(RefusedError, match=r"configuration: Unknown option 'A'.; failed") as caught:
        process.verify_config(system, "A\n")
    assert caught.value.exit_status == 2
    assert system.effects == []
    assert system.asked[0].endswith("--verify-config")
