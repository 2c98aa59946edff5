"""The catalogue: every way out that is known, in one order, under stable names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from onionward.leaks.model import FIRST_NUMBER, Vector
from onionward.leaks.themes import (
    accounts,
    device,
    flows,
    foreign,
    forward,
    identity,
    inbound,
    link,
    names,
    onion_addresses,
    onion_names,
    plain,
    raw,
    stacked,
)


def catalogue(vectors: Iterable[Vector]) -> Mapping[str, Vector]:
    """Vectors by name.

    Raises:
        ValueError: two vectors share a name.

    """
    found: dict[str, Vector] = {}
    for vector in vectors:
        if found.setdefault(vector.id, vector) is not vector:
            raise ValueError(f"two vectors are called {vector.id}")
    return MappingProxyType(found)


CATALOGUE: Mapping[str, Vector] = catalogue(
    (
        *plain.VECTORS,
        *names.VECTORS,
        *device.VECTORS,
        *raw.VECTORS,
        *link.VECTORS,
        *stacked.VECTORS,
        *inbound.VECTORS,
        *forward.VECTORS,
        *identity.VECTORS,
        *foreign.VECTORS,
        *flows.VECTORS,
        *accounts.VECTORS,
        *onion_names.VECTORS,
        *onion_addresses.VECTORS,
    )
)

_NUMBERS = {name: FIRST_NUMBER + index for index, name in enumerate(CATALOGUE)}


def number_of(name: str) -> int:
    """The number by which a vector's packets are recognised."""
    return _NUMBERS[name]
