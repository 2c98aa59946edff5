"""watch, in a real terminal of 80 columns and 24 lines: what it shows, its keys, how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, inside_pid, open_machine, until
from tests.lab.watch_terminal import Terminal

SCOPES = '[host]\n[[user]]\nname = "alice"\n'
_TRY = "echo x > /dev/udp/192.0.2.7/4433; exit 0"


@dataclass(frozen=True)
class Ended:
    """How it has ended: its status, and whether all of the terminal is as it was."""

    status: int
    modes: list[Any]
    modes_before: list[Any]
    is_back: bool


@dataclass(frozen=True)
class Shown:
    """What was seen.

    Attributes:
        lines: by what was waited for.
        quit: by its key.
        killed: by SIGTERM.
        plain: lines where nobody has a terminal, and how it ended when the reader was gone.

    """

    lines: dict[str, str]
    quit: Ended
    killed: Ended
    plain: tuple[str, int]


@contextmanager
def terminal(machine: Machine) -> Iterator[Terminal]:
    made = Terminal(machine, "onionward", "watch")
    try:
        yield made
    finally:
        made.close()


def ended(made: Terminal) -> Ended:
    status = made.end()
    is_back = made.has_cursor and not made.on_other_screen
    return Ended(status, made.modes_now(), made.modes, is_back)


def plain(machine: Machine) -> tuple[str, int]:
    """Its lines until tor has told of a circuit, and how it ends when nobody reads any more."""
    process = machine.spawn("onionward", "watch")
    assert process.stdout is not None
    said = ""
    for awaited in ("scope account alice", " of alice: "):
        while awaited not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        machine.run("curl", "-s", f"http://{machine.lab.web4}/", user="alice")
    process.stdout.close()
    return said, process.wait(30)


def without_rights(machine: Machine) -> str:
    """What a key says to an account that may read tor's cookie, and no more."""
    may_read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    uid = machine.output("id", "-u", "onionward-tor").strip()
    account = ("setpriv", f"--reuid={uid}", "--clear-groups", *may_read)
    made = Terminal(machine, *account, "onionward", "watch")
    try:
        made.until("^only root may ask for the state")
        made.type("p")
        return made.until("^p: ")
    finally:
        made.close()


@pytest.fixture(scope="module")
def shown(lab: Lab) -> Iterator[Shown]:
    with open_machine(lab) as machine:
        machine.configure(SCOPES)
        machine.up()
        lines = {}
        with terminal(machine) as screen:
            lines["state"] = screen.until("^ROUTED since")
            # held open, by an account whose circuits are its own
            holder = machine.spawn(
                "/usr/bin/python3",
                "-Ic",
                "import socket, sys; "
                f"s = socket.create_connection(('{lab.web4}', 80)); print(flush=True); "
                "sys.stdin.read()",
                user="alice",
            )
            assert holder.stdout is not None
            assert holder.stdout.readline() == "\n"
            machine.run("bash", "-c", _TRY, user="bob")
            lines["circuit"] = screen.until(r"^  alice +\w+ → \w+ → \w+  1 stream$")
            lines["stream"] = screen.until(rf"^  alice +{lab.web4}:80  circuit \d")
            lines["attempt"] = screen.until(r"\(?bob\)? tried UDP 4433 → 192\.0\.2\.7")
            screen.type("n")
            lines["identity"] = screen.until("^new identity: fresh circuits")
            screen.type("p")
            screen.until("^pause: arrows, Enter; Esc goes back")
            lines["marked"] = screen.until("^> ")
            screen.type("\n")
            lines["paused"] = screen.until(r"account alice \(paused\)")
            screen.until("^paused: alice gets nothing through")
            screen.type("r")
            screen.until("^resume: arrows")
            screen.type("\n")
            lines["resumed"] = screen.until("^resumed: alice is routed as before")
            screen.resize(120, 40)
            screen.type("?")
            screen.until("^n   a new identity")
            until("it is as large as the terminal", lambda: "q quit" in screen.shown()[39])
            screen.type("?q")
            by_key = ended(screen)
        with terminal(machine) as screen:
            screen.until("^SCOPES")
            os.kill(inside_pid(screen.process), signal.SIGTERM)
            killed = ended(screen)
        lines["without rights"] = without_rights(machine)
        yield Shown(lines, by_key, killed, plain(machine))


def test_all_of_it_appears(shown: Shown) -> None:
    assert shown.lines["marked"] == "> alice"
    assert shown.lines.keys() >= {"state", "circuit", "stream", "attempt", "identity", "paused"}


def test_keys_of_others_say_why_they_do_nothing(shown: Shown) -> None:
    assert shown.lines["without rights"] == "p: only root may"


def test_the_terminal_is_as_it_was(shown: Shown) -> None:
    assert shown.quit.status == 0
    assert shown.killed.status in (-signal.SIGTERM, 128 + signal.SIGTERM)
    for each in (shown.quit, shown.killed):
        assert each.modes == each.modes_before
        assert each.is_back


def test_without_a_terminal_it_prints_changes_until_nobody_reads(shown: Shown) -> None:
    said, status = shown.plain
    assert " state routed; tor 100 %" in said
    assert "scope account alice" in said
    assert status in (-signal.SIGPIPE, 128 + signal.SIGPIPE), said
