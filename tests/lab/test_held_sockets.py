"""Sockets that root made and an account holds: found by the kernel's word, and cut by `up`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine

HOLDER = str(Path(__file__).parent / "held_holder.py")
ROOT, BOB = "0", "61002"
CONFIG = """
[host]
route = "direct"

[[user]]
name = "bob"
"""
FOUND = """
from onionward import held_sockets
from onionward.system import System
uids = [(61002, 61002), (900000, 965535)]
print(*(s.local_port for s in held_sockets.outward(System(), uids)))
for way in held_sockets.ways_around(System(), uids):
    print(way.reason)
"""


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    machine = Machine(lab)
    yield machine
    machine.close()
    machine.down()


def hold(machine: Machine, uid: str, kind: str) -> tuple[subprocess.Popen[str], str]:
    """A process of an account with a socket of root's, and that socket's port."""
    process = machine.spawn("python", "-I", HOLDER, uid, kind, machine.lab.web4, "80")
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def found(machine: Machine) -> list[str]:
    return machine.output("python", "-c", FOUND).splitlines()


def test_connections_from_root_are_cut_for_their_holder_only(machine: Machine) -> None:
    held, port = hold(machine, BOB, "tcp")
    contained, contained_port = hold(machine, "900005", "tcp")
    other, other_port = hold(machine, ROOT, "tcp")
    ports, *ways = found(machine)
    assert sorted(ports.split()) == sorted([port, contained_port])
    assert ways == []
    machine.configure(CONFIG)
    machine.up()
    for process in (held, contained):
        assert process.stdout is not None
        assert process.stdout.readline() == "ConnectionAbortedError\n"
    left = machine.output("ss", "-Htn", "state", "established", f"sport = :{other_port}")
    assert f":{other_port} " in left
    assert other.poll() is None


def test_what_cannot_be_cut_is_refused(machine: Machine) -> None:
    process, port = hold(machine, BOB, "udp")
    ports, *ways = found(machine)
    assert port not in ports.split()
    assert len(ways) == 1
    assert "a UDP socket of uid 0" in ways[0]
    machine.configure(CONFIG)
    done = machine.onionward("up")
    assert done.returncode == 2
    assert "UDP socket of uid 0" in done.stderr
    machine.configure(CONFIG + 'accept = ["held"]\n')
    machine.up()
    assert process.poll() is None
