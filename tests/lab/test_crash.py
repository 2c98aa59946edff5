"""onionward or its tor killed at any moment: nothing leaves in clear, and `down` still restores.

    up:      [effect 1] [effect 2] … [nft blocked] … [tor] … [nft routed] …     SIGKILL before each
    reload:  [effect 1] … [nft routed] …  or with a block and a tor in between  SIGKILL before each
    down:    [kill tor] … [nft remove] … [rm journal] …                         SIGKILL before each

Meanwhile programs of the host talk over UDP, ICMP, TCP and DNS without a pause, of which the
witness on the wire may see nothing from the first change after *blocked* until the rules are
removed by `down`. Before and after that it must see them, or it is no witness.

Only some deaths are died, others in each run; ONIONWARD_SWEEP=1 dies them all.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    BLOCKED,
    LOG,
    REMOVED,
    ROUTED,
    Effect,
    assert_died,
    completed,
    killing,
    logged,
    reached,
    strided,
)
from tests.lab.lifecycle_machine import until
from tests.lab.lifecycle_stage import OTHER_RULES, OTHER_TOR, Stage, host_stage
from tests.lab.lifecycle_truth import assert_status_is_true, in_force
from tests.report import Faults

# after one of these deaths `up` is tried again, and after every so many others
SAMPLE = (BLOCKED, "tor --defaults-torrc", ROUTED, "write /etc/resolv.conf", REMOVED)
AGAIN = 3
FEW = 4  # of what a guard does when an `up` has died


def is_sample(turn: int, words: str) -> bool:
    return words.startswith(SAMPLE) or turn % AGAIN == 0


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with host_stage(lab) as opened:
        yield opened


def test_killed_at_every_change_of_up(stage: Stage, faults: Faults) -> None:
    before = stage.machine.snapshot()
    with faults.tried("nobody is killed", "up and down") as fault:
        all_effects = stage.whole("up")
        fault.saw(stage.wire.packets(completed(all_effects, BLOCKED) or 0, stage.down()))
        stage.restored(before, fault)
    for turn, number in enumerate(strided("killed in up", len(all_effects), 8)):
        words = all_effects[number - 1].words
        with faults.tried("SIGKILL at a change of up", f"{number}: {words}") as fault:
            died = stage.onionward(number, "up")
            assert_died(fault, died, number, words)
            _, effects = died
            blocked = completed(effects, BLOCKED)
            with fault.status():
                assert_status_is_true(stage.machine)
            if is_sample(turn, words):
                stage.works()
            opened = stage.down()
            if blocked is not None:
                fault.saw(stage.wire.packets(blocked, opened))
            stage.restored(before, fault)


@pytest.mark.parametrize("text", [OTHER_TOR, OTHER_RULES], ids=["tor", "rules"])
def test_killed_at_every_change_of_a_reload(stage: Stage, faults: Faults, text: str) -> None:
    machine = stage.machine
    before = machine.snapshot()
    machine.up()
    machine.configure(text)
    all_effects = stage.whole("up")
    routed = time.time()
    for turn, number in enumerate(strided(f"killed in reload {text}", len(all_effects), 14)):
        words = all_effects[number - 1].words
        with faults.tried("SIGKILL at a change of a reload", f"{number}: {words}") as fault:
            machine.configure()
            machine.up()
            machine.configure(text)
            assert_died(fault, stage.onionward(number, "up"), number, words)
            assert in_force(machine) != "none"
            with fault.status():
                assert_status_is_true(machine)
            if is_sample(turn, words):
                stage.works()
            if turn % 2:
                # the next `up` goes on from here
                since, routed = routed, time.time()
                fault.saw(stage.wire.packets(since, routed))
            else:
                fault.saw(stage.wire.packets(routed, stage.down()))
                stage.restored(before, fault)
                stage.works()
                routed = time.time()
    with faults.tried("SIGKILL at a change of a reload", "down after all of them") as fault:
        fault.saw(stage.wire.packets(routed, stage.down()))
        stage.restored(before, fault)


def test_killed_at_every_change_of_down(stage: Stage, faults: Faults) -> None:
    before = stage.machine.snapshot()
    stage.machine.up()
    all_effects = stage.whole("down")
    for turn, number in enumerate(strided("killed in down", len(all_effects), 8)):
        words = all_effects[number - 1].words
        with faults.tried("SIGKILL at a change of down", f"{number}: {words}") as fault:
            stage.machine.up()
            routed = time.time()
            died = stage.onionward(number, "down")
            assert_died(fault, died, number, words)
            _, effects = died
            with fault.status():
                assert_status_is_true(stage.machine)
            opened = None
            if completed(effects, REMOVED) is not None:
                opened = reached(effects, REMOVED)
            elif is_sample(turn, words):
                stage.works()
            finished = stage.down()
            fault.saw(stage.wire.packets(routed, opened or finished))
            stage.restored(before, fault)


def test_killed_at_every_change_of_the_first_up(stage: Stage, faults: Faults) -> None:
    """On a machine that onionward has never run on, there is an account to make."""
    before = stage.machine.snapshot()
    effects: list[Effect] = []
    while not any(effect.words.startswith(BLOCKED) for effect in effects):
        stage.machine.run("userdel", "onionward-tor")
        stage.machine.output("rm", "-rf", "/var/lib/onionward")
        number = len(effects) + 1
        with faults.tried("SIGKILL at a change of the first up", str(number)) as fault:
            status, effects = stage.onionward(number, "up")
            assert status == -9
            with fault.status():
                assert_status_is_true(stage.machine)
            stage.down()
            stage.restored(before, fault)
    assert any(effect.words.startswith("useradd") for effect in effects)


@pytest.mark.parametrize("loaded", [BLOCKED, ROUTED])
def test_killed_when_rules_are_loaded_and_not_noted(
    stage: Stage, faults: Faults, loaded: str
) -> None:
    """The guard knows these rules from nowhere, and must neither fight them nor keep the lock."""
    machine = stage.machine
    before = machine.snapshot()
    # on a machine that is on there is a guard from the beginning
    stage.works()
    machine.configure(OTHER_TOR)
    numbers = [n for n, e in enumerate(stage.whole("up"), 1) if e.words.startswith(loaded)]
    machine.configure()
    stage.works()
    routed = time.time()
    with faults.tried("SIGKILL at a change of a reload", f"after {loaded}") as fault:
        machine.configure(OTHER_TOR)
        status, _ = stage.onionward(numbers[0] + 1, "up")
        assert status == -9
        with fault.status():
            assert_status_is_true(machine)
        assert machine.guard_pids()
        # its chance to do it again and again
        time.sleep(1.0)
        counts = [event["count"] for event in machine.status()["guard_events"]]
        assert sum(counts) <= FEW, machine.status()["guard_events"]
        stage.works()
        fault.saw(stage.wire.packets(routed, stage.down()))
        stage.restored(before, fault)


@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0])
def test_tor_killed_during_up(stage: Stage, faults: Faults, delay: float) -> None:
    machine = stage.machine
    before = machine.snapshot()
    log = machine.path(LOG)
    log.unlink(missing_ok=True)
    with faults.tried("SIGKILL for tor in up", f"{delay} s after its start") as fault:
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
        with fault.status():
            assert_status_is_true(stage.machine)
        if process.returncode == 0:
            assert in_force(machine) != "none"
            fault.saw(stage.wire.packets(blocked, stage.down()))
        else:
            assert process.returncode == 1
            assert "Everything was put back" in errors
            fault.saw(stage.wire.packets(blocked, reached(effects, REMOVED) or 0))
        stage.restored(before, fault)
