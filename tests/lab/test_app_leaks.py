"""No vector leaves a run, whoever tries: its account, or root in its network namespace.

The witness must see each with the rules gone and the machine forwarding, from the same namespace;
then the rules are back, the machine goes on forwarding, and nothing is seen: while onionward is
off, and on a routed host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Account, Scope
from onionward.leaks.vectors import CATALOGUE
from tests.lab.app_bench import RunBench, devices_of_runs
from tests.lab.leak_bench import chosen, sampled
from tests.lab.leak_trial import Trial
from tests.report import Faults

VECTORS = sampled("run", chosen(lambda v: not v.prepared, Scope.LAN))
OF_ACCOUNT = [n for n in VECTORS if CATALOGUE[n].account is Account.USER]
STATES = ("off", "routed")
CLASS = "ways out of a run"


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    without: Trial
    as_root: dict[str, Trial]
    as_account: dict[str, Trial]


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = RunBench(lab, tmp_path_factory.mktemp("runs"))
    try:
        bench.begin()
        bench.become_open()
        without = bench.try_control(VECTORS, "without")
        bench.become_closed()
        as_root, as_account = {}, {}
        for state in STATES:
            if state == "routed":
                bench.onionward("up")
            bench.as_root = True
            as_root[state] = bench.try_vectors(VECTORS, f"root-{state}")
            bench.as_root = False
            as_account[state] = bench.try_vectors(OF_ACCOUNT, f"account-{state}")
        yield Trials(without, as_root, as_account)
    finally:
        bench.end()
    assert devices_of_runs(bench) == []


@pytest.mark.parametrize("name", VECTORS)
def test_the_witness_sees_it_without_rules(trials: Trials, name: str) -> None:
    assert trials.without.seen(name), trials.without.outcomes[name]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", VECTORS)
def test_root_of_a_run_sends_nothing(trials: Trials, name: str, state: str, faults: Faults) -> None:
    trials.as_root[state].assert_silent(name, faults, CLASS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", OF_ACCOUNT)
def test_the_account_of_a_run_sends_nothing(
    trials: Trials, name: str, state: str, faults: Faults
) -> None:
    trials.as_account[state].assert_silent(name, faults, CLASS)


def test_a_routed_machine_sends_nothing_else_either(trials: Trials, faults: Faults) -> None:
    for told in (trials.as_root, trials.as_account):
        told["routed"].assert_nothing_escaped(faults, CLASS)
