"""`up --confirm` undoes itself, whatever becomes of the session; and two onionwards at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import BLOCKED, killing, logged, reached, run_logged
from tests.lab.lifecycle_machine import CONFIG, Machine, difference, inside_pid, open_machine, until
from tests.lab.lifecycle_wire import Wire, now

WAITS = 6
ANOTHER = '[bypass]\nnetworks = ["192.0.2.0/24"]\n'
UP = ("onionward", "up", "--config", str(CONFIG))


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        if opened.run("id", "onionward-tor").returncode:
            opened.up()  # the account, which stays
            opened.down()
        yield opened


@contextmanager
def chatter(machine: Machine) -> Iterator[Wire]:
    """Programs that talk without a pause, and the witness, who hears them."""
    lab = machine.lab
    talker = machine.script("lifecycle_chatter.py", lab.web4, lab.web6, lab.dns4)
    assert talker.stdout is not None
    assert talker.stdout.readline() == "talking\n"
    with Wire(machine) as wire:
        until("the witness sees them", lambda: bool(wire.packets()))
        yield wire


def helpers(machine: Machine) -> list[int]:
    """The processes that undo, as the machine numbers them."""
    found = machine.run("pgrep", "-f", "onionward.confirmation.process").stdout
    return [int(pid) for pid in found.split()]


def is_off(machine: Machine) -> bool:
    return not helpers(machine) and machine.status()["state"] == "off"


def test_nobody_confirms_and_the_machine_was_off(machine: Machine) -> None:
    before = machine.snapshot()
    with chatter(machine) as wire:
        effects = run_logged(machine, "up", "--confirm", str(WAITS))
        routed, blocked = now(), reached(effects, "write /etc/resolv.conf")
        assert blocked is not None
        report = machine.status()
        assert (report["state"], report["problems"]) == ("routed", [])
        assert 0 < report["confirm"] <= WAITS
        assert machine.journal()["undo"]["confirm"]["pid"] == helpers(machine)[0]
        assert "without `onionward confirm`" in machine.output("onionward", "status")
        time.sleep(WAITS - 3)
        wire.assert_silent(blocked, now())
        until("it is undone", lambda: is_off(machine), 20)
        assert now() - routed >= WAITS - 1
        until("they speak in clear again", lambda: bool(wire.packets(now() - 0.5)))
        machine.close()
    assert difference(before, machine.snapshot()) == ""


def test_nobody_confirms_and_the_machine_was_on(machine: Machine) -> None:
    before = machine.snapshot()
    with chatter(machine) as wire:
        machine.up()
        routed = now()
        applied = machine.path("/var/lib/onionward/applied.toml")
        first = applied.read_text()
        assert applied.stat().st_mode & 0o777 == 0o600
        machine.configure(ANOTHER)
        said = machine.up("--confirm", str(WAITS)).stdout
        assert "onionward confirm" in said
        assert applied.read_text() != first
        assert "192.0.2.0" in machine.output("nft", "list", "ruleset")
        # more of the same goes back to the same
        machine.up("--confirm", str(WAITS))
        assert len(helpers(machine)) == 1
        until("it is undone", lambda: not helpers(machine), 20)
        report = machine.status()
        assert (report["state"], report["problems"], report["confirm"]) == ("routed", [], None)
        assert applied.read_text() == first
        assert "192.0.2.0" not in machine.output("nft", "list", "ruleset")
        wire.assert_silent(routed, now())
        machine.close()
        machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_confirmed_in_time(machine: Machine) -> None:
    before = machine.snapshot()
    done = machine.onionward("confirm")
    assert (done.returncode, "nothing to confirm" in done.stderr) == (1, True)
    assert difference(before, machine.snapshot()) == ""
    machine.up("--confirm", "60")
    said = machine.onionward("confirm")
    assert said.returncode == 0, said.stderr
    assert "confirmed with " in said.stdout
    assert f"{CONFIG} stays (routed: host: " in said.stdout
    assert helpers(machine) == []
    assert machine.status()["confirm"] is None
    assert machine.onionward("confirm").returncode == 1
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_the_session_dies(machine: Machine) -> None:
    before = machine.snapshot()
    words = f"onionward up --config {CONFIG} --confirm {WAITS}; sleep 1000"
    terminal = machine.spawn("script", "--quiet", "--command", words, "/dev/null")
    until("it waits", lambda: bool(helpers(machine)) and machine.status()["state"] == "routed", 30)
    until("up has ended", lambda: machine.run("pgrep", "-f", "^sleep 1000").returncode == 0)
    shell = machine.output("pgrep", "-f", "^sleep 1000").split()
    subprocess.run(["kill", "-KILL", str(inside_pid(terminal))], check=True)
    machine.close()
    until("the session is gone", lambda: machine.run("kill", "-0", *shell).returncode != 0)
    assert helpers(machine)
    until("it is undone", lambda: is_off(machine), 20)
    assert difference(before, machine.snapshot()) == ""


def test_up_is_killed_and_undone_all_the_same(machine: Machine) -> None:
    before = machine.snapshot()
    effects = run_logged(machine, "up", "--confirm", "60")
    machine.down()  # ends the helper too
    assert helpers(machine) == []
    assert difference(before, machine.snapshot()) == ""
    words = [effect.words for effect in effects]
    blocked = next(n for n, w in enumerate(words, 1) if w.startswith(BLOCKED))
    assert machine.run(*killing(blocked + 2, "up", "--confirm", "2")).returncode == -9
    assert logged(machine)
    assert machine.status()["state"] == "blocked"
    until("it is undone", lambda: is_off(machine), 20)
    assert difference(before, machine.snapshot()) == ""


def test_a_killed_helper_is_told(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up("--confirm", "60")
    for pid in helpers(machine):
        machine.output("kill", "-KILL", str(pid))
    until("it is gone", lambda: not helpers(machine))
    report = machine.status()
    assert report["state"] == "routed"
    assert "NOT CONFIRMED" in "\n".join(report["problems"])
    machine.up("--confirm", "60")
    assert machine.status()["problems"] == []
    assert len(helpers(machine)) == 1
    for pid in helpers(machine):
        machine.output("kill", "-KILL", str(pid))
    assert machine.onionward("confirm").returncode == 0
    assert machine.status()["problems"] == []
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_one_that_holds_the_lock_is_named(machine: Machine) -> None:
    before = machine.snapshot()
    first = subprocess.Popen(
        machine.host.command(UP), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lock = machine.path("/run/onionward/lock")
    until("the first is at work", lambda: lock.exists() and bool(lock.read_text()))
    victim = inside_pid(first)
    subprocess.run(["kill", "-STOP", str(victim)], check=True)
    pid = lock.read_text().split()[0]
    done = machine.onionward("down")
    words = f"process {pid}, 'onionward up --config {CONFIG}', since "
    assert done.returncode == 1
    assert f"waiting for another onionward: {words}" in done.stdout
    assert f"another onionward is at work: {words}" in done.stderr
    second = machine.spawn("onionward", "down")
    time.sleep(1)
    # nsenter stops itself when what it runs is stopped
    subprocess.run(["kill", "-CONT", str(victim), str(first.pid)], check=True)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == 0, errors
    assert second.wait(30) == 0
    assert difference(before, machine.snapshot()) == ""
