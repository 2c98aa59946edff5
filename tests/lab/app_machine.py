"""A machine of the lab that starts applications, as root does it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onionward.app.root.places import INTERFACE
from onionward.lab import Lab
from tests.lab.app_bench import processes
from tests.lab.lifecycle_machine import Machine, exactly_back, inside_pid, open_machine, until

PATIENCE = 60.0


@contextmanager
def machine_with_runs(lab: Lab) -> Iterator[Machine]:
    """One that is off, and in the end as it was."""
    with open_machine(lab) as opened:
        # what tor keeps stays (docs/architecture.md); all else is to be as it was
        opened.output("onionward", "run", "--", "true", timeout=120)
        opened.down()
        with exactly_back(opened):
            yield opened
            opened.down()


def run(machine: Machine, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command through Tor, and wait."""
    return machine.run("onionward", "run", *argv, **{"timeout": 120, **more})


def devices(machine: Machine) -> list[str]:
    """Devices of runs."""
    shown = json.loads(machine.output("ip", "-j", "link", "show"))
    return [link["ifname"] for link in shown if link["ifname"].startswith(INTERFACE)]


def launchers(machine: Machine, word: str) -> list[int]:
    """Processes with a word among their arguments."""
    return processes(machine.path("/"), word.encode())


def started(machine: Machine, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A run that lives on, with a process that has left its session; and their word."""
    word = f"98{time.monotonic_ns() % 10**7}"
    script = f"setsid sleep {word} & exec sleep {word}"
    process = machine.spawn("onionward", "run", *options, "--", "sh", "-c", script)

    def sleeping() -> bool:
        assert process.poll() is None
        return len([p for p in launchers(machine, word) if is_sleep(machine, p)]) == 2

    until("it sleeps", sleeping, patience=PATIENCE)
    return process, word


def is_sleep(machine: Machine, pid: int) -> bool:
    """Whether it is the command, and not who has started it."""
    try:
        return machine.path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    except OSError:
        return False


def launcher(machine: Machine, process: subprocess.Popen[str]) -> int:
    """The process of onionward itself, by the number that it has in the host."""
    pid = inside_pid(process)
    numbers = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
    # machine, host
    return int(numbers[1])


def assert_gone(machine: Machine, word: str) -> None:
    """Nothing of a run is left, after a while."""
    until("all of it is gone", lambda: not launchers(machine, word), patience=PATIENCE)
    until("its device is gone", lambda: devices(machine) == [], patience=PATIENCE)
