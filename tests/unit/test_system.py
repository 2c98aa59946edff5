"""The seam: how commands are run and files are written."""

from __future__ import annotations

import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from onionward.errors import CommandError
from onionward.system import System, find_tool
from tests.support import LocalSystem


class FakePopen:
    """A process that never was: ends as `ending` says."""

    status = 0
    stdout = "out"
    stderr = "err"
    hangs = False
    started: list[tuple[list[str], dict[str, Any]]] = []  # noqa: RUF012

    def __init__(self, argv: list[str], **options: Any) -> None:
        type(self).started.append((argv, options))
        self.args = argv
        self.returncode: int | None = None
        self.killed = False
        self.stdin = None

    def __enter__(self) -> FakePopen:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.returncode is not None, "nobody waited for it"

    def communicate(self, given: str, timeout: float) -> tuple[str, str]:
        self.given = given
        if self.hangs:
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.returncode = self.status
        return self.stdout, self.stderr

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> int:
        assert self.killed
        self.returncode = -9
        return -9

    def poll(self) -> int | None:
        return self.returncode


@pytest.fixture
def popen(monkeypatch: pytest.MonkeyPatch) -> type[FakePopen]:
    class Fresh(FakePopen):
        started: list[tuple[list[str], dict[str, Any]]] = []  # noqa: RUF012

    monkeypatch.setattr(subprocess, "Popen", Fresh)
    return Fresh


def test_a_query_returns_what_was_printed(popen: type[FakePopen]) -> None:
    assert System().query(["ip", "-j", "address"]) == "out"
    ((argv, options),) = popen.started
    assert argv == ["ip", "-j", "address"]
    assert not options.get("shell")
    assert options["stdin"] == subprocess.PIPE


def test_the_environment_is_fixed(popen: type[FakePopen], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/home/somebody/bin")
    monkeypatch.setenv("LD_PRELOAD", "x.so")
    monkeypatch.setenv("HOME", "/root")
    System().query(["ip"])
    environment = popen.started[0][1]["env"]
    assert environment["LC_ALL"] == "C.UTF-8"
    assert "somebody" not in environment["PATH"]
    assert environment["HOME"] == "/root"
    assert environment.keys() <= {"LC_ALL", "PATH", "HOME", "TMPDIR", "TERM"}


def test_a_failing_command_is_ready_to_paste(popen: type[FakePopen]) -> None:
    popen.status = 3
    popen.stderr = "  no such thing\n"
    with pytest.raises(CommandError) as caught:
        System().query(["ip", "route", "add", "a b"])
    assert str(caught.value) == "ip route add 'a b' ended with status 3: no such thing"
    assert (caught.value.status, caught.value.argv) == (3, ("ip", "route", "add", "a b"))
    assert caught.value.exit_status == 1


def test_a_failure_without_words_on_stderr(popen: type[FakePopen]) -> None:
    popen.status, popen.stderr = 1, ""
    with pytest.raises(CommandError, match=r"ended with status 1: out$"):
        System().query(["x"])
    popen.stdout = ""
    with pytest.raises(CommandError, match=r"it printed no reason$"):
        System().query(["x"])


def test_an_accepted_status_is_no_failure(popen: type[FakePopen]) -> None:
    popen.status = 1
    assert System().query(["ss"], accept=(0, 1)) == "out"
    popen.status = 2
    with pytest.raises(CommandError):
        System().query(["ss"], accept=(0, 1))


def test_a_command_that_hangs_is_killed(popen: type[FakePopen]) -> None:
    popen.hangs = True
    with pytest.raises(CommandError, match=r"x did not end in time: after 2.5 s") as caught:
        System().query(["x"], timeout=2.5)
    assert caught.value.status is None


def test_a_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "x")

    monkeypatch.setattr(subprocess, "Popen", missing)
    with pytest.raises(CommandError, match="No such file") as caught:
        System().query(["x"])
    assert caught.value.status == 127
    assert "x is missing or cannot be executed: install its package" in str(caught.value)


def test_a_change_is_announced_before_it_is_made(popen: type[FakePopen]) -> None:
    class Careful(System):
        def effect(self, words: str) -> None:
            assert popen.started == []
            raise KeyboardInterrupt(words)

    with pytest.raises(KeyboardInterrupt, match=r"ip link set 'a b'"):
        Careful().change(["ip", "link", "set", "a b"])
    assert popen.started == []
    assert System().query(["ip"]) == "out"


def test_a_trace_has_times(popen: type[FakePopen], capsys: pytest.CaptureFixture[str]) -> None:
    System(trace=True).change(["ip", "link"])
    System(trace=True).query(["ip", "address"])
    System().change(["ip", "route"])
    printed = capsys.readouterr().err
    assert printed.startswith("[")
    assert printed.endswith("] ip link\n")
    assert printed.count("\n") == 1


def test_a_file_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    old = path.stat().st_ino
    LocalSystem().write_file(path, "new \udcff\n", mode=0o600)
    assert path.read_bytes() == b"new \xff\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != old
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    (tmp_path / "f").symlink_to(target)
    LocalSystem().write_file(tmp_path / "f", "ours")
    assert target.read_text() == "theirs"
    assert not (tmp_path / "f").is_symlink()


@pytest.mark.parametrize("failing", ["fsync", "fchmod", "fchown"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"os.{failing}", fail)
    with pytest.raises(OSError, match="No space left"):
        LocalSystem().write_file(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        LocalSystem().write_file(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_directories(tmp_path: Path) -> None:
    system = LocalSystem()
    system.make_directory(tmp_path / "a" / "b", mode=0o700)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    system.make_directory(tmp_path / "a" / "b", mode=0o755)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755
    system.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    effects = list(system.effects)
    system.remove_tree(tmp_path / "a")
    system.remove_file(tmp_path / "a")
    assert system.effects == effects


def test_removing_a_dangling_link(tmp_path: Path) -> None:
    link = tmp_path / "l"
    link.symlink_to("/nowhere")
    LocalSystem().remove_file(link)
    assert not link.is_symlink()


def test_killing_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", kill)
    system = LocalSystem()
    system.kill(7, signal.SIGTERM)
    assert sent == [(7, signal.SIGTERM)]
    assert system.effects == ["kill -TERM 7"]


def test_tools_are_looked_for_where_root_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "no-such-tool"
    mine.write_text("#!/bin/sh")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool("no-such-tool") is None
    assert find_tool("sh") is not None


def test_flags_of_a_file_system_without_flags(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    assert System().is_immutable(path) is False
