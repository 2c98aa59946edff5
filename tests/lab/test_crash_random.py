"""onionward killed at random moments of `up`, a reload and `down`.

As test_crash.py, but the moment has nothing to do with what is announced. A few deaths in each run;
with ONIONWARD_SWEEP one hundred here and one hundred with every scope, in test_crash_scopes_random.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import repeated
from tests.lab.lifecycle_random import die, draw, spans
from tests.lab.lifecycle_stage import OTHER_RULES, OTHER_TOR, Stage, host_stage
from tests.lab.lifecycle_truth import assert_status_is_true
from tests.report import Faults, chance


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with host_stage(lab) as opened:
        yield opened


def test_killed_at_random_moments(stage: Stage, faults: Faults) -> None:
    machine, drawn = stage.machine, chance("killed at random")
    before = machine.snapshot()
    known = spans(machine, "", OTHER_TOR)
    for turn in range(repeated(3, 100)):
        other = drawn.choice((OTHER_TOR, OTHER_RULES))
        death = draw(drawn, turn, known, "", other)
        name = f"SIGKILL at a random moment of {death.command}"
        with faults.tried(name, str(death)) as fault:
            silence = die(machine, death)
            with fault.status():
                assert_status_is_true(machine)
            if silence.until is None and death.goes_on:
                stage.works()
            opened = stage.down()
            if silence.since is not None:
                fault.saw(stage.wire.packets(silence.since, silence.until or opened))
            stage.restored(before, fault)
