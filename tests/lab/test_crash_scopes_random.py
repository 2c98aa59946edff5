"""onionward killed at random moments, with every scope: as test_crash_random.py, on the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import repeated
from tests.lab.lifecycle_random import die, draw, spans
from tests.lab.lifecycle_scopes import ALL, WITHOUT_HOST, Stage, stage
from tests.lab.lifecycle_truth import assert_status_is_true
from tests.report import Faults, chance


@pytest.fixture
def everything(lab: Lab) -> Iterator[Stage]:
    with stage(lab) as opened:
        yield opened


def test_killed_at_random_moments(everything: Stage, faults: Faults) -> None:
    machine, drawn = everything.machine, chance("killed at random with scopes")
    before = machine.snapshot()
    known = spans(machine, ALL.text, WITHOUT_HOST.text)
    for turn in range(repeated(1, 100)):
        # one direction gives the host up, the other takes it in
        old, new = drawn.sample((ALL, WITHOUT_HOST), 2)
        death = draw(drawn, turn, known, old.text, new.text)
        routed = old.routed & new.routed if death.command == "reload" else old.routed
        name = f"SIGKILL at a random moment of {death.command}, every scope"
        with faults.tried(name, f"{death.seconds:.3f} s, {old.name} -> {new.name}") as fault:
            silence = die(machine, death)
            with fault.status():
                assert_status_is_true(machine)
            if silence.until is None and death.goes_on:
                machine.up()
                assert machine.status()["problems"] == []
            finished = everything.down()
            opened = silence.until or finished
            if silence.since is not None:
                fault.saw(everything.leaks(routed, silence.since, opened))
            everything.restored(old, before, fault)
