"""`explain --from br0`: what it says of a container's packets is what the witness sees.

container ── br0 gateway eth0 ── witness
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, run_in
from tests.lab.lifecycle_scopes import ALICE, LAN, forwarding, furnished_gateway
from tests.lab.lifecycle_wire import Wire

PORT = 4433
SEND = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.sendto(b"hello", (address, 4433))
"""


@contextmanager
def routed(machine: Machine, text: str) -> Iterator[None]:
    machine.configure(text)
    machine.up()
    try:
        yield
    finally:
        machine.down()


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with furnished_gateway(lab) as opened, forwarding(opened):
        yield opened


def said(machine: Machine, address: str) -> str:
    done = machine.onionward("explain", "--from", "br0", "udp", address, str(PORT))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("text", "words", "is_seen"),
    [
        (LAN + ALICE, "leaves directly: in clear, if this machine forwards", True),
        ("onion = true\n", "leaves directly: in clear, if this machine forwards", True),
        ("[host]\n" + LAN, "dropped in silence: nothing is forwarded on a routed host", False),
    ],
)
def test_the_witness_agrees(machine: Machine, text: str, words: str, *, is_seen: bool) -> None:
    lab = machine.lab
    targets = (lab.web4, lab.web6)
    with Wire(machine) as wire, routed(machine, text):
        since = time.time()
        assert run_in(lab.hosts["container"], ["python3", "-c", SEND, *targets]).returncode == 0
        found = [p.words for p in wire.packets(since) if f".{PORT}: " in p.words]
        assert [any(f"> {to}.{PORT}: " in line for line in found) for to in targets] == [
            is_seen,
            is_seen,
        ]
        assert all(said(machine, to).startswith(words) for to in targets)


def test_an_interface_that_is_not_there(machine: Machine) -> None:
    done = machine.onionward("explain", "--from", "br7", "udp", machine.lab.web4, str(PORT))
    assert done.returncode == 2
    assert "there is no interface br7" in done.stderr
    assert "there is: br0, container0, eth0, eth1" in done.stderr
