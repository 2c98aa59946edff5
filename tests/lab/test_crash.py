"""onionward or its tor killed at any moment: nothing leaves in clear, and `down` still restores.

    up:    [effect 1] [effect 2] … [nft blocked] … [tor] … [nft routed] …     SIGKILL before each
    down:  [kill tor] … [nft remove] … [rm journal] …                         SIGKILL before each

Meanwhile programs of the host talk over UDP, ICMP, TCP and DNS without a pause, of which the
witness on the wire may see nothing from the first change after *blocked* until the rules are
removed by `down`. Before and after that it must see them, or it is no witness.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    BLOCKED,
    LOG,
    REMOVED,
    ROUTED,
    Effect,
    completed,
    killing,
    logged,
    reached,
    run_killing,
)
from tests.lab.lifecycle_machine import Machine, difference, inside_pid, open_machine, until
from tests.lab.lifecycle_truth import assert_status_is_true
from tests.lab.lifecycle_wire import Wire

# after one of these deaths `up` is tried again; after the others only `down`, to stay quick
SAMPLE = (BLOCKED, "tor --defaults-torrc", ROUTED, "write /etc/resolv.conf", REMOVED)


@dataclass(frozen=True)
class Stage:
    """The host, the programs that talk in it, and the witness."""

    machine: Machine
    wire: Wire

    def onionward(self, fatal: int, *argv: str) -> tuple[int, list[Effect]]:
        """Run a command that dies before its change number `fatal`."""
        return run_killing(self.machine, fatal, *argv)

    def down(self) -> float:
        """Everything back; returns when the rules were about to go, or now if they were gone."""
        status, effects = self.onionward(0, "down")
        assert status == 0
        return reached(effects, REMOVED) or effects[0].time

    def restored(self, before: dict[str, object]) -> None:
        """The machine is off, exactly as it was, and its programs reach the wire again."""
        assert difference(before, self.machine.snapshot()) == ""
        since = time.time()
        until("programs speak in clear again", lambda: bool(self.wire.packets(since)))


def is_sample(words: str) -> bool:
    return words.startswith(SAMPLE)


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with open_machine(lab) as machine, Wire(machine) as wire:
        if machine.run("id", "onionward-tor").returncode:
            machine.up()  # the account, which stays
            machine.down()
        chatter = machine.script("lifecycle_chatter.py", lab.web4, lab.web6, lab.dns4)
        assert chatter.stdout is not None
        assert chatter.stdout.readline() == "talking\n"
        yield Stage(machine, wire)


def test_killed_at_every_change_of_up(stage: Stage) -> None:
    before = stage.machine.snapshot()
    status, all_effects = stage.onionward(0, "up")
    assert status == 0
    stage.wire.assert_silent(completed(all_effects, BLOCKED) or 0, stage.down())
    stage.restored(before)
    for number, fatal in enumerate(all_effects, 1):
        status, effects = stage.onionward(number, "up")
        assert status == -9, f"{number} ({fatal.words}): not killed"
        blocked = completed(effects, BLOCKED)
        assert_status_is_true(stage.machine)
        if is_sample(fatal.words):
            stage.machine.up()
            assert stage.machine.status()["state"] == "routed"
            assert stage.machine.status()["problems"] == []
        opened = stage.down()
        if blocked is not None:
            stage.wire.assert_silent(blocked, opened)
        stage.restored(before)


def test_killed_at_every_change_of_down(stage: Stage) -> None:
    before = stage.machine.snapshot()
    stage.machine.up()
    status, all_effects = stage.onionward(0, "down")
    assert status == 0
    stage.restored(before)
    for number, fatal in enumerate(all_effects, 1):
        stage.machine.up()
        routed = time.time()
        status, effects = stage.onionward(number, "down")
        if status == 0 and len(effects) < number:
            # fewer connections were there to be cut this time
            stage.restored(before)
            continue
        assert status == -9, f"{number} ({fatal.words}): not killed"
        assert_status_is_true(stage.machine)
        if is_sample(fatal.words):
            stage.machine.up()
            assert stage.machine.status()["problems"] == []
        opened = stage.down()
        if completed(effects, REMOVED) is not None:
            opened = reached(effects, REMOVED) or 0
        stage.wire.assert_silent(routed, opened)
        stage.restored(before)


def test_killed_at_every_change_of_the_first_up(stage: Stage) -> None:
    """On a machine that onionward has never run on, there is an account to make."""
    before = stage.machine.snapshot()
    effects: list[Effect] = []
    while not any(effect.words.startswith(BLOCKED) for effect in effects):
        stage.machine.run("userdel", "onionward-tor")
        stage.machine.output("rm", "-rf", "/var/lib/onionward")
        status, effects = stage.onionward(len(effects) + 1, "up")
        assert status == -9
        assert_status_is_true(stage.machine)
        stage.down()
        stage.restored(before)
    assert any(effect.words.startswith("useradd") for effect in effects)


def test_killed_at_random_moments_of_up(stage: Stage) -> None:
    before = stage.machine.snapshot()
    chance = random.Random(7)  # noqa: S311  # moments, not secrets
    for _ in range(5):
        process = stage.machine.spawn(*killing(0, "up"))
        victim = inside_pid(process)
        log = stage.machine.path(LOG)
        log.unlink(missing_ok=True)
        until("up has begun", log.exists)
        time.sleep(chance.uniform(0.0, 1.2))
        subprocess.run(["kill", "-KILL", str(victim)], check=False)
        process.wait()
        effects = logged(stage.machine)
        assert_status_is_true(stage.machine)
        blocked = completed(effects, BLOCKED)
        opened = stage.down()
        if blocked is not None:
            stage.wire.assert_silent(blocked, opened)
        stage.restored(before)


@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0])
def test_tor_killed_during_up(stage: Stage, delay: float) -> None:
    machine = stage.machine
    before = machine.snapshot()
    log = machine.path(LOG)
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        machine.host.command(killing(0, "up")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until("tor is there", lambda: log.exists() and " tor --defaults-torrc" in log.read_text())
    until("tor is there", lambda: bool(machine.tor_pids()))
    time.sleep(delay)
    machine.kill_tor()
    _, errors = process.communicate(timeout=60)
    effects = logged(machine)
    blocked = completed(effects, BLOCKED)
    assert blocked is not None
    assert_status_is_true(stage.machine)
    if process.returncode == 0:
        assert machine.status()["state"] == "blocked"
        stage.wire.assert_silent(blocked, stage.down())
    else:
        assert process.returncode == 1
        assert "Everything was put back" in errors
        stage.wire.assert_silent(blocked, reached(effects, REMOVED) or 0)
    stage.restored(before)
