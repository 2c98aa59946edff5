"""The host, programs that talk in it without a pause, and the witness on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onionward.lab import Lab
from tests.lab.lifecycle_effects import REMOVED, Effect, reached, run_killing
from tests.lab.lifecycle_machine import Machine, difference, open_machine, until
from tests.lab.lifecycle_wire import Wire
from tests.report import Fault

# other configurations than none
OTHER_TOR = "[tor]\ntrans_port = 942\n"  # tor starts anew, behind a block
OTHER_RULES = '[bypass]\nnetworks = ["192.0.2.0/24"]\n'  # one transaction


@dataclass(frozen=True)
class Stage:
    """What the module says."""

    machine: Machine
    wire: Wire

    def onionward(self, fatal: int, *argv: str) -> tuple[int, list[Effect]]:
        """Run a command that dies before its change number `fatal`."""
        return run_killing(self.machine, fatal, *argv)

    def whole(self, *argv: str) -> list[Effect]:
        """What a command changes when nothing happens to it."""
        status, effects = self.onionward(0, *argv)
        assert status == 0
        return effects

    def now(self) -> float:
        """A moment from which on what the witness sees was sent."""
        return time.time()

    def down(self, *options: str) -> float:
        """Everything back; returns when the rules were about to go, or now if they were gone."""
        effects = self.whole("down", *options)
        return reached(effects, REMOVED) or (effects[0].time if effects else time.time())

    def works(self) -> None:
        """`up` goes on from wherever it is, to its good end."""
        self.machine.up()
        report = self.machine.status()
        assert (report["state"], report["problems"]) == ("routed", [])

    def restored(self, before: dict[str, Any], fault: Fault) -> None:
        """The machine is off, exactly as it was, and its programs reach the wire again."""
        fault.restored(difference(before, self.machine.snapshot()))
        since = time.time()
        until("programs speak in clear again", lambda: bool(self.wire.packets(since)))


@contextmanager
def host_stage(lab: Lab) -> Iterator[Stage]:
    """The witness sees the programs while the host is off, or it is no witness."""
    with open_machine(lab) as machine, Wire(machine) as wire:
        if machine.run("id", "onionward-tor").returncode:
            machine.up()  # the account, which stays
            machine.down()
        chatter = machine.script("lifecycle_chatter.py", lab.web4, lab.web6, lab.dns4)
        assert chatter.stdout is not None
        assert chatter.stdout.readline() == "talking\n"
        until("the witness sees them", lambda: bool(wire.packets()))
        yield Stage(machine, wire)
