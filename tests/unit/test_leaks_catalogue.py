"""The catalogue holds together: names, numbers, families and filters."""

from __future__ import annotations

import re

import pytest

from onionward.leaks.model import FIRST_NUMBER, Account, Attempt, Place, Targets, Vector
from onionward.leaks.vectors import CATALOGUE, catalogue, number_of

TARGETS = Targets(
    web4="198.18.80.1",
    web6="2001:db8:80::1",
    dns4="198.18.53.1",
    dns6="2001:db8:53::1",
    stranger4="198.18.66.6",
    stranger6="2001:db8:66::6",
    host4="198.18.0.2",
    host6="2001:db8::2",
    neighbour4="198.18.0.3",
    neighbour6="2001:db8::3",
    gateway4="198.18.0.1",
    gateway6="2001:db8::1",
    router6="fe80::1",
    broadcast4="198.18.0.255",
    device="eth0",
    device_mac="02:00:00:00:00:02",
    far_device="host0",
    far_mac="02:00:00:00:00:01",
    relay=("198.18.2.1", 9001),
)
# what the table of ways out names for a machine that is routed as a whole
FAMILIES = {
    "P1", "P2", "P3", "C1", "V6", "U1", "D1", "D2", "D3", "B1", "S1", "K1", "K2", "K3", "L1",
    "L2", "L3", "F1", "T1", "T2", "X2", "X3", "X5", "A1", "A2",
}  # fmt: skip
VECTORS = list(CATALOGUE.values())


def test_every_family_is_there_and_no_other() -> None:
    assert {vector.family for vector in VECTORS} == FAMILIES


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_a_vector_is_well_formed(vector: Vector) -> None:
    assert re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", vector.id)
    assert vector.title
    assert len(vector.title) <= 90
    words = vector.filter(Attempt(TARGETS, number_of(vector.id)))
    assert "{" not in words
    assert vector.serve is None or vector.place is Place.WIRE
    assert vector.place is Place.HOST or vector.account is Account.USER


def test_titles_are_told_apart() -> None:
    titles = [vector.title for vector in VECTORS]
    assert sorted({t for t in titles if titles.count(t) > 1 or "the same" in t}) == []


def test_numbers_are_unique_and_below_the_ports_of_the_kernel() -> None:
    numbers = [number_of(name) for name in CATALOGUE]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= FIRST_NUMBER
    # ports that a probe derives from its number lie 20000 above it
    assert max(numbers) + 20000 < 60999
    assert max(numbers) < 32768


def test_two_vectors_of_one_name_are_refused() -> None:
    first = VECTORS[0]
    with pytest.raises(ValueError, match=re.escape(first.id)):
        catalogue([first, Vector(first.id, "U1", "another", "udp", first.probe)])


def test_targets_survive_the_command_line() -> None:
    assert Targets.from_json(TARGETS.to_json()) == TARGETS


def test_a_target_is_named_or_given() -> None:
    assert TARGETS.address("web4") == "198.18.80.1"
    assert TARGETS.address("router6") == "fe80::1%eth0"
    assert TARGETS.address("relay") == "198.18.2.1"
    assert TARGETS.address("ff02::fb") == "ff02::fb"
    with pytest.raises(TypeError):
        TARGETS.address("peer_port")


def test_an_attempt_is_recognisable_by_its_first_two_bytes() -> None:
    attempt = Attempt(TARGETS, 20123)
    assert int.from_bytes(attempt.payload[:2], "big") == 20123
    assert attempt.hardware == "02:0e:ad:00:4e:9b"
