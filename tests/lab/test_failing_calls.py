"""Every change that `up`, a reload and `down` make fails once: no leak, true words, a way back.

As test_crash.py, but the program lives on and has to cope: disk full, read-only, not permitted, a
command that is missing, fails, hangs, or fails when it has done its work. Only some of the changes
fail, in one of these ways; ONIONWARD_SWEEP=1 fails all of them in every way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

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
    repeated,
    strided,
)
from tests.lab.lifecycle_failer import ENDINGS
from tests.lab.lifecycle_machine import CONFIG, HERE, Done, Machine, difference
from tests.lab.lifecycle_stage import OTHER_RULES, OTHER_TOR, Stage, host_stage
from tests.lab.lifecycle_truth import assert_status_is_true, in_force
from tests.report import Fault, Faults, chance

BACK = (
    "Everything was put back",
    "Nothing was changed",
    "nothing else was touched",
    "nothing was touched",
)
CLASS = "a change fails"  # until it is known how
KIND = f"{LOG}.kind"
KNOWN = {
    "nft ": "error of nft",
    "tor ": "tor does not start",
}
AGAIN = 2  # after every so many failures `up` is tried again


def failing(
    machine: Machine, fault: Fault, change: Effect, number: int, kind: int, *argv: str
) -> tuple[Done, list[Effect]]:
    """Run a command whose change of this number fails, and say of what class the fault was."""
    script = str(HERE / "lifecycle_failer.py")
    words = (script, str(number), str(kind), LOG, "--config", str(CONFIG), *argv)
    machine.path(KIND).unlink(missing_ok=True)
    done = machine.run("python", "-P", *words)
    fault.fault_class = _fault_class(machine, change)
    where = f"{number} ({change.words})"
    assert done.returncode in (0, 1), f"{where}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, f"{where}: {done.stderr}"
    return done, logged(machine)


def _fault_class(machine: Machine, change: Effect) -> str:
    if not machine.path(KIND).exists():
        return ""  # fewer connections were there to be cut this time
    known = next((words for start, words in KNOWN.items() if change.words.startswith(start)), "")
    how = machine.path(KIND).read_text()
    return f"a change fails: {known or how.removeprefix('command ')}"


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with host_stage(lab) as opened:
        yield opened


def ways(name: str, changes: list[Effect], usual: int) -> Iterator[tuple[int, int]]:
    """Which changes fail, by number, and in which way."""
    drawn = chance(f"kinds {name}").randrange(len(ENDINGS))
    for turn, number in enumerate(strided(name, len(changes), usual)):
        first = turn + drawn
        for kind in range(first, first + repeated(1, len(ENDINGS))):
            yield number, kind % len(ENDINGS)


def assert_put_back(stage: Stage, done: Done, before: dict[str, object], where: str) -> None:
    """What is open after a failure says so, and is as it was."""
    assert any(words in done.stderr for words in BACK), f"{where}: {done.stderr}"
    assert difference(before, stage.machine.snapshot()) == "", where


def test_every_change_of_up_fails(stage: Stage, faults: Faults) -> None:
    before = stage.machine.snapshot()
    changes = stage.whole("up")
    stage.down()
    for turn, (number, kind) in enumerate(ways("up", changes, 10)):
        where = f"{number}: {changes[number - 1].words}"
        with faults.tried(CLASS, where) as fault:
            done, effects = failing(stage.machine, fault, changes[number - 1], number, kind, "up")
            with fault.status():
                assert_status_is_true(stage.machine)
            if done.returncode and in_force(stage.machine) == "none":
                assert_put_back(stage, done, before, where)
            if turn % AGAIN == 0:
                stage.works()
            removed = reached(effects, REMOVED)
            opened = stage.down()
            blocked = completed(effects, BLOCKED)
            # when it is the block itself that fails, nothing is in force until `down`
            if blocked is not None and not changes[number - 1].words.startswith(BLOCKED):
                fault.saw(stage.wire.packets(blocked, removed or opened))
            stage.restored(before, fault)


@pytest.mark.parametrize("text", [OTHER_TOR, OTHER_RULES], ids=["tor", "rules"])
def test_every_change_of_a_reload_fails(stage: Stage, faults: Faults, text: str) -> None:
    machine = stage.machine
    before = machine.snapshot()
    machine.up()
    machine.configure(text)
    changes = stage.whole("up")
    routed = time.time()
    for number, kind in ways("a reload", changes, 12):
        where = f"{number}: {changes[number - 1].words}"
        with faults.tried(CLASS, where) as fault:
            machine.configure()
            machine.up()
            machine.configure(text)
            done, _ = failing(machine, fault, changes[number - 1], number, kind, "up")
            with fault.status():
                assert_status_is_true(machine)
            assert in_force(machine) != "none", where
            if done.returncode:
                assert "nothing has been opened" in done.stderr, f"{where}: {done.stderr}"
            stage.works()
            since, routed = routed, time.time()
            fault.saw(stage.wire.packets(since, routed))
    with faults.tried(CLASS, "down after all of them") as fault:
        fault.saw(stage.wire.packets(routed, stage.down()))
        stage.restored(before, fault)


def test_every_change_of_down_fails(stage: Stage, faults: Faults) -> None:
    before = stage.machine.snapshot()
    stage.machine.up()
    changes = stage.whole("down")
    for turn, (number, kind) in enumerate(ways("down", changes, 8)):
        where = f"{number}: {changes[number - 1].words}"
        with faults.tried(CLASS, where) as fault:
            stage.machine.up()
            routed = time.time()
            done, effects = failing(stage.machine, fault, changes[number - 1], number, kind, "down")
            with fault.status():
                assert_status_is_true(stage.machine)
            opened = None
            if in_force(stage.machine) == "none":
                opened = reached(effects, REMOVED)
            elif done.returncode:
                assert "onionward down" in done.stderr, f"{where}: {done.stderr}"
            if opened is None and turn % AGAIN == 0:
                stage.works()
            finished = stage.down()
            fault.saw(stage.wire.packets(routed, opened or finished))
            stage.restored(before, fault)
