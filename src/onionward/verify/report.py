"""The words of a report, and its JSON (docs/json.md)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

FORMAT = 1

Verdict = Literal["closed", "open", "not proven", "not tried"]
"""What is known of a vector:

closed       it was tried, its detector is shown to work, and nothing of it was seen
open         it was seen leaving
not proven   it was tried, but what was (not) seen means nothing, for a reason that is given
not tried    for a reason that is given
"""

VERDICTS: tuple[Verdict, ...] = ("open", "not proven", "closed", "not tried")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a detector saw of one vector in one place.

    Attributes:
        packets: how many.
        time: of the first, in seconds since the epoch, or None.
        words: the first, as tcpdump tells it, or "".
        interface: where, or "".

    """

    packets: int
    time: float | None = None
    words: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one vector, tried or not by somebody.

    Attributes:
        id: its name in the catalogue.
        theme: its heading.
        title: for people.
        who: by whom.
        verdict: what is known.
        why: why it is not proven or not tried; "" otherwise.
        filter: by what its packets are known (pcap-filter(7)); "" when it was not tried.
        said: what came of the attempt on the machine itself: "sent", "refused: …", "broken: …", "".
        control: what the detector saw in the scratch network.
        uplink: what it saw on the wire.

    """

    id: str
    theme: str
    title: str
    who: str
    verdict: Verdict
    why: str = ""
    filter: str = ""
    said: str = ""
    control: Sighting = Sighting(0)
    uplink: Sighting = Sighting(0)


@dataclass(frozen=True, slots=True)
class Marks:
    """Packets over time: moments in seconds since the epoch, each with how many.

    Attributes:
        kind: "tor", "link" (ARP, neighbour discovery, DHCP, bypassed networks), "canary", "control"
            or "other", which no rule of this report accounts for.
        counts: for each tenth of a second that had any.

    """

    kind: str
    counts: tuple[tuple[float, int], ...]

    @property
    def packets(self) -> int:
        """All of them."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Attributes:
        format: version of this structure.
        onionward: version of the program.
        machine: its name.
        kernel: its version.
        state: "routed", "blocked" or "open"; "unknown" to whom may not read it.
        scopes: who is routed, in words.
        policy: in words, a line each.
        interface: the one that probes would leave by.
        watched: the interfaces whose wire was watched.
        began: seconds since the epoch.
        seconds: how long it took.
        canaries: addresses of the probes by what they stand for.
        first: the lowest number that marks a packet, see docs/json.md.
        tools: versions of what watched.
        control: when the control ran, from and to, in seconds since the epoch.
        trial: when the trial ran.
        results: of each vector and account.
        traffic: what left meanwhile.
        notes: what whoever reads this should know, in words.

    """

    format: int
    onionward: str
    machine: str
    kernel: str
    state: str
    scopes: tuple[str, ...]
    policy: tuple[str, ...]
    interface: str
    watched: tuple[str, ...]
    began: float
    seconds: float
    canaries: dict[str, str]
    first: int
    tools: tuple[str, ...]
    control: tuple[float, float]
    trial: tuple[float, float]
    results: tuple[Result, ...]
    traffic: tuple[Marks, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all that was tried."""
        counts = count(self.results)
        if counts["open"]:
            return "open"
        return "closed" if counts["closed"] and not counts["not proven"] else "not proven"

    @property
    def exit_status(self) -> int:
        """0 when everything that was tried is closed."""
        return 0 if self.verdict == "closed" else 1


def count(results: Iterable[Result]) -> dict[Verdict, int]:
    """How many of each verdict."""
    found = Counter(result.verdict for result in results)
    return {verdict: found[verdict] for verdict in VERDICTS}


def summary(report: Report) -> str:
    """The report in one line."""
    counts = count(report.results)
    tried = counts["open"] + counts["closed"] + counts["not proven"]
    rest = f"{tried} ways out tried, {counts['not tried']} not tried"
    if report.verdict == "open":
        return f"OPEN: {counts['open']} left this machine in clear; {rest}"
    if report.verdict == "closed":
        return f"closed: nothing left this machine in clear; {rest}"
    return f"NOT PROVEN: {counts['not proven']} could not be judged, none was seen; {rest}"


def to_json(report: Report) -> str:
    """The report for programs."""
    document: dict[str, Any] = asdict(report)
    document["verdict"] = report.verdict
    document["counts"] = count(report.results)
    return json.dumps(document, indent=2)
