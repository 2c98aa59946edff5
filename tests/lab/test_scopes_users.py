"""Two accounts are routed: nothing of theirs leaves, and nothing of anybody else stays.

    internet ── host0 (witness, peer) ── eth0 host (alice: routed; carol and root: not)

The vectors are tried as alice: with an ordinary program's rights, or with root's and sockets that
are alice's.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs, Place, Scope
from onionward.leaks.vectors import number_of
from onionward.leaks.wire import HOUSEKEEPING, Capture, Packet
from tests.lab.leak_bench import Bench, Seat, chosen, sampled
from tests.lab.leak_trial import Trial
from tests.report import Faults

COMPANION = Path(__file__).with_name("leak_companion.py")
GUESS = Path(__file__).with_name("leak_guess.py")
HOLDER = Path(__file__).with_name("leak_holder.py")
USERS = '[[user]]\nname = "alice"\n[[user]]\nname = "bob"\n'

PLAIN = sampled("users", chosen(lambda v: not v.prepared, Scope.USER))
BEFORE = chosen(lambda v: v.prepared, Scope.USER)
# connections to the peer that can also be opened through Tor
THROUGH_TOR = chosen(
    lambda v: (
        v.prepared
        and v.family == "P1"
        and v.scope is Scope.HOST
        and v.id not in {"before.unanswered", "before.called"}
    ),
    Scope.USER,
)
# what others send, too; tables of somebody else and lost conntrack entries are no such thing
OTHERS = chosen(
    lambda v: (
        v.id in PLAIN
        and v.scope is Scope.HOST
        and v.needs is Needs.NOTHING
        and v.family not in {"C1", "X5"}
        # where .onion names are mapped is nobody's while accounts are routed
        and not v.id.startswith(("onion.virtual6", "bound.mapped-onion"))
        # connection tracking puts fragments together, of whomever, and waits for the others
        and not v.id.startswith("raw.fragment")
    ),
    Scope.USER,
)


# what the companions say, and what the kernel does by itself
OF_OTHERS = (
    *HOUSEKEEPING,
    "src portrange 32768-60999 and (dst port 13 or (udp and dst port 7))",
    "udp dst port 53 and udp[20:4] = 0x03777777",
    "icmp[0] = 8 and icmp[4:2] = 0x7777",
)
HELD, FREE = (27001, 27002, 27003), (27101, 27102, 27103)


@dataclass(frozen=True)
class Guessed:
    """What came back from ports with a connection of alice, and from ports without."""

    held: tuple[tuple[str, ...], ...]
    free: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    off: Trial
    off_before: Trial
    activated: Trial
    routed: Trial
    others: Trial
    removed: Trial
    companions: dict[str, dict[str, Any]]
    guessed: dict[str, Guessed]


def start(bench: Bench, user: str | None, script: Path, *words: object) -> subprocess.Popen[str]:
    argv = ["/usr/bin/python3", "-I", "-S", str(script), *map(str, words)]
    process = subprocess.Popen(
        bench.host.command(argv, user=user),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def companion(bench: Bench, user: str | None) -> subprocess.Popen[str]:
    lab = bench.lab
    return start(bench, user, COMPANION, lab.web4, lab.web6, lab.dns4)


def guess(bench: Bench, label: str) -> Guessed:
    """Let a neighbour guess at connections that alice holds, and at ports that nobody has."""
    lab, aim = bench.lab, bench.aims[Place.WIRE]
    far = [(lab.web4, lab.host4, 80), (lab.web6, lab.host6, 80), (lab.dns4, lab.host4, 53)]
    holder = start(bench, "alice", HOLDER, lab.web4, lab.web6, lab.dns4, *HELD)
    try:
        with bench.witness.watch(label) as capture:
            for (who, whom, port), held, free in zip(far, HELD, FREE, strict=True):
                words = [aim.far_device, aim.far_mac, aim.device_mac, who, whom, port, held, free]
                argv = ["python", str(GUESS), *map(str, words)]
                bench.run(*argv, host=bench.internet)
    finally:
        holder.communicate(timeout=10)
    return Guessed(*(tuple(answers(capture, port) for port in ports) for ports in (HELD, FREE)))


def answers(capture: Capture, port: int) -> tuple[str, ...]:
    """What a port has answered, without what names it."""
    about = f"tcp src port {port} or icmp[30:2] = {port} or (icmp6 and ip6[90:2] = {port})"
    argv = ["tcpdump", "-r", str(capture.path), "-n", "-v", "-t", "-K", about]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    # ICMP counts its packets
    text = re.sub(r"(tos 0xc0, ttl \d+, id) \d+", r"\1 …", done.stdout)
    return tuple(text.replace(str(port), "PORT").splitlines())


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    alice = Seat(account="alice", other="carol", owner="alice")
    bench = Bench(lab, tmp_path_factory.mktemp("users"), alice)
    bench.exempt = replace(bench.exempt, others=OF_OTHERS)
    running: dict[str, subprocess.Popen[str]] = {}
    guessed: dict[str, Guessed] = {}

    def activate() -> float:
        return bench.onionward("up").blocked_by()

    def remove() -> float:
        before = time.time()
        bench.onionward("down")
        return before

    try:
        off = bench.try_control(PLAIN, "off")
        off_before = bench.try_prepared(BEFORE, "off-before", time.time)
        guessed["off"] = guess(bench, "guessed-off")
        for user in ("carol", "root"):
            running[user] = companion(bench, user if user != "root" else None)
        bench.configure(USERS)
        activated = bench.try_prepared(BEFORE, "activated", activate)
        routed = bench.try_vectors(PLAIN, "routed")
        guessed["routed"] = guess(bench, "guessed-routed")
        bench.sit(account="carol", owner="")
        others = bench.try_control(OTHERS, "others")
        bench.sit(account="alice", owner="alice")
        removed = bench.try_prepared(THROUGH_TOR, "removed", remove)
        told = {user: json.loads(one.communicate(timeout=20)[0]) for user, one in running.items()}
        yield Trials(off, off_before, activated, routed, others, removed, told, guessed)
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
        bench.end()


@pytest.mark.parametrize("name", PLAIN)
def test_the_witness_sees_it_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", BEFORE)
def test_the_witness_sees_flows_from_before_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off_before.seen(name), trials.off_before.outcomes[name]


@pytest.mark.parametrize("name", PLAIN)
def test_it_does_not_leave_from_a_routed_account(trials: Trials, name: str, faults: Faults) -> None:
    trials.routed.assert_silent(name, faults, "ways out of a routed account")


def test_nothing_at_all_escapes_from_a_routed_account(trials: Trials, faults: Faults) -> None:
    trials.routed.assert_nothing_escaped(faults, "ways out of a routed account")


@pytest.mark.parametrize("name", BEFORE)
def test_a_flow_of_the_account_from_before_is_silent_once_blocked(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.activated.assert_silent(name, faults, "flows from before, account")


def test_nothing_escapes_once_blocked_but_resets_of_what_root_had_opened(trials: Trials) -> None:
    held = [str(number_of(name)) for name in BEFORE if name.startswith("held.tcp")]
    left = [
        packet
        for packet in trials.activated.escaped()
        if not ("Flags [R" in packet.words and any(f".{n} > " in packet.words for n in held))
    ]
    assert left == [p for p in left if is_of_nobody(trials, p)]


def is_of_nobody(trials: Trials, packet: Packet) -> bool:
    """Whether it is what every machine says to the far end of a connection that it has cut."""
    cut = ("server-speaks", "server-speaks6", "fin-wait", "unreachable")
    numbers = [str(number_of(f"before.{name}")) for name in cut]
    return any(number in packet.words for number in numbers)


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_a_flow_through_tor_does_not_go_on_in_clear_after_down(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.removed.assert_silent(name, faults, "flows through Tor after down, account")


@pytest.mark.parametrize("name", OTHERS)
def test_others_send_what_they_always_have(trials: Trials, name: str) -> None:
    sent, always = trials.others.seen(name), trials.off.seen(name)
    assert sent, trials.others.outcomes[name]
    assert shape(sent[0]) == shape(always[0])


def shape(packet: Packet) -> str:
    """Its words without what differs between two connections of the same kind."""
    return re.sub(r"(seq|ack|val|ecr|id) \d+(:\d+)?|nonce \w+|(key|token) 0x\w+", "", packet.words)


@pytest.mark.parametrize("user", ["carol", "root"])
def test_exchanges_of_others_live_through_up_and_down(trials: Trials, user: str) -> None:
    told = trials.companions[user]
    assert ("ping" in told) == (user == "root")
    for kind, exchange in told.items():
        assert exchange["error"] == "", kind
        assert exchange["asked"] >= 50, kind
        assert exchange["answered"] == exchange["asked"], kind


def test_guesses_tell_which_connections_there_are_with_protection_off(trials: Trials) -> None:
    for held, free in zip(*astuple(trials.guessed["off"]), strict=True):
        assert held != free


def test_guesses_do_not_tell_which_connections_a_routed_account_has(trials: Trials) -> None:
    found = trials.guessed["routed"]
    assert all(found.free), "nobody answers at all, which proves nothing"
    assert found.held == found.free
