"""A clock that is wrong: named by `up`, `status` and `doctor`, never set; and set while routed.

Every program of the host has the wrong time: the real tor tells it from what real relays say.
"""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from onionward.paths import PATHS
from tests.lab.lifecycle_machine import HERE, Machine, open_machine, until
from tests.lab.lifecycle_wire import Wire

HOUR, DAY = 3600, 86400
OFFSET, LIBRARY = Path("/run/wrong-clock"), Path("/run/wrong-clock.so")
PRELOAD = Path("/etc/ld.so.preload")
SetClock = Callable[[int], None]


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


@pytest.fixture
def set_clock(machine: Machine) -> Iterator[SetClock]:
    """The clock, off by so many seconds from now on."""

    def set_to(seconds: int) -> None:
        with machine.path(OFFSET).open("r+b") as opened:
            opened.write(struct.pack("q", seconds))

    # relays that it knows already are not asked for the time
    machine.output("rm", "-rf", str(PATHS.tor_data))
    machine.path(OFFSET).write_bytes(bytes(8))
    where = f'-DFILE="{OFFSET}"'
    words = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", where]
    built = [*words, "-o", str(machine.path(LIBRARY)), str(HERE / "wrong_clock.c")]
    subprocess.run(built, check=True)
    machine.path(PRELOAD).write_text(f"{LIBRARY}\n")
    try:
        yield set_to
    finally:
        machine.down("--force")
        for path in (PRELOAD, LIBRARY, OFFSET):
            machine.path(path).unlink()


def test_it_is_named_and_forgotten_when_it_is_right(machine: Machine, set_clock: SetClock) -> None:
    set_clock(3 * HOUR)
    assert abs(float(machine.output("date", "+%s")) - time.time() - 3 * HOUR) < 5
    with Wire(machine) as wire:
        blocked = time.time()
        done = machine.up()
        assert (
            "the clock of this machine is 3 h 0 min ahead, says the " in done.stdout + done.stderr
        )
        report = machine.status()
        assert report["state"] == "routed"
        assert report["clock_skew"] == pytest.approx(3 * HOUR, abs=120)
        assert report["clock_source"].split()[1] in ("relay", "directory", "consensus")
        assert "  clock     3 h 0 min ahead, says " in machine.onionward("status").stdout
        found = machine.onionward("doctor")
        assert found.returncode == 1
        assert "the clock of this machine is 3 h 0 min ahead" in found.stdout
        # nobody else has set it
        assert abs(float(machine.output("date", "+%s")) - time.time() - 3 * HOUR) < 120

        set_clock(0)
        until("it is forgotten", lambda: machine.status()["clock_skew"] is None, 30)
        assert machine.status()["problems"] == []
        url = f"http://{machine.lab.web4}/"
        again = ("curl", "-sS", "--retry", "5", "--retry-all-errors", "-m", "20", url)
        assert json.loads(machine.output(*again))["client"] in machine.lab.exits
        assert machine.onionward("doctor").returncode == 0
        assert wire.packets(blocked + 1, time.time()) == []


@pytest.mark.parametrize(
    ("days", "words"),
    [(100, "relays' certificates, which hold"), (-100, "100 d 0 h behind, says the ")],
)
def test_with_one_that_is_far_off_tor_does_not_start_and_it_is_said_why(
    machine: Machine, set_clock: SetClock, days: int, words: str
) -> None:
    machine.configure("[tor]\nbootstrap_timeout = 8\n")
    before = machine.snapshot()
    set_clock(days * DAY)
    done = machine.onionward("up")
    assert done.returncode == 1, done.stderr
    assert f"the clock is wrong: {words}" in done.stderr
    assert "Everything was put back" in done.stderr
    assert machine.snapshot()["command"] == before["command"]
