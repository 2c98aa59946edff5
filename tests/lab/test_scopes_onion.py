"""`onion = true` alone: names under .onion and their addresses reach tor or nobody; the rest stays.

    internet ── host0 (witness, peer) ── eth0 host (vectors: nobody and root)

Vectors of the scope are tried with protection off, where the witness must see them, half way up,
routed, without tor, and as flows that outlive `up` or `down`. All others leave as they always have.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Account, Needs, Place, Scope
from onionward.leaks.wire import Packet
from tests.lab.leak_bench import Bench, chosen, sampled
from tests.lab.leak_half_way import half_way_up
from tests.lab.leak_trial import Trial
from tests.lab.lifecycle_machine import until
from tests.report import Faults

COMPANION = Path(__file__).with_name("leak_companion.py")
CONFIG = "onion = true\n"
MAPPED = "fd5a:7011::/32"

ALL = chosen(lambda v: not v.prepared and not v.limit, Scope.ONION)
PLAIN = sampled("onion", ALL)
LIMITS = chosen(lambda v: v.limit, Scope.ONION)
BEFORE = chosen(lambda v: v.prepared, Scope.ONION)
# connections that tor takes to an onion service
THROUGH_TOR = ["onion-address.flow-tcp6"]
# the machine's resolver is told of tor when tor answers: until then it asks on, and packet rules
# recognise only what they do of anybody
RECOGNISED = [n for n in PLAIN if not re.search(r"own-(tcp|short|deep)|-deep", n)]
OF_THE_SCOPE = {*ALL, *BEFORE}
OTHERS = sampled(
    "others",
    chosen(
        lambda v: (
            v.id not in OF_THE_SCOPE
            and not v.prepared
            and v.place is Place.HOST
            and v.account is not Account.TOR
            and v.needs is Needs.NOTHING
            # connection tracking puts fragments together, of whomever, and waits for the others
            and not v.id.startswith("raw.fragment")
        )
    ),
)


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    off: Trial
    off_before: Trial
    off_others: Trial
    activated: Trial
    routed: Trial
    limits: Trial
    others: Trial
    without_tor: Trial
    removed: Trial
    blocked: Trial
    answers: dict[str, list[str]]
    companions: dict[str, dict[str, Any]]


def companion(bench: Bench, user: str | None) -> subprocess.Popen[str]:
    lab = bench.lab
    argv = ["/usr/bin/python3", "-I", "-S", str(COMPANION), lab.web4, lab.web6, lab.dns4]
    process = subprocess.Popen(
        bench.host.command(argv, user=user),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def answers(bench: Bench) -> dict[str, list[str]]:
    """What programs are told of the onion service, whomever they ask."""
    lab, told = bench.lab, {}
    for kind in ("A", "AAAA"):
        for server in ("", f"@{lab.dns4}", f"@{lab.dns6}"):
            argv = ["dig", "+short", "+tries=1", "+time=5", *server.split(), lab.onion, kind]
            told[f"{kind} {server}"] = bench.run(*argv).split()
    return told


def kill_tor(bench: Bench) -> None:
    pids = bench.tor_pids()
    assert pids, "there is no tor to kill"
    bench.run("kill", "-KILL", *pids)
    until("tor is gone", lambda: not set(pids) & set(bench.tor_pids()))


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = Bench(lab, tmp_path_factory.mktemp("onion"))
    running: dict[str, subprocess.Popen[str]] = {}

    def activate() -> float:
        return bench.onionward("up").blocked_by()

    def remove() -> float:
        before = time.time()
        bench.onionward("down")
        return before

    # who answers that there is no way there ends what would be said again
    bench.run("ip", "-6", "route", "replace", "blackhole", MAPPED, host=bench.internet)
    try:
        off = bench.try_control([*PLAIN, *LIMITS], "off")
        off_before = bench.try_prepared(BEFORE, "off-before", time.time)
        off_others = bench.try_control(OTHERS, "off-others")
        for user in ("carol", "root"):
            running[user] = companion(bench, user if user != "root" else None)
        bench.configure(CONFIG)
        activated = bench.try_prepared(BEFORE, "activated", activate)
        told = answers(bench)
        routed = bench.try_vectors(PLAIN, "routed")
        limits = bench.try_control(LIMITS, "limits")
        kill_tor(bench)
        without_tor = bench.try_vectors(PLAIN, "without-tor")
        bench.onionward("up")
        mapped = dataclasses.replace(bench.targets, onion6=answers(bench)["AAAA "][0])
        bench.aims[Place.HOST] = mapped
        removed = bench.try_prepared(THROUGH_TOR, "removed", remove)
        heard = {user: json.loads(one.communicate(timeout=20)[0]) for user, one in running.items()}
        # some of these take the uplink from everybody for a moment
        bench.sit(account="nobody", owner="")
        bench.onionward("up")
        others = bench.try_control(OTHERS, "others")
        bench.onionward("down")
        with half_way_up(bench, CONFIG):
            blocked = bench.try_vectors(RECOGNISED, "blocked")
        yield Trials(
            off,
            off_before,
            off_others,
            activated,
            routed,
            limits,
            others,
            without_tor,
            removed,
            blocked,
            told,
            heard,
        )
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
        bench.run("ip", "-6", "route", "delete", "blackhole", MAPPED, host=bench.internet)
        bench.end()


def strays(trial: Trial) -> tuple[Packet, ...]:
    """Questions for names under .onion, and packets from and to where they are mapped."""
    asked = trial.capture.packets("port 53", since=trial.since)
    mapped = trial.capture.packets(f"net 127.0.0.0/8 or net {MAPPED}", since=trial.since)
    return (*(p for p in asked if ".onion" in p.words.casefold()), *mapped)


@pytest.mark.parametrize("name", [*PLAIN, *LIMITS])
def test_the_witness_sees_it_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", BEFORE)
def test_the_witness_sees_flows_from_before_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off_before.seen(name), trials.off_before.outcomes[name]


def test_the_witness_sees_names_and_addresses_with_protection_off(trials: Trials) -> None:
    words = " ".join(packet.words for packet in strays(trials.off))
    for part in ("198.18.53.1.53: ", "2001:db8:53::1.53: ", "fd5a:7011::7", "127.192.0.7"):
        assert part in words


def assert_silent(trial: Trial, names: Sequence[str], faults: Faults, fault_class: str) -> None:
    found = strays(trial)
    faults.record(fault_class, tried=0, clear=len(found))
    for name in names:
        trial.assert_silent(name, faults, fault_class)
    assert found == ()


def test_nothing_of_it_leaves_half_way_up(trials: Trials, faults: Faults) -> None:
    assert_silent(trials.blocked, RECOGNISED, faults, "ways out of .onion names half way up")


@pytest.mark.parametrize("name", PLAIN)
def test_it_does_not_leave_once_routed(trials: Trials, name: str, faults: Faults) -> None:
    trials.routed.assert_silent(name, faults, "ways out of .onion names")


def test_nothing_of_the_kind_leaves_once_routed(trials: Trials, faults: Faults) -> None:
    assert_silent(trials.routed, (), faults, "ways out of .onion names")


def test_nothing_of_it_leaves_without_tor(trials: Trials, faults: Faults) -> None:
    assert_silent(trials.without_tor, PLAIN, faults, "ways out of .onion names when tor is killed")


@pytest.mark.parametrize("name", BEFORE)
def test_a_flow_from_before_is_silent_once_rules_are_there(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.activated.assert_silent(name, faults, "flows from before, .onion names")


def test_nothing_of_the_kind_leaves_during_activation(trials: Trials, faults: Faults) -> None:
    assert_silent(trials.activated, (), faults, "flows from before, .onion names")


def test_a_connection_to_an_onion_service_does_not_go_on_in_clear_after_down(
    trials: Trials, faults: Faults
) -> None:
    assert_silent(trials.removed, THROUGH_TOR, faults, "flows through Tor after down, .onion names")


@pytest.mark.parametrize("name", LIMITS)
def test_it_leaves_as_the_documentation_says(trials: Trials, name: str) -> None:
    assert trials.limits.seen(name), trials.limits.outcomes[name]


def test_names_are_answered_by_tor_whoever_is_asked(trials: Trials) -> None:
    for question, told in trials.answers.items():
        assert len(told) == 1, question
        assert told[0].startswith("fd5a:7011:" if "AAAA" in question else "127."), question


@pytest.mark.parametrize("name", OTHERS)
def test_others_send_what_they_always_have(trials: Trials, name: str) -> None:
    sent, always = trials.others.seen(name), trials.off_others.seen(name)
    assert sent, trials.others.outcomes[name]
    # through some of these, other things are sent, too
    assert {shape(packet) for packet in sent} & {shape(packet) for packet in always}


def shape(packet: Packet) -> str:
    """Its words without what differs between two connections of the same kind."""
    words = re.sub(r"\.(3[2-9]|[456]\d)\d{3} > ", ".PORT > ", packet.words)
    return re.sub(r"(seq|ack|val|ecr|id) \d+(:\d+)?|nonce \w+|(key|token) 0x\w+", "", words)


@pytest.mark.parametrize("user", ["carol", "root"])
def test_exchanges_live_through_up_and_down(trials: Trials, user: str) -> None:
    told = trials.companions[user]
    assert ("ping" in told) == (user == "root")
    for kind, exchange in told.items():
        assert exchange["error"] == "", kind
        assert exchange["asked"] >= 50, kind
        assert exchange["answered"] == exchange["asked"], kind
