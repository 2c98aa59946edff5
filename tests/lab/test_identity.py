"""new-identity: fresh circuits for everybody; what is open stays, or is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from onionward.lab import Lab
from tests.lab.circuits_people import Answers, People, connection, name, people
from tests.lab.lifecycle_machine import Done, open_machine, until

SCOPES = '[host]\n[[user]]\nname = "alice"\n[[user]]\nname = "bob"\n'
WHO = ("alice", "bob", "root")


@dataclass(frozen=True)
class Shown:
    """What happened.

    Attributes:
        off: the command on a machine that is off.
        before: what everybody asked first, by what that was.
        first: the command.
        held: streams on circuits after it, by circuit.
        after: the same asked again.
        second: the command with --close, right behind the first.
        closed: streams on circuits after that.
        without_tor: the command while tor does not run.

    """

    off: Done
    before: dict[str, Answers]
    first: Done
    held: dict[str, int]
    after: dict[str, Answers]
    second: Done
    closed: dict[str, int]
    without_tor: Done


def ask(everybody: People, lab: Lab) -> dict[str, Answers]:
    mapped = everybody.ask(name(lab.dns4, lab.onion), ("alice",))["alice"].heard
    page = replace(connection(mapped, 80), more={"say": "GET / HTTP/1.0\r\n\r\n"})
    return {
        "onion": everybody.ask(page, ("alice",)),
        "TCP": everybody.ask(connection(lab.web4), WHO),
        "name": everybody.ask(name(lab.dns4), WHO),
    }


@pytest.fixture(scope="module")
def shown(lab: Lab) -> Iterator[Shown]:
    with open_machine(lab, "gateway") as machine, people(machine) as everybody:
        off = machine.onionward("new-identity")
        machine.configure(SCOPES)
        machine.up()
        before = ask(everybody, lab)
        first = machine.onionward("new-identity")
        held = everybody.held()
        after = ask(everybody, lab)
        second = machine.onionward("new-identity", "--close")
        until("what was open has ended", lambda: not everybody.held())
        closed = everybody.held()
        machine.kill_tor()
        without_tor = machine.onionward("new-identity")
        yield Shown(off, before, first, held, after, second, closed, without_tor)


@pytest.mark.parametrize("what", ["TCP", "name"])
@pytest.mark.parametrize("who", WHO)
def test_what_begins_afterwards_is_on_another_circuit(shown: Shown, who: str, what: str) -> None:
    assert shown.before[what][who].circuit != shown.after[what][who].circuit


def test_onion_services_are_visited_on_another_circuit(shown: Shown) -> None:
    before, after = shown.before["onion"]["alice"], shown.after["onion"]["alice"]
    assert "200 OK" in before.heard
    assert "200 OK" in after.heard
    assert before.circuit != after.circuit


def test_what_is_open_stays_where_it_is_and_is_counted(shown: Shown) -> None:
    assert shown.first.returncode == 0, shown.first.stderr
    assert shown.held.keys() >= {told.circuit for told in shown.before["TCP"].values()}
    assert "open connections stay on theirs (--close cuts them)" in shown.first.stdout


def test_a_second_one_waits_and_says_for_what(shown: Shown) -> None:
    assert shown.second.returncode == 0, shown.second.stderr
    assert "every 10 s and no sooner" in shown.second.stdout


def test_close_cuts_what_is_open(shown: Shown) -> None:
    assert "connections cut" in shown.second.stdout
    assert "; 0 connections cut" not in shown.second.stdout
    assert not shown.closed


def test_a_machine_that_is_not_routed_is_told_as_status_does(shown: Shown) -> None:
    assert (shown.off.returncode, shown.without_tor.returncode) == (3, 4)
    assert "the machine is off; nothing was touched" in shown.off.stderr
    assert "the machine is blocked, and tor does not run" in shown.without_tor.stderr
