"""A peer primes the host's memory of connections, then a program sends to that peer.

    internet ── host0 (witness, frames as if from peers) ── eth0 host (programs, bound ports)

With protection off the witness sees what the programs send. With protection on the peers' segments
are admitted, which conntrack tells, and still nothing leaves: the program is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Place
from onionward.leaks.themes.primed import PEERS
from onionward.leaks.vectors import number_of
from onionward.render.nftables import MARK_INBOUND
from tests.lab.leak_bench import Bench
from tests.lab.leak_trial import Trial
from tests.report import Faults

CONNECTING = [name for name in PEERS if name.startswith("primed.tcp")]
# by value of `inbound`: whose SYN is admitted, the ports of name resolution aside
ADMITTED = {
    "link": [n for n in CONNECTING if "stranger" not in n and "dot" not in n],
    "all": [n for n in CONNECTING if "dot" not in n],
}


@dataclass(frozen=True)
class Primed:
    """One trial of all, what the programs were told, and what conntrack remembers after it."""

    trial: Trial
    told: dict[str, str]
    entries: str

    def remembers(self, name: str) -> bool:
        """Whether an inbound exchange of the peer of that vector is remembered."""
        peer, targets = PEERS[name], self.trial.aims[Place.WIRE]
        original = (
            f"src={targets.address(peer.who)} dst={targets.address(peer.whom)} "
            f"sport={peer.port} dport={number_of(name)} "
        )
        found = [line for line in self.entries.splitlines() if original in line]
        return any(re.search(rf"mark={MARK_INBOUND}\b", line) for line in found)


def attempt_all(bench: Bench, label: str) -> Primed:
    # an earlier trial of the same ports would be remembered
    bench.run("conntrack", "-F")
    trial = bench.try_vectors(PEERS, label)
    entries = "".join(bench.run("conntrack", "-L", "-f", family) for family in ("ipv4", "ipv6"))
    return Primed(trial, dict(bench.served), entries)


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Primed]]:
    bench = Bench(lab, tmp_path_factory.mktemp("primed"))
    found = {}
    try:
        found["off"] = attempt_all(bench, "off")
        for inbound in ADMITTED:
            bench.configure(f'[host]\ninbound = "{inbound}"\n')
            bench.onionward("up")
            found[inbound] = attempt_all(bench, inbound)
        yield found
    finally:
        bench.end()


@pytest.mark.parametrize("name", PEERS)
def test_the_witness_sees_it_with_protection_off(trials: dict[str, Primed], name: str) -> None:
    assert trials["off"].trial.seen(name), trials["off"].told[name]


@pytest.mark.parametrize(
    ("inbound", "name"), [(inbound, n) for inbound, names in ADMITTED.items() for n in names]
)
def test_the_peer_has_primed_conntrack(trials: dict[str, Primed], inbound: str, name: str) -> None:
    assert trials[inbound].remembers(name), trials[inbound].entries


@pytest.mark.parametrize(
    ("inbound", "name"), [(inbound, n) for inbound, names in ADMITTED.items() for n in names]
)
def test_the_program_is_refused_at_once(trials: dict[str, Primed], inbound: str, name: str) -> None:
    assert trials[inbound].told[name].startswith("refused"), trials[inbound].told[name]


@pytest.mark.parametrize("inbound", ADMITTED)
@pytest.mark.parametrize("name", PEERS)
def test_nothing_leaves(trials: dict[str, Primed], inbound: str, name: str, faults: Faults) -> None:
    told = trials[inbound].told[name]
    assert not told.startswith("broken"), told
    trials[inbound].trial.assert_silent(name, faults, "ways out that a peer has primed")
