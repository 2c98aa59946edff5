"""The demonstrations: what they show on a lab, and that they notice when protection is broken."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from onionward.lab import Lab
from onionward.lab.demo import SCENES
from onionward.lab.demo.stage import Stage
from onionward.system import System
from tests.documents.likeness import columns, difference, rows
from tests.documents.markdown import read
from tests.documents.session import PROJECT
from tests.lab.lifecycle_machine import open_machine


class Opened(Stage):
    """A machine whose rules somebody removes as soon as they are there."""

    def onionward(self, command: str) -> None:
        super().onionward(command)
        if command == "up":
            # the guard would put them back
            self.run(self.machine, ["pkill", "-KILL", "-f", "onionward.guard.loop"])
            time.sleep(0.5)
            self.run(self.machine, ["nft", "flush", "ruleset"])


@pytest.fixture
def machines(lab: Lab) -> Iterator[None]:
    """Both machines are off, and afterwards off again."""
    with open_machine(lab), open_machine(lab, "gateway"):
        yield


def played(lab: Lab, directory: Path, scope: str, kind: type[Stage] = Stage) -> tuple[int, str]:
    """Exit status and words of a demonstration."""
    words = io.StringIO()
    stage = kind(System(), lab, Console(file=words, width=160, highlight=False), directory)
    status = SCENES[scope](stage)
    return status, words.getvalue()


def row(words: str, title: str) -> list[str]:
    """The cells of the last row with this title."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in words.splitlines()]
    return next(cells[1:] for cells in reversed(rows) if cells and cells[0] == title)


def shown(title: str) -> list[str]:
    """What README shows of a demonstration, from a line on."""
    readme = read(PROJECT / "README.md", PROJECT)
    (block,) = (b for b in readme.blocks if b.language == "text" and title in b.text)
    return list(block.lines[next(n for n, x in enumerate(block.lines) if title in x) :])


def count(cell: str) -> int:
    return int(cell.removesuffix(" of all").removesuffix(" seen"))


@pytest.mark.usefixtures("machines")
class TestScopes:
    def test_host(self, lab: Lab, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        status, words = played(lab, tmp_path, "host")
        assert (status, words.splitlines()[-1]) == (0, "0"), words
        off, on = row(words, "all packets in clear on the wire")
        assert count(off) > 20
        assert count(on) == 0
        assert row(words, "onion service: server saw") == ["no answer", "127.0.0.1 (its own tor)"]
        # onionward itself speaks to the terminal
        in_readme = shown("Protection off")
        said = [line for line in in_readme if line.startswith(("[", "off:"))]
        unlike = difference(said, capfd.readouterr().out.splitlines())
        assert not unlike, unlike
        others = columns([line for line in in_readme if line not in said])
        unlike = difference(others, columns(words.splitlines()))
        assert not unlike, unlike

    def test_app(self, lab: Lab, tmp_path: Path) -> None:
        status, words = played(lab, tmp_path, "app")
        assert (status, words.splitlines()[-1]) == (0, "0"), words
        off, *on = row(words, "all packets in clear")
        assert count(off) > 20
        assert [count(cell) for cell in on] == [0, 0]
        assert row(words, "onion service") == ["no answer", "Tor (onion)", "Tor (onion)"]
        _, one, other = (set(cell.split(", ")) for cell in row(words, "circuits"))
        assert one
        assert other
        assert not one & other

    def test_lan(self, lab: Lab, tmp_path: Path) -> None:
        status, words = played(lab, tmp_path, "lan")
        assert (status, words.splitlines()[-1]) == (0, "0"), words
        off, on = row(words, "all packets of clients in clear")
        assert count(off) > 60
        assert count(on) == 0
        assert row(words, "page by name")[0].startswith("Tor 2001:db8:3::")
        assert row(words, "onion service") == ["Tor (onion)"] * 3
        circuits = [set(cell.split(", ")) for cell in row(words, "circuits")]
        assert len(set.union(*circuits)) == sum(map(len, circuits)) >= 6
        assert row(words, "the gateway's own page: server saw") == ["itself", "itself"]
        # README shows some of it
        assert set(rows(shown("What servers saw"))) <= set(rows(words.splitlines())), words

    def test_user(self, lab: Lab, tmp_path: Path) -> None:
        status, words = played(lab, tmp_path, "user")
        assert (status, words.splitlines()[-1]) == (0, "0"), words
        off, *on = row(words, "all packets in clear")
        assert count(off) > 60
        assert on[:2] == ["0", "0"]
        assert count(on[2]) > 20
        assert row(words, "tries: ping") == ["3 seen", "refused", "refused", "1 seen"]
        assert row(words, "page by name")[2] == "itself"
        alice, bob, carol = row(words, "circuits")
        assert not set(alice.split(", ")) & set(bob.split(", "))
        assert not carol

    def test_all(self, lab: Lab, tmp_path: Path) -> None:
        status, words = played(lab, tmp_path, "all")
        assert (status, words.splitlines()[-1]) == (0, "0"), words
        off, *on = row(words, "packets of those who are routed")
        assert count(off) > 60
        assert on == ["0", "0"]
        assert all(count(cell) for cell in row(words, "packets of the others")[1:])

    @pytest.mark.parametrize(
        ("scope", "problem"),
        [
            ("lan", "problem: on: client3, page over IPv6: the server saw itself, not Tor"),
            ("user", "problem: on: alice, page by name: the server saw itself, not Tor"),
        ],
    )
    def test_what_is_not_protected_is_told(
        self, lab: Lab, tmp_path: Path, scope: str, problem: str
    ) -> None:
        status, words = played(lab, tmp_path, scope, Opened)
        assert status == 1
        assert problem in words
        assert int(words.splitlines()[-1]) > 0


def test_the_command_builds_a_lab_and_removes_it() -> None:
    argv = [sys.executable, "-m", "onionward", "lab", "demo", "--scope", "onion"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        words, _ = process.communicate(timeout=120)
    assert (process.returncode, words.splitlines()[-1]) == (0, "0"), words
    lab_lines = shown("A private Tor network")
    lab_lines = lab_lines[: lab_lines.index("")]
    unlike = difference(lab_lines, words.splitlines()[: len(lab_lines)])
    assert not unlike, unlike
    off, on, dead = row(words, "queries for names under .onion")
    assert count(off) > 3
    assert (on, dead) == ("0", "0")
    assert row(words, "onion service") == ["no answer"] * 3
    assert "Tor (onion)" in words
    assert "\x1b" not in words
    assert not Path(f"/run/onionward-lab/demo-{process.pid}").exists()


def test_a_scope_that_does_not_exist_is_a_wrong_usage() -> None:
    argv = [sys.executable, "-m", "onionward", "lab", "demo", "--scope", "container"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"is not one of {', '.join(repr(scope) for scope in SCENES)}" in done.stderr
