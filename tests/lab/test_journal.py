"""A damaged journal: every command says so, nothing is opened, and `down --force` gets out.

The journal of a routed host is cut short at every byte, and each byte is changed, one at a time;
besides it is empty, a directory, cannot be read, or comes from a version that is yet to be written.
Only some bytes and some ways out are tried, others in each run; ONIONWARD_SWEEP=1 tries them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import repeated, strided
from tests.lab.lifecycle_machine import HERE, JOURNAL, Machine
from tests.lab.lifecycle_stage import Stage, host_stage
from tests.lab.lifecycle_truth import in_force
from tests.report import Faults, chance

CLASS = "journal damaged"
COMMANDS = (["status"], ["status", "--json"], ["up"], ["up", "--confirm", "60"], ["down"])
EXAMINED = (["doctor"], ["doctor", "--repair"])
USUAL = 400  # bytes from one that is tried to the next


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with host_stage(lab) as opened:
        yield opened


@pytest.mark.parametrize(("how", "fault_class"), [("cut", "cut short"), ("flip", "a bit changed")])
def test_every_byte(stage: Stage, faults: Faults, how: str, fault_class: str) -> None:
    """Every command names it and changes nothing."""
    machine = stage.machine
    machine.up("--confirm", "600")
    whole = machine.path(JOURNAL).read_bytes()
    rules = machine.output("nft", "--stateless", "list", "ruleset")
    # without the line break at its end it is whole still
    numbers = [str(n - 1) for n in strided(f"journal {how}", len(whole) - 1, USUAL)]
    script = str(HERE / "lifecycle_damager.py")
    since = stage.now()
    wrong = json.loads(machine.output("python", "-P", script, how, *numbers, timeout=1200))
    leaks = stage.wire.packets(since)
    faults.record(
        f"{CLASS}: {fault_class}",
        tried=len(numbers),
        clear=len(leaks),
        true=len(numbers) - len({number for number, _, _ in wrong}),
    )
    assert wrong == []
    assert leaks == []
    assert machine.output("nft", "--stateless", "list", "ruleset") == rules
    assert machine.path(JOURNAL).read_bytes() == whole


def _cut(place: float) -> Callable[[Machine, bytes], None]:
    def cut(machine: Machine, whole: bytes) -> None:
        machine.path(JOURNAL).write_bytes(whole[: int(place * (len(whole) - 1))])

    return cut


def _flip(machine: Machine, whole: bytes) -> None:
    # the first digit of the first address that comes to hand
    place = whole.index(b"/32")
    raw = bytearray(whole)
    raw[place + 1] ^= 1
    machine.path(JOURNAL).write_bytes(raw)


def _directory(machine: Machine, whole: bytes) -> None:
    machine.path(JOURNAL).unlink()
    machine.path(JOURNAL).mkdir()
    (machine.path(JOURNAL) / "inside").write_bytes(whole)


def _unreadable(machine: Machine, whole: bytes) -> None:
    machine.path(JOURNAL).unlink()
    # an I/O error for whoever reads its first byte
    machine.path(JOURNAL).symlink_to("/proc/self/mem")


def _future(machine: Machine, whole: bytes) -> None:
    document = json.loads(whole)
    document |= {"version": document["version"] + 1, "more": True}
    machine.path(JOURNAL).write_text(json.dumps(document))


DAMAGES: dict[str, tuple[Callable[[Machine, bytes], None], str]] = {
    "empty": (_cut(0.0), "is damaged"),
    "a bit changed": (_flip, "is damaged"),
    "a directory": (_directory, "cannot be read: Is a directory"),
    "unreadable": (_unreadable, "cannot be read: Input/output error"),
    "from a later version": (_future, "was written by another version"),
}


def damages() -> dict[str, tuple[Callable[[Machine, bytes], None], str]]:
    """Those of this run, and places at which it is cut short."""
    drawn = chance("damaged journals")
    names = drawn.sample(list(DAMAGES), repeated(2, len(DAMAGES)))
    found = {name: DAMAGES[name] for name in names}
    for _ in range(repeated(1, 30)):
        place = drawn.random()
        found[f"cut short at {place:.3f}"] = (_cut(place), "is damaged")
    return found


def test_force_gets_out(stage: Stage, faults: Faults) -> None:
    machine = stage.machine
    before = machine.snapshot()
    for name, (damage, words) in damages().items():
        fault_class = f"{CLASS}: cut short" if name.startswith("cut") else f"{CLASS}: {name}"
        with faults.tried(fault_class, f"{name}, then down --force") as fault:
            stage.works()
            since = stage.now()
            damage(machine, machine.path(JOURNAL).read_bytes())
            with fault.status():
                for command in COMMANDS:
                    done = machine.onionward(*command)
                    assert done.returncode == 1, done.stdout + done.stderr
                    assert words in done.stderr
                    assert "still protected by the rules in force" in done.stderr
                    assert "`onionward down --force`" in done.stderr
                for command in EXAMINED:
                    done = machine.onionward(*command)
                    assert done.returncode == 1, done.stdout + done.stderr
                    assert words in done.stdout
                    assert "stays as it is: routed" in done.stdout
                    assert "repair: onionward down --force" in done.stdout
                assert in_force(machine) == "routed"
            fault.saw(stage.wire.packets(since, stage.down("--force")))
            assert not machine.path(JOURNAL).is_symlink()
            stage.restored(before, fault)
    # and nothing of it is in the way of the next one
    stage.works()
