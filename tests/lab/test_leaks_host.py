"""Every vector that needs no preparation, against a routed host.

    internet ── host0 (witness, peer) ── eth0 host (vectors)

Each is tried with protection off, where the witness must see it, and with protection on, where it
must see nothing. The trials of one kind share one capture; packets are told apart by number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs
from onionward.leaks.vectors import CATALOGUE
from tests.lab.leak_bench import Bench, chosen
from tests.lab.leak_trial import Trial
from tests.report import Faults

PLAIN = chosen(
    lambda v: not v.prepared and not v.limit and v.needs in {Needs.NOTHING, Needs.TOR_GROUP}
)
SILENCE = chosen(lambda v: v.needs is Needs.SILENCE)
BYPASS = chosen(lambda v: not v.prepared and v.needs is Needs.BYPASS)
LIMITS = chosen(lambda v: v.limit)

BYPASSED = '[bypass]\nnetworks = ["198.18.0.0/24", "2001:db8::/64"]\n'


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    off: Trial
    routed: Trial
    limits: Trial
    bypassing: Trial


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = Bench(lab, tmp_path_factory.mktemp("host"))
    try:
        off = bench.try_control([*PLAIN, *BYPASS, *SILENCE, *LIMITS], "off")
        bench.onionward("up")
        routed = bench.try_vectors(PLAIN, "routed")
        limits = bench.try_control(LIMITS, "limits")
        bench.configure(BYPASSED)
        bench.onionward("up")
        bypassing = bench.try_control(BYPASS, "bypassing")
        yield Trials(off, routed, limits, bypassing)
    finally:
        bench.end()


@pytest.mark.parametrize("name", [*PLAIN, *BYPASS, *SILENCE, *LIMITS])
def test_the_witness_sees_it_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", PLAIN)
def test_it_does_not_leave_a_routed_host(trials: Trials, name: str, faults: Faults) -> None:
    trials.routed.assert_silent(name, faults, "ways out of a routed host")


def test_nothing_at_all_escapes_from_a_routed_host(trials: Trials, faults: Faults) -> None:
    trials.routed.assert_nothing_escaped(faults, "ways out of a routed host")


@pytest.mark.parametrize("name", BYPASS)
def test_it_does_not_leave_a_host_with_a_bypass(trials: Trials, name: str, faults: Faults) -> None:
    trials.bypassing.assert_silent(name, faults, "ways out of a host with a bypass")


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_said_not_to_be_stopped_is_not_stopped(trials: Trials, name: str) -> None:
    assert trials.limits.seen(name), (
        f"{CATALOGUE[name].title} is stopped now: say so in docs/security.md"
    )


def test_tor_itself_was_seen(trials: Trials) -> None:
    # a witness that saw no tor either would have been deaf
    assert trials.routed.capture.count(trials.routed.exempt.filter())
