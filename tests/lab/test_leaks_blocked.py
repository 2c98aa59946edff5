"""Blocked: tor tries to reach a network that is not there, and nothing else leaves.

internet ── host0 (witness) ── eth0 host (`onionward up` waits for tor)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs
from tests.lab.leak_bench import Bench, chosen
from tests.lab.leak_half_way import ELSEWHERE, half_way_up
from tests.lab.leak_trial import Trial
from tests.report import Faults

# what goes through tor first needs a tor
VECTORS = chosen(
    lambda v: (
        not v.prepared
        and not v.limit
        and v.needs in {Needs.NOTHING, Needs.TOR_GROUP}
        and v.family != "C1"
    )
)


@pytest.fixture(scope="module")
def blocked(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    bench = Bench(lab, tmp_path_factory.mktemp("blocked"))
    try:
        with half_way_up(bench):
            trial = bench.try_vectors(VECTORS, "blocked")
        yield trial
    finally:
        bench.end()


def test_nothing_escapes_while_blocked(blocked: Trial, faults: Faults) -> None:
    blocked.assert_nothing_escaped(faults, "ways out of a blocked host")


@pytest.mark.parametrize("name", VECTORS)
def test_it_does_not_leave_a_blocked_host(blocked: Trial, name: str, faults: Faults) -> None:
    blocked.assert_silent(name, faults, "ways out of a blocked host")


def test_tor_itself_was_seen(blocked: Trial) -> None:
    assert blocked.capture.count(f"tcp and dst net {ELSEWHERE}0/24")
