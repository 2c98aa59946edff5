"""onionward killed at a random moment, also in the middle of a change."""

from __future__ import annotations

import time
from random import Random
from typing import NamedTuple

from tests import report
from tests.lab.lifecycle_effects import BLOCKED, REMOVED, completed, reached, run_killed, run_logged
from tests.lab.lifecycle_machine import Machine
from tests.lab.lifecycle_truth import in_force

COMMANDS = ("up", "reload", "down")


class Death(NamedTuple):
    """What is drawn for one of them.

    Attributes:
        command: up, reload or down.
        seconds: from its first change until the signal.
        old: the configuration that is in force before, or comes with `up`.
        new: that of a reload.
        goes_on: whether `up` is tried again before `down`.

    """

    command: str
    seconds: float
    old: str
    new: str
    goes_on: bool


class Silence(NamedTuple):
    """From when until when nothing may be seen; `since` None: nothing is certain; `until` None:
    until the rules go."""

    since: float | None
    until: float | None = None


def spans(machine: Machine, old: str, new: str) -> dict[str, float]:
    """Seconds that each command takes from its first change to its last, when nobody kills it."""
    found = {}
    for command, text in zip(COMMANDS, (old, new, new), strict=True):
        machine.configure(text)
        effects = run_logged(machine, "down" if command == "down" else "up")
        found[command] = effects[-1].time - effects[0].time
    return found


def draw(chance: Random, turn: int, known: dict[str, float], old: str, new: str) -> Death:
    """The commands take turns, in a sweep; of a few the first is another in each run."""
    first = report.chance("commands").randrange(len(COMMANDS))
    command = COMMANDS[(turn + first) % len(COMMANDS)]
    seconds = chance.uniform(0.0, known[command])
    return Death(command, seconds, old, new, chance.randrange(3) == 0)


def die(machine: Machine, death: Death) -> Silence:
    """Have it happen."""
    machine.configure(death.old)
    if death.command == "up":
        return Silence(completed(run_killed(machine, death.seconds, "up"), BLOCKED))
    machine.up()
    routed = time.time()
    if death.command == "down":
        return Silence(routed, reached(run_killed(machine, death.seconds, "down"), REMOVED))
    machine.configure(death.new)
    run_killed(machine, death.seconds, "up")
    assert in_force(machine) != "none"
    return Silence(routed)
