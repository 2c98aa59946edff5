"""Changes that onionward makes, with their times; and onionward killed before one of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.lifecycle_machine import CONFIG, HERE, Machine

LOG = "/run/onionward-lab/effects"
BLOCKED, ROUTED, REMOVED = (f"nft --file -  # {state}" for state in ("blocked", "routed", "remove"))


@dataclass(frozen=True)
class Effect:
    """A change that was about to be made."""

    time: float
    words: str


def killing(fatal: int, *argv: str) -> tuple[str, ...]:
    """A command of onionward that dies before its change number `fatal` (never when it is 0)."""
    script = str(HERE / "lifecycle_killer.py")
    # -P: the onionward that is tested is that of whoever runs the tests
    return ("python", "-P", script, str(fatal), LOG, "--config", str(CONFIG), *argv)


def run_killing(machine: Machine, fatal: int, *argv: str) -> tuple[int, list[Effect]]:
    """Run such a command; returns its exit status and what it was about to change."""
    done = machine.run(*killing(fatal, *argv))
    assert done.returncode in (0, -9), done.stdout + done.stderr
    return done.returncode, logged(machine)


def run_logged(machine: Machine, *argv: str) -> list[Effect]:
    """Run a command of onionward to its good end."""
    status, found = run_killing(machine, 0, *argv)
    assert status == 0
    return found


def logged(machine: Machine) -> list[Effect]:
    """What the last such command was about to change."""
    lines = machine.path(LOG).read_text().splitlines()
    return [Effect(float(t), words) for t, _, words in (line.partition(" ") for line in lines)]


def reached(effects: Sequence[Effect], words: str) -> float | None:
    """When a change was about to be made."""
    return next((e.time for e in effects if e.words.startswith(words)), None)


def completed(effects: Sequence[Effect], words: str) -> float | None:
    """When a change was certainly made: at the next one."""
    for effect, following in itertools.pairwise(effects):
        if effect.words.startswith(words):
            return following.time
    return None


def strided(count: int, first: int = 1, usual: int = 4) -> range:
    """Which of so many changes to die before: some, or all when the whole sweep is asked for.

    ONIONWARD_SWEEP is the distance from one to the next, when it is not the usual one.
    """
    stride = int(os.environ.get("ONIONWARD_SWEEP", usual))
    return range(min(first, stride), count + 1, stride)
