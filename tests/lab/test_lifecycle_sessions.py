"""Connections that are open when `up`, a reload or `down` comes.

neighbour ──session──► host          admitted: lives through all of it
host ──session──► web server         cut by `up`, and nothing of it leaves any more
host ──session──► bypassed network   lives through all of it
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, open_machine
from tests.lab.lifecycle_wire import Wire

BYPASS = '[bypass]\nnetworks = ["198.18.0.0/24", "2001:db8::/64"]\n'


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def serve(machine: Machine, port: int, on: str = "host") -> None:
    server = machine.script("lifecycle_server.py", f"tcp={port}", on=on)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"


def hold(machine: Machine, address: str, port: int, on: str = "host") -> subprocess.Popen[str]:
    """An open connection."""
    session = machine.script("lifecycle_client.py", "hold", address, str(port), on=on)
    assert session.stdout is not None
    assert session.stdout.readline().startswith("open")
    return session


def say(session: subprocess.Popen[str], words: str) -> str:
    """What comes back over a held connection."""
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(words + "\n")
    return session.stdout.readline().strip()


def test_sessions_from_the_link_survive_and_outward_ones_do_not(machine: Machine) -> None:
    lab = machine.lab
    serve(machine, 2222)
    with Wire(machine, f"dst host {lab.neighbour4}") as wire:
        inward = hold(machine, lab.host4, 2222, on="neighbour")
        outward = [hold(machine, address, 7) for address in (lab.web4, lab.web6)]
        for session in (inward, *outward):
            assert say(session, "before") == "got before"
        assert wire.packets(), "the witness does not see what leaves in clear"
        machine.up()
        seen = len(wire.packets())
        # also those that only wait are told
        for address in (lab.web4, f"[{lab.web6}]"):
            assert machine.output("ss", "-Htn", "state", "connected", "dst", address) == ""
        for session in outward:
            assert say(session, "secret") in ("ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT")
        assert say(inward, "routed") == "got routed"
        machine.configure('[bypass]\nnetworks = ["203.0.113.0/24"]\n')
        machine.up()
        assert say(inward, "reloaded") == "got reloaded"
        assert len(wire.packets()) == seen
        machine.down()
        assert say(inward, "off") == "got off"


def test_session_that_is_not_admitted_is_cut(machine: Machine) -> None:
    lab = machine.lab
    serve(machine, 2222)
    with Wire(machine) as wire:
        session = hold(machine, lab.host4, 2222, on="internet")
        assert say(session, "before") == "got before"
        machine.configure('[host]\ninbound = "none"\n')
        machine.up()
        seen = len(wire.packets())
        assert say(session, "still here") in ("TimeoutError", "ECONNRESET")
        assert len(wire.packets()) == seen


def test_bypassed_connection_lives_through_it_all(machine: Machine) -> None:
    serve(machine, 8090, on="neighbour")
    machine.configure(BYPASS)
    session = hold(machine, machine.lab.neighbour4, 8090)
    for words, change in (("off", machine.up), ("routed", machine.down), ("off", machine.up)):
        assert say(session, words) == f"got {words}"
        change()
    assert say(session, "again") == "got again"


def test_redirected_connection_is_cut_by_down(machine: Machine) -> None:
    """No tail of it is sent in clear."""
    lab = machine.lab
    machine.up()
    with Wire(machine) as wire:
        sessions = [hold(machine, address, 7) for address in (lab.web4, lab.web6)]
        for session in sessions:
            assert say(session, "through tor") == "got through tor"
        machine.down()
        for session in sessions:
            assert say(session, "secret") in ("ECONNRESET", "ECONNABORTED", "EPIPE")
        # the machine is open again, so others may speak
        sent = [packet.words for packet in wire.packets()]
        assert [words for words in sent if lab.web4 in words or lab.web6 in words] == []
