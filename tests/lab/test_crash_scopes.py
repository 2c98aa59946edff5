"""onionward killed with every scope in force or on the way: as test_crash.py, on the gateway.

    up:    [effect 1] … [nft blocked] … [tor] [DHCP] [control] [names] … [nft routed]   SIGKILL
    down:  [kill tor] … [nft remove] … [rm journal] …                                   SIGKILL

Two configurations that have everything between them: one with the host, one without it and with
names under .onion. Everybody sends without a pause; of those who are routed the witness sees
nothing from the first change after *blocked* until the rules are removed.

Only some deaths are died; ONIONWARD_SWEEP=1 dies them all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    BLOCKED,
    REMOVED,
    completed,
    reached,
    run_killing,
    run_logged,
    strided,
)
from tests.lab.lifecycle_machine import difference, until
from tests.lab.lifecycle_scopes import (
    ALICE,
    ALL,
    BOB,
    CONTROL,
    DHCP,
    ONION,
    Scope,
    Stage,
    essence,
    sent,
    stage,
)
from tests.lab.lifecycle_truth import assert_status_is_true

WITHOUT_HOST = Scope(
    "onion, lan, users",
    ONION + DHCP + ALICE + BOB + CONTROL,
    frozenset({"client1", "alice", "bob"}),
    (),
    {},
)
# which of the changes in a stride is the first to die before
FIRST = {ALL.name: 2, WITHOUT_HOST.name: 4}
AGAIN = 2  # after every so many deaths `up` is tried again; after the others only `down`


@pytest.fixture
def everything(lab: Lab) -> Iterator[Stage]:
    with stage(lab) as opened:
        yield opened


def down(everything: Stage) -> float:
    """Everything back; returns when the rules were about to go, or now if they were gone."""
    effects = run_logged(everything.machine, "down")
    return reached(effects, REMOVED) or effects[0].time


def assert_restored(everything: Stage, scope: Scope, before: dict[str, Any]) -> None:
    """The machine is off, exactly as it was, and who was routed speaks in clear again."""
    assert difference(before, everything.machine.snapshot()) == ""
    since = time.time()

    def seen() -> bool:
        return scope.routed <= {s.sender for s in sent(everything.wire.packets(since))}

    until("everybody speaks in clear again", seen)
    everything.assert_no_tails()


def assert_up_goes_on(everything: Stage, fresh: dict[str, Any]) -> None:
    """`up` after a death leaves what it leaves without one."""
    everything.machine.up()
    report = everything.machine.status()
    assert (report["state"], report["problems"]) == ("routed", [])
    assert difference(fresh, essence(everything.machine)) == ""


@pytest.mark.parametrize("scope", [ALL, WITHOUT_HOST], ids=lambda scope: scope.name)
def test_killed_during_up(everything: Stage, scope: Scope) -> None:
    machine = everything.machine
    machine.configure(scope.text)
    before = machine.snapshot()
    all_effects = run_logged(machine, "up")
    fresh = essence(machine)
    everything.assert_silent(scope.routed, completed(all_effects, BLOCKED) or 0, down(everything))
    assert_restored(everything, scope, before)
    for turn, number in enumerate(strided(len(all_effects), FIRST[scope.name], 8)):
        status, effects = run_killing(machine, number, "up")
        assert status == -9, f"{number} ({all_effects[number - 1].words}): not killed"
        blocked = completed(effects, BLOCKED)
        assert_status_is_true(machine)
        if turn % AGAIN == 0:
            assert_up_goes_on(everything, fresh)
        opened = down(everything)
        if blocked is not None:
            everything.assert_silent(scope.routed, blocked, opened)
        assert_restored(everything, scope, before)


@pytest.mark.parametrize("scope", [ALL, WITHOUT_HOST], ids=lambda scope: scope.name)
def test_killed_during_down(everything: Stage, scope: Scope) -> None:
    machine = everything.machine
    machine.configure(scope.text)
    before = machine.snapshot()
    machine.up()
    fresh = essence(machine)
    all_effects = run_logged(machine, "down")
    assert_restored(everything, scope, before)
    for turn, number in enumerate(strided(len(all_effects), FIRST[scope.name], 8)):
        machine.up()
        routed = time.time()
        status, effects = run_killing(machine, number, "down")
        if status == 0 and len(effects) < number:
            # fewer connections were there to be cut this time
            assert_restored(everything, scope, before)
            continue
        assert status == -9, f"{number} ({all_effects[number - 1].words}): not killed"
        assert_status_is_true(machine)
        removed = reached(effects, REMOVED)
        if completed(effects, REMOVED) is None and turn % AGAIN == 0:
            removed = None
            assert_up_goes_on(everything, fresh)
        opened = down(everything)
        everything.assert_silent(scope.routed, routed, removed or opened)
        assert_restored(everything, scope, before)
