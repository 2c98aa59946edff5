"""What came of vectors that were tried, and what `onionward` did meanwhile."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from onionward.leaks.model import Attempt, Place, Sight, Targets
from onionward.leaks.vectors import CATALOGUE, number_of
from onionward.leaks.wire import Capture, Exempt, Packet
from tests.report import Faults

_LOADS = re.compile(r"nft --file|ip6?tables-\w+-restore|ipset")
_TRACE = re.compile(r"^\[(\d+\.\d+)\] (.*)$")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the witnesses saw while vectors were tried, from a moment on."""

    captures: Mapping[Sight, Capture]
    aims: Mapping[Place, Targets]
    exempt: Exempt
    outcomes: Mapping[str, str]
    since: float = 0.0
    seconds: float = 0.0
    again: Trial | None = None  # of what was not seen, where it should have been

    @property
    def capture(self) -> Capture:
        """What was seen on the uplink."""
        return self.captures[Sight.UPLINK]

    def seen(self, name: str) -> tuple[Packet, ...]:
        """The packets of one vector."""
        vector = CATALOGUE[name]
        attempt = Attempt(self.aims[vector.place], number_of(name))
        found = self.captures[vector.sight].packets(vector.filter(attempt), since=self.since)
        if not found and self.again is not None and name in self.again.outcomes:
            return self.again.seen(name)
        return found

    def assert_silent(self, name: str, faults: Faults, fault_class: str) -> None:
        """A vector could be tried, and nothing of it was seen; recorded first."""
        packets, outcome = self.seen(name), self.outcomes[name]
        share = self.seconds / len(self.outcomes)
        faults.record(fault_class, clear=len(packets), seconds=share)
        assert not outcome.startswith("broken"), outcome
        assert packets == (), packets

    def assert_nothing_escaped(
        self, faults: Faults, fault_class: str, wanted: Callable[[Packet], bool] = lambda _: True
    ) -> None:
        """No packet was seen that a routed machine must not send; recorded first."""
        packets = [packet for packet in self.escaped() if wanted(packet)]
        faults.record(fault_class, tried=0, clear=len(packets))
        assert packets == [], packets

    def broken(self, names: Iterable[str]) -> dict[str, str]:
        """Attempts that prove nothing, and why."""
        told = {name: self.outcomes[name] for name in names}
        return {name: words for name, words in told.items() if words.startswith("broken")}

    def escaped(self) -> tuple[Packet, ...]:
        """Every packet that a routed machine must not send."""
        return self.capture.packets(self.exempt.escaped(), since=self.since)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What `onionward --verbose` was about to do, and when."""

    status: int
    words: str

    @property
    def changes(self) -> tuple[tuple[float, str], ...]:
        """Every change with its moment."""
        found = (_TRACE.match(line) for line in self.words.splitlines())
        return tuple((float(match[1]), match[2]) for match in found if match)

    def loads(self) -> tuple[tuple[float, float], ...]:
        """Loads of rules: announced at, and certainly done by (the next announcement).

        Where it takes several commands, one after the other, they are one load.
        """
        found: list[tuple[float, float]] = []
        changes = self.changes
        for index, (moment, words) in enumerate(changes[:-1]):
            if not _LOADS.match(words):
                continue
            begun = found.pop()[0] if found and found[-1][1] == moment else moment
            found.append((begun, changes[index + 1][0]))
        return tuple(found)

    def blocked_by(self) -> float:
        """When the first rules certainly were in force."""
        return self.loads()[0][1]
