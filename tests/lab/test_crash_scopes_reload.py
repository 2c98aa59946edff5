"""onionward killed in a reload with every scope: as test_crash_scopes.py.

    reload:  [kill tor] … [nft blocked] … [tor] … [nft routed]     SIGKILL before each

One way the host is given up, and what it had through Tor is cut; the other way it is taken in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    LOADING,
    assert_died,
    reached,
    run_killing,
    run_logged,
    strided,
)
from tests.lab.lifecycle_scopes import ALL, WITHOUT_HOST, Scope, Stage, essence, stage
from tests.lab.lifecycle_truth import assert_status_is_true, in_force
from tests.report import Faults

AGAIN = 2  # after every so many deaths `up` is tried again; after the others only `down`


@pytest.fixture
def everything(lab: Lab) -> Iterator[Stage]:
    with stage(lab) as opened:
        yield opened


@pytest.mark.parametrize("scope", [ALL, WITHOUT_HOST], ids=lambda scope: scope.name)
def test_killed_during_a_reload(everything: Stage, faults: Faults, scope: Scope) -> None:
    machine = everything.machine
    new = WITHOUT_HOST if scope is ALL else ALL
    always = scope.routed & new.routed
    before = machine.snapshot()
    machine.configure(new.text)
    machine.up()
    fresh = essence(machine)
    machine.configure(scope.text)
    machine.up()
    machine.configure(new.text)
    all_effects = run_logged(machine, "up")
    for turn, number in enumerate(strided(f"reload {scope.name}", len(all_effects), 50)):
        words = f"{number}: {all_effects[number - 1].words}, {scope.name} -> {new.name}"
        with faults.tried("SIGKILL at a change of a reload, every scope", words) as fault:
            machine.configure(scope.text)
            machine.up()
            routed = time.time()
            machine.configure(new.text)
            died = run_killing(machine, number, "up")
            assert_died(fault, died, number, words)
            _, effects = died
            assert in_force(machine) != "none"
            with fault.status():
                assert_status_is_true(machine)
            loaded = reached(effects, LOADING)
            fault.saw(everything.leaks(scope.routed, routed, loaded or time.time()))
            if turn % AGAIN == 0:
                everything.works(fresh)
                fault.saw(everything.leaks(always, routed, time.time()))
                fault.saw(everything.tails())
            else:
                fault.saw(everything.leaks(always, routed, everything.down()))
                everything.restored(scope, before, fault)
    with faults.tried("SIGKILL at a change of a reload, every scope", "down at the end") as fault:
        everything.down()
        everything.restored(scope, before, fault)
