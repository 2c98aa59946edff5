"""Who may open connections to a routed host: nobody, bypassed networks, the link, everybody.

    stranger (in `internet`) ──┐
                               ├── host: tcp 8080, udp 8080 (served), udp 40000 (ephemeral),
    neighbour (same link) ─────┘         udp 5353 (discovery), closed ports, ping

The same probes are sent first while protection is off, when every one must be answered.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import HERE, Machine, difference, open_machine
from tests.lab.lifecycle_wire import Wire

SERVED = ("tcp=8080", "udp=8080", "icmp=0")
CLOSED = ("tcp=8081", "udp=8081")
NEVER = ("udp=40000", "udp=5353", "tcp=940", "udp=941")
OPEN_NOW = {
    **dict.fromkeys((*SERVED, "udp=40000", "udp=5353"), "answer"),
    **dict.fromkeys((*CLOSED, "tcp=940", "udp=941"), "refused"),
}
ADMITTED = {
    **dict.fromkeys(SERVED, "answer"),
    **dict.fromkeys(CLOSED, "refused"),
    **dict.fromkeys(NEVER, "silence"),
}
# the kernel's "port unreachable" is an answer only to those who are reached directly anyway
ADMITTED_BY_LINK = {**ADMITTED, "udp=8081": "silence"}
SILENCE = dict.fromkeys(ADMITTED, "silence")
PEERS = ("neighbour4", "neighbour6", "stranger4", "stranger6")

MODES = {
    "none": ("", ()),
    "link": ("", ("neighbour4", "neighbour6")),
    "all": ("", PEERS),
    "bypass": (
        '[bypass]\nnetworks = ["198.18.66.0/24", "2001:db8:66::/48"]\n',
        ("stranger4", "stranger6"),
    ),
}


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        server = opened.script(
            "lifecycle_server.py", "tcp=8080", "udp=8080", "udp=40000", "udp=5353"
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield opened


def probe_all(machine: Machine) -> dict[str, dict[str, str]]:
    """What each peer gets, by peer and probe."""
    lab = machine.lab
    running = {}
    for peer in PEERS:
        place = "neighbour" if peer.startswith("neighbour") else "internet"
        target = lab.host4 if peer.endswith("4") else lab.host6
        argv = ["python", "-I", str(HERE / "lifecycle_client.py"), "probe", getattr(lab, peer)]
        running[peer] = subprocess.Popen(
            lab.hosts[place].command([*argv, target, *ADMITTED]), stdout=subprocess.PIPE, text=True
        )
    return {peer: json.loads(process.communicate()[0]) for peer, process in running.items()}


def test_everybody_is_answered_when_off(machine: Machine) -> None:
    assert difference(dict.fromkeys(PEERS, OPEN_NOW), probe_all(machine)) == ""


@pytest.mark.parametrize("mode", MODES)
def test_only_the_admitted_are_answered(machine: Machine, mode: str) -> None:
    more, admitted = MODES[mode]
    machine.configure(f'[host]\ninbound = "{mode}"\n{more}')
    machine.up()
    lab = machine.lab
    allowed = " or ".join(f"dst host {getattr(lab, peer)}" for peer in admitted)
    with Wire(machine, allowed) as wire:
        found = probe_all(machine)
        answers = ADMITTED if mode == "bypass" else ADMITTED_BY_LINK
        expected = {peer: answers if peer in admitted else SILENCE for peer in PEERS}
        if mode == "all":
            # a stranger's datagram could turn what a program sends to it into an answer
            expected |= {peer: {**answers, "udp=8080": "silence"} for peer in PEERS[2:]}
        assert difference(expected, found) == ""
        wire.assert_silent()
