"""The catalogue: every way out that is known, in one order, under stable names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
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


THEMES: Mapping[str, tuple[Vector, ...]] = MappingProxyType(
    {
        "ordinary sockets": plain.VECTORS,
        "names": names.VECTORS,
        "sockets that choose device, source or mark": device.VECTORS,
        "packets made by hand": raw.VECTORS,
        "frames, and what asks the link": link.VECTORS,
        "devices on the uplink, groups, copies": stacked.VECTORS,
        "from the wire": inbound.VECTORS,
        "containers, tunnels": forward.VECTORS,
        "tor's account": identity.VECTORS,
        "rules of others": foreign.VECTORS,
        "flows that outlive something": flows.VECTORS,
        "programs of an account": accounts.VECTORS,
        "names under .onion": onion_names.VECTORS,
        "addresses of .onion names": onion_addresses.VECTORS,
    }
)
"""The vectors under headings for people."""

CATALOGUE: Mapping[str, Vector] = catalogue(chain.from_iterable(THEMES.values()))

_PLACES = {name: index for index, name in enumerate(CATALOGUE)}


def number_of(name: str, first: int = FIRST_NUMBER) -> int:
    """The number by which a vector's packets are recognised; `first` is the lowest of all."""
    return first + _PLACES[name]
