"""onionward killed with every scope in force or on the way: as test_crash.py, on the gateway.

    up:      [effect 1] … [nft blocked] … [tor] [DHCP] [control] [names] … [nft routed]   SIGKILL
    down:    [kill tor] … [nft remove] … [rm journal] …                                   SIGKILL

Two configurations that have everything between them: one with the host, one without it and with
names under .onion. Everybody sends without a pause; of those who are routed the witness sees
nothing from the first change after *blocked* until the rules are removed.

Only some deaths are died, others in each run; ONIONWARD_SWEEP=1 dies them all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    BLOCKED,
    REMOVED,
    assert_died,
    completed,
    reached,
    run_killing,
    run_logged,
    strided,
)
from tests.lab.lifecycle_scopes import ALL, WITHOUT_HOST, Scope, Stage, essence, stage
from tests.lab.lifecycle_truth import assert_status_is_true
from tests.report import Faults

AGAIN = 2  # after every so many deaths `up` is tried again; after the others only `down`


@pytest.fixture
def everything(lab: Lab) -> Iterator[Stage]:
    with stage(lab) as opened:
        yield opened


BOTH = pytest.mark.parametrize("scope", [ALL, WITHOUT_HOST], ids=lambda scope: scope.name)


@BOTH
def test_killed_during_up(everything: Stage, faults: Faults, scope: Scope) -> None:
    machine = everything.machine
    machine.configure(scope.text)
    before = machine.snapshot()
    with faults.tried("nobody is killed, every scope", scope.name) as fault:
        all_effects = run_logged(machine, "up")
        fresh = essence(machine)
        silent = completed(all_effects, BLOCKED) or 0
        fault.saw(everything.leaks(scope.routed, silent, everything.down()))
        everything.restored(scope, before, fault)
    for turn, number in enumerate(strided(f"up {scope.name}", len(all_effects), 24)):
        words = f"{number}: {all_effects[number - 1].words}, {scope.name}"
        with faults.tried("SIGKILL at a change of up, every scope", words) as fault:
            died = run_killing(machine, number, "up")
            assert_died(fault, died, number, words)
            _, effects = died
            blocked = completed(effects, BLOCKED)
            with fault.status():
                assert_status_is_true(machine)
            if turn % AGAIN == 0:
                everything.works(fresh)
            opened = everything.down()
            if blocked is not None:
                fault.saw(everything.leaks(scope.routed, blocked, opened))
            everything.restored(scope, before, fault)


@BOTH
def test_killed_during_down(everything: Stage, faults: Faults, scope: Scope) -> None:
    machine = everything.machine
    machine.configure(scope.text)
    before = machine.snapshot()
    machine.up()
    fresh = essence(machine)
    all_effects = run_logged(machine, "down")
    for turn, number in enumerate(strided(f"down {scope.name}", len(all_effects), 24)):
        words = f"{number}: {all_effects[number - 1].words}, {scope.name}"
        with faults.tried("SIGKILL at a change of down, every scope", words) as fault:
            machine.up()
            routed = time.time()
            died = run_killing(machine, number, "down")
            assert_died(fault, died, number, words)
            _, effects = died
            with fault.status():
                assert_status_is_true(machine)
            removed = reached(effects, REMOVED)
            if completed(effects, REMOVED) is None:
                removed = None
                if turn % AGAIN == 0:
                    everything.works(fresh)
            opened = everything.down()
            fault.saw(everything.leaks(scope.routed, routed, removed or opened))
            everything.restored(scope, before, fault)
