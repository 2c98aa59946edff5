"""pause and resume: an account that talks all the time gets nothing through, and then again.

    internet ── witness ── eth0 gateway: alice (paused), bob (not), each with flows of every kind

tor's own account of its streams says what has reached it of whom.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.lab.control import Control
from onionward.paths import PATHS
from onionward.policy import CIRCUITS4, CIRCUITS6
from tests.lab.circuits_people import seen
from tests.lab.lifecycle_machine import Done, Machine, open_machine, until
from tests.lab.lifecycle_scopes import SENDERS, Heard, Senders
from tests.lab.lifecycle_talker import PORTS
from tests.lab.lifecycle_wire import Wire, now

USERS = '[[user]]\nname = "alice"\n[[user]]\nname = "bob"\n'
SCOPES = {
    "host, nftables": f"[host]\n{USERS}",
    "users, iptables": f'{USERS}[firewall]\nbackend = "iptables"\n',
}
# the first account's at tor (`onionward.render.nftables.accounts`)
ALICE = {str(CIRCUITS4[1]), str(CIRCUITS6[1 << 16])}
_AWHILE = 1.5  # seconds, in which a talker sends thirty datagrams and tries four connections


@dataclass(frozen=True)
class Shown:
    """What happened.

    Attributes:
        paused: the command.
        before, begun, ended: what alice had heard when it was typed, when it was done, and awhile
            later.
        bob: the same of bob, when it was done, and awhile later.
        streams: of alice, that tor has told of after it was done:.
        as_usual: of alice, in the same time before.
        status: what it says meanwhile.
        explained: of a packet of alice's.
        reloaded: `up` meanwhile.
        resumed: the command.
        by_itself: a pause for seconds, and status after its end.
        refused: exit status of it while the machine is off, for root, for nobody's name.
        leaks: what the witness has seen of alice in all that time.

    """

    paused: Done
    before: Heard
    begun: Heard
    ended: Heard
    bob: tuple[Heard, Heard]
    streams: int
    as_usual: int
    status: dict[str, object]
    explained: Done
    reloaded: Done
    resumed: Done
    by_itself: Done
    refused: list[int]
    leaks: list[str]


def streams_of_alice(machine: Machine, seconds: float) -> int:
    """How many streams and look-ups of hers tor tells of in a time."""
    socket, cookie = map(machine.path, (PATHS.control_socket, PATHS.control_cookie))
    with Control(socket, timeout=30, cookie=cookie.read_bytes()) as control:
        control.ask("SETEVENTS STREAM")
        time.sleep(seconds)
        control.ask("GETINFO version")
        return sum(stream.source in ALICE for stream in seen(control.heard).values())


@pytest.fixture(scope="module", params=SCOPES)
def shown(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Shown]:
    with open_machine(lab, "gateway") as machine:
        machine.configure(SCOPES[request.param])
        refused = [machine.onionward("pause", "alice").returncode]
        machine.up()
        refused += [machine.onionward("pause", name).returncode for name in ("root", "nobody-here")]
        senders = Senders(machine, ["alice", "bob"])
        with Wire(machine) as wire:
            start = now()
            as_usual = streams_of_alice(machine, _AWHILE)
            before = senders.heard("alice")
            paused = machine.onionward("pause", "alice")
            begun, bob = senders.heard("alice"), senders.heard("bob")
            streams = streams_of_alice(machine, _AWHILE)
            status = machine.status()
            explained = machine.onionward("explain", "--user", "alice", "tcp", "192.0.2.1", "80")
            reloaded = machine.up()
            streams += streams_of_alice(machine, _AWHILE)
            machine.kill_tor(guarded=True)
            until("the guard has started tor", lambda: _is_routed(machine), 60)
            streams += streams_of_alice(machine, _AWHILE)
            ended = senders.heard("alice")
            until("bob goes on", lambda: senders.heard("bob").received > bob.received, 30)
            bobs = (bob, senders.heard("bob"))
            resumed = machine.onionward("resume", "alice")
            senders.wait_until_all_hear()
            by_itself = machine.onionward("pause", "alice", "--for", "1")
            until("the pause has ended", lambda: not machine.status()["paused"], 30)
            senders.wait_until_all_hear()
            first = SENDERS["alice"]
            leaks = [
                packet.words
                for packet in wire.packets(start)
                if any(f".{port} > " in packet.words for port in range(first, first + PORTS))
            ]
        senders.close()
        yield Shown(
            paused,
            before,
            begun,
            ended,
            bobs,
            streams,
            as_usual,
            status,
            explained,
            reloaded,
            resumed,
            by_itself,
            refused,
            leaks,
        )


def _is_routed(machine: Machine) -> bool:
    return bool(machine.status()["state"] == "routed")


def test_open_connections_end_and_nothing_begins(shown: Shown) -> None:
    assert shown.paused.returncode == 0, shown.paused.stderr
    assert shown.before.received, "she had heard nothing, which proves nothing"
    assert shown.ended.received == shown.begun.received


def test_nothing_reaches_tor_through_a_reload_and_the_next_tor(shown: Shown) -> None:
    assert shown.as_usual, "tor has told of nothing before, which proves nothing"
    assert shown.reloaded.returncode == 0
    assert not shown.streams


def test_nothing_leaves_in_clear(shown: Shown) -> None:
    assert not shown.leaks


def test_others_go_on(shown: Shown) -> None:
    before, after = shown.bob
    assert after.received > before.received


def test_it_is_said(shown: Shown) -> None:
    paused = shown.status["paused"]
    assert isinstance(paused, list)
    assert [(one["account"], one["until"]) for one in paused] == [("alice", None)]
    assert shown.explained.stdout.startswith("refused at once: alice is paused")
    assert "alice gets nothing through until 20" in shown.by_itself.stdout


def test_resumed_she_is_routed_again(shown: Shown) -> None:
    assert shown.resumed.stdout == "resumed: alice is routed as before\n"


def test_what_cannot_be_is_refused(shown: Shown) -> None:
    assert shown.refused == [3, 2, 2]
