"""Flows that are open when protection begins, and flows through Tor that are open when it ends.

    internet ── host0 (witness, peer) ── eth0 host (flows)

Prepared in one state, provoked in the next. What counts is what leaves after the first rules were
certainly in force, or, on the way down, in clear at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs, Place
from onionward.leaks.vectors import CATALOGUE
from tests.lab.leak_bench import Bench, chosen
from tests.lab.leak_trial import Trial
from tests.report import Faults

BEFORE = chosen(lambda v: v.prepared and v.needs is Needs.NOTHING)
UNLISTED = chosen(lambda v: v.prepared and v.needs is Needs.BYPASS)
BYPASSED = '[bypass]\nnetworks = ["198.18.0.0/24", "2001:db8::/64"]\n'
# connections to the peer that can also be opened through Tor
THROUGH_TOR = chosen(
    lambda v: (
        v.prepared
        and v.family == "P1"
        and v.place is Place.HOST
        and v.needs is Needs.NOTHING
        and v.id not in {"before.unanswered", "before.called"}
    )
)


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    off: Trial
    activated: Trial
    unlisted: Trial
    reloaded: Trial
    removed: Trial


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = Bench(lab, tmp_path_factory.mktemp("flows"))

    def activate() -> float:
        return bench.onionward("up").blocked_by()

    def reload() -> float:
        before = time.time()
        bench.onionward("up")
        return before

    def unlist() -> float:
        bench.configure()
        return bench.onionward("up").blocked_by()

    def remove() -> float:
        before = time.time()
        bench.onionward("down")
        return before

    try:
        off = bench.try_prepared([*BEFORE, *UNLISTED], "off", time.time)
        activated = bench.try_prepared(BEFORE, "activated", activate)
        reloaded = bench.try_prepared(THROUGH_TOR, "reloaded", reload)
        bench.configure(BYPASSED)
        bench.onionward("up")
        unlisted = bench.try_prepared(UNLISTED, "unlisted", unlist)
        removed = bench.try_prepared(THROUGH_TOR, "removed", remove)
        yield Trials(off, activated, unlisted, reloaded, removed)
    finally:
        bench.end()


@pytest.mark.parametrize("name", [*BEFORE, *UNLISTED])
def test_the_witness_sees_it_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", BEFORE)
def test_a_flow_from_before_is_silent_once_blocked(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.activated.assert_silent(name, faults, "flows from before")


@pytest.mark.parametrize("name", UNLISTED)
def test_a_flow_to_a_bypass_that_is_listed_no_longer_is_silent(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.unlisted.assert_silent(name, faults, "flows of a bypass that ends")


def test_nothing_escapes_once_a_bypass_is_listed_no_longer(trials: Trials, faults: Faults) -> None:
    trials.unlisted.assert_nothing_escaped(faults, "flows of a bypass that ends")


def test_nothing_escapes_once_blocked(trials: Trials, faults: Faults) -> None:
    trials.activated.assert_nothing_escaped(faults, "flows from before")


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_a_flow_through_tor_stays_there_when_rules_are_loaded_again(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.reloaded.assert_silent(name, faults, "flows through Tor, rules loaded again")


def test_nothing_escapes_while_rules_are_loaded_again(trials: Trials, faults: Faults) -> None:
    trials.reloaded.assert_nothing_escaped(faults, "flows through Tor, rules loaded again")


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_a_flow_through_tor_does_not_go_on_in_clear_after_down(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.removed.assert_silent(name, faults, "flows through Tor after down")


def test_vectors_are_what_they_say() -> None:
    assert {CATALOGUE[name].family for name in BEFORE} == {"P1", "P2", "P3", "X2"}
