"""Which circuits tor used for whom, from the events of its control port (control-spec, STREAM)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations

from onionward.lab.control import Control
from onionward.lab.host import Host
from onionward.paths import PATHS, Paths

Circuits = Mapping[str, frozenset[str]]
"""Numbers of circuits, by the address of who used them."""


class Observer:
    """Listens to tor; `listening` makes one."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def used(self) -> Circuits:
        """The circuits of all that was asked for since the last call."""
        self._control.ask("GETINFO version")  # what came before the answer has been heard then
        events = self._control.heard
        self._control.heard = []
        return by_source(events)


@contextmanager
def listening(host: Host, paths: Paths = PATHS) -> Iterator[Observer]:
    """Listen to the tor that onionward runs on a host of the lab.

    Args:
        host: of the lab.
        paths: of its tor; another one's, for one that is there for applications.

    Raises:
        LabError: it does not answer.

    """
    outside = host.root
    socket, cookie = (
        outside / str(path).lstrip("/") for path in (paths.control_socket, paths.control_cookie)
    )
    with Control(socket, cookie=cookie.read_bytes()) as control:
        control.ask("SETEVENTS STREAM")
        yield Observer(control)


def by_source(events: Iterable[str]) -> Circuits:
    """Circuits by the address that asked for them, from the words of STREAM events."""
    sources: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for words in (event.split() for event in events):
        if len(words) < 5 or words[0] != "STREAM":
            continue
        number, status, circuit = words[1:4]
        # only the first event of a stream tells who it is for
        source = next((w for w in words if w.startswith("SOURCE_ADDR=")), "")
        if source:
            sources[number] = source.removeprefix("SOURCE_ADDR=").rpartition(":")[0].strip("[]")
        if status in ("SENTCONNECT", "SENTRESOLVE") and number in sources:
            found.setdefault(sources[number], set()).add(circuit)
    return {source: frozenset(circuits) for source, circuits in found.items()}


def merged(circuits: Circuits, addresses: Iterable[str]) -> frozenset[str]:
    """The circuits of somebody who has several addresses."""
    return frozenset().union(*(circuits.get(address, frozenset()) for address in addresses))


def shared(circuits: Circuits) -> tuple[tuple[str, str], ...]:
    """Pairs that have a circuit in common."""
    return tuple(
        (one, other) for one, other in combinations(circuits, 2) if circuits[one] & circuits[other]
    )
