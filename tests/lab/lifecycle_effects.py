"""Changes that onionward makes, with their times; and onionward killed before one of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.lifecycle_machine import BACKEND, CONFIG, HERE, Machine, inside_pid, until
from tests.report import SWEEP, Fault, chance

LOG = "/run/onionward-lab/effects"
# with iptables a state is complete with its second family, and given up with its first
BLOCKED, ROUTED = (
    f"{f'ip6{BACKEND[2:]}-restore --noflush' if BACKEND else 'nft --file -'}  # {state}"
    for state in ("blocked", "routed")
)
# of whatever state: the first command that loads it, and the last
LOADING, LOADED = (
    f"{f'{family}{BACKEND[2:]}-restore --noflush' if BACKEND else 'nft --file -'}  # "
    for family in ("ip", "ip6")
)
REMOVED = f"{f'{BACKEND}-restore --noflush' if BACKEND else 'nft --file -'}  # remove"


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


def run_killed(machine: Machine, seconds: float, *argv: str) -> list[Effect]:
    """Run a command that is killed so long after its first change; returns what it has changed."""
    machine.path(LOG).unlink(missing_ok=True)
    process = machine.spawn(*killing(0, *argv))
    victim = inside_pid(process)
    until(f"{argv} has begun", lambda: machine.path(LOG).exists() or process.poll() is not None)
    time.sleep(seconds)
    # nothing happens when it has come to its end
    subprocess.run(["kill", "-KILL", str(victim)], check=False, stderr=subprocess.DEVNULL)
    process.wait()
    return logged(machine)


def run_logged(machine: Machine, *argv: str) -> list[Effect]:
    """Run a command of onionward to its good end."""
    status, found = run_killing(machine, 0, *argv)
    assert status == 0
    return found


def logged(machine: Machine) -> list[Effect]:
    """What the last such command was about to change."""
    lines = machine.path(LOG).read_text().splitlines()
    return [Effect(float(t), words) for t, _, words in (line.partition(" ") for line in lines)]


def assert_died(fault: Fault, died: tuple[int, Sequence[Effect]], number: int, where: str) -> None:
    """It was killed before that change, or had fewer to make this time: then there was no fault.

    How many there are is not always the same: connections to be cut, a guard that was already told.
    """
    status, effects = died
    if status == 0 and len(effects) < number:
        fault.fault_class = ""
    else:
        assert status == -9, f"{where}: not killed"


def reached(effects: Sequence[Effect], words: str) -> float | None:
    """When a change was about to be made."""
    return next((e.time for e in effects if e.words.startswith(words)), None)


def completed(effects: Sequence[Effect], words: str) -> float | None:
    """When a change was certainly made: at the next one."""
    for effect, following in itertools.pairwise(effects):
        if effect.words.startswith(words):
            return following.time
    return None


def strided(name: str, count: int, usual: int = 4) -> range:
    """Which of so many changes to try: some, others in each run, or as many as the sweep wants.

    ONIONWARD_SWEEP is the distance from one to the next, when it is not the usual one; 1: all.
    Which of them is the first comes from ONIONWARD_SEED and from who asks.
    """
    stride = int(os.environ.get(SWEEP) or usual)
    return range(chance(name).randint(1, min(stride, count)), count + 1, stride)


def repeated(usual: int, whole: int) -> int:
    """How often something is tried that has no end: as usual, or in a sweep a part of `whole`."""
    stride = os.environ.get(SWEEP)
    return max(usual, whole // int(stride)) if stride else usual
