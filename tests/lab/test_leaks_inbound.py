"""What the host answers under each value of `inbound` but the default, which other files have.

    internet ── host0 (witness, frames as if from strangers and neighbours) ── eth0 host

That the witness sees every one of these with protection off is shown in test_leaks_host.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs, Place
from tests.lab.leak_bench import Bench, chosen
from tests.lab.leak_trial import Trial
from tests.report import Faults

FROM_WIRE = chosen(lambda v: v.place is Place.WIRE and not v.prepared)
NEIGHBOURS = chosen(lambda v: v.needs is Needs.SILENCE)
# never answered, whatever the configuration says
NEVER = [
    name
    for name in FROM_WIRE
    if name.startswith(("in.localnet", "in.weak", "in.hop", "in.foreign", "primed"))
    or name.endswith(("-port", "-port4", "-port6", "-ephemeral", "-group", "-query", "dns"))
    or name in {"in.lan-llmnr", "in.lan-netbios", "in.lan-ssdp", "in.lan-mdns6", "in.fragment"}
    or name in {"in.open-udp4", "in.open-udp6"}  # else what is sent to a stranger is an answer
]


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    link: Trial
    tightened: Trial
    nobody: Trial
    everybody: Trial


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = Bench(lab, tmp_path_factory.mktemp("inbound"))
    try:
        bench.onionward("up")
        link = bench.try_control(NEIGHBOURS, "link")
        bench.configure('[host]\ninbound = "none"\n')
        bench.onionward("up")
        tightened = bench.try_vectors(NEIGHBOURS, "tightened")
        nobody = bench.try_vectors(FROM_WIRE, "nobody")
        bench.configure('[host]\ninbound = "all"\n')
        bench.onionward("up")
        everybody = bench.try_control(FROM_WIRE, "everybody")
        yield Trials(link, tightened, nobody, everybody)
    finally:
        bench.end()


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_none_answers_nobody_whom_link_answers(trials: Trials, name: str, faults: Faults) -> None:
    if name != "in.lan-closed-tcp4":  # its reset is no answer of a connection: refused
        assert trials.link.seen(name), "the default answers neighbours"
    trials.nobody.assert_silent(name, faults, "answers to strangers")


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_tightening_ends_exchanges_that_were_admitted(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.tightened.assert_silent(name, faults, "answers to strangers")


def test_none_is_silent(trials: Trials, faults: Faults) -> None:
    trials.nobody.assert_nothing_escaped(faults, "answers to strangers")
    assert [w for w in trials.nobody.outcomes.values() if w.startswith("broken")] == []


@pytest.mark.parametrize("name", NEVER)
def test_all_does_not_answer_this(trials: Trials, name: str, faults: Faults) -> None:
    trials.everybody.assert_silent(name, faults, "answers to strangers")


def test_all_answers_strangers_at_open_services(trials: Trials) -> None:
    assert trials.everybody.seen("in.open-tcp4")
    assert trials.everybody.seen("in.open-tcp6")
