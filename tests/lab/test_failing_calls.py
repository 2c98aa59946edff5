"""Every change that `up`, a reload and `down` make fails once: no leak, true words, a way back.

As test_crash.py, but the program lives on and has to cope: disk full, read-only, not permitted, a
command that is missing or ends with 1. Only some of them fail; ONIONWARD_SWEEP=1 fails them all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    BLOCKED,
    LOG,
    REMOVED,
    Effect,
    completed,
    logged,
    reached,
    strided,
)
from tests.lab.lifecycle_machine import CONFIG, HERE, Done, Machine, difference, open_machine, until
from tests.lab.lifecycle_truth import assert_status_is_true, in_force
from tests.lab.lifecycle_wire import Wire

OTHER_TOR = "[tor]\ntrans_port = 942\n"  # tor starts anew, behind a block
OTHER_RULES = '[bypass]\nnetworks = ["192.0.2.0/24"]\n'  # one transaction
BACK = (
    "Everything was put back",
    "Nothing was changed",
    "nothing else was touched",
    "nothing was touched",
)
AGAIN = 2  # after every so many failures `up` is tried again


@dataclass(frozen=True)
class Stage:
    """The host, programs that talk in it without a pause, and the witness."""

    machine: Machine
    wire: Wire

    def failing(self, number: int, *argv: str) -> tuple[Done, list[Effect]]:
        """Run a command whose change of this number fails."""
        script = str(HERE / "lifecycle_failer.py")
        words = (script, str(number), LOG, "--config", str(CONFIG), *argv)
        done = self.machine.run("python", "-P", *words)
        effects = logged(self.machine)
        where = f"{number} ({effects[number - 1].words if number <= len(effects) else '?'})"
        assert done.returncode in (0, 1), f"{where}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{where}: {done.stderr}"
        return done, effects

    def whole(self, *argv: str) -> list[Effect]:
        """What a command changes when nothing fails."""
        done, effects = self.failing(0, *argv)
        assert done.returncode == 0, done.stderr
        return effects

    def down(self) -> float:
        """Everything back; returns when the rules were about to go, or now if they were gone."""
        effects = self.whole("down")
        return reached(effects, REMOVED) or (effects[0].time if effects else time.time())

    def restored(self, before: dict[str, object], where: str) -> None:
        """The machine is off, exactly as it was, and its programs are heard in clear again."""
        assert difference(before, self.machine.snapshot()) == "", where
        since = time.time()
        until("programs speak in clear again", lambda: bool(self.wire.packets(since)))

    def works(self) -> None:
        self.machine.up()
        report = self.machine.status()
        assert (report["state"], report["problems"]) == ("routed", [])


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with open_machine(lab) as machine, Wire(machine) as wire:
        if machine.run("id", "onionward-tor").returncode:
            machine.up()  # the account, which stays
            machine.down()
        chatter = machine.script("lifecycle_chatter.py", lab.web4, lab.web6, lab.dns4)
        assert chatter.stdout is not None
        assert chatter.stdout.readline() == "talking\n"
        until("the witness sees them", lambda: bool(wire.packets()))
        yield Stage(machine, wire)


def test_every_change_of_up_fails(stage: Stage) -> None:
    before = stage.machine.snapshot()
    changes = stage.whole("up")
    stage.down()
    stage.restored(before, "nothing failed")
    for turn, number in enumerate(strided(len(changes), 3)):
        where = f"{number}: {changes[number - 1].words}"
        done, effects = stage.failing(number, "up")
        assert_status_is_true(stage.machine)
        if done.returncode and in_force(stage.machine) == "none":
            assert any(words in done.stderr for words in BACK), f"{where}: {done.stderr}"
            assert difference(before, stage.machine.snapshot()) == "", where
        if turn % AGAIN == 0:
            stage.works()
        removed = reached(effects, REMOVED)
        opened = stage.down()
        blocked = completed(effects, BLOCKED)
        # when it is the block itself that fails, nothing is in force until `down`
        if blocked is not None and not changes[number - 1].words.startswith(BLOCKED):
            stage.wire.assert_silent(blocked, removed or opened, where)
        stage.restored(before, where)


@pytest.mark.parametrize("text", [OTHER_TOR, OTHER_RULES], ids=["tor", "rules"])
def test_every_change_of_a_reload_fails(stage: Stage, text: str) -> None:
    machine = stage.machine
    before = machine.snapshot()
    machine.up()
    machine.configure(text)
    changes = stage.whole("up")
    for number in strided(len(changes), 4):
        where = f"{number}: {changes[number - 1].words}"
        machine.configure()
        machine.up()
        routed = time.time()
        machine.configure(text)
        done, _ = stage.failing(number, "up")
        assert_status_is_true(machine)
        assert in_force(machine) != "none", where
        if done.returncode:
            assert "nothing has been opened" in done.stderr, f"{where}: {done.stderr}"
        stage.works()
        stage.wire.assert_silent(routed, time.time())
    routed = time.time()
    stage.wire.assert_silent(routed, stage.down())
    stage.restored(before, "after all reloads")


def test_every_change_of_down_fails(stage: Stage) -> None:
    before = stage.machine.snapshot()
    stage.machine.up()
    changes = stage.whole("down")
    for turn, number in enumerate(strided(len(changes), 2)):
        where = f"{number}: {changes[number - 1].words}"
        stage.machine.up()
        routed = time.time()
        done, effects = stage.failing(number, "down")
        assert_status_is_true(stage.machine)
        opened = None
        if in_force(stage.machine) == "none":
            opened = reached(effects, REMOVED)
        elif done.returncode:
            assert "onionward down" in done.stderr, f"{where}: {done.stderr}"
        if opened is None and turn % AGAIN == 0:
            stage.works()
        finished = stage.down()
        stage.wire.assert_silent(routed, opened or finished)
        stage.restored(before, where)
