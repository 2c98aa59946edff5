"""Three accounts of one machine: two are routed, each for itself, and one is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from onionward.lab.demo import tables
from onionward.lab.demo.circuits import Observer, shared
from onionward.lab.demo.stage import ONION, Asker, Fate, Stage, Visits

VECTORS = (
    "udp.quic4",
    "udp.ntp6",
    "dns.tls4",
    "ping.any4",
    "ping.any6",
    "bound.tcp4",
)
ROUTED = ("alice", "bob")
_NAMES = (*ROUTED, "carol")
_CONFIG = "".join(f'[[user]]\nname = "{name}"\n' for name in ROUTED)


@dataclass(frozen=True, slots=True)
class Observation:
    """What an account or application did, and what was seen of it on the machine's uplink.

    Attributes:
        visits: the addresses that servers saw, or "", by page.
        outcomes: what each vector met on the machine itself.
        leaks: packets of each vector.
        queries: name queries.
        in_clear: packets that it must not cause while it is routed.
        circuits: numbers of those that tor used.

    """

    visits: Mapping[str, str]
    outcomes: Mapping[str, str]
    leaks: Mapping[str, int]
    queries: int
    in_clear: int
    circuits: frozenset[str]


Observations = Mapping[str, Observation]
"""By account."""


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    with stage.configured(_CONFIG):
        stage.heading("Protection off:", " three accounts fetch pages, and try to leak")
        off = {name: _observe(stage, name, None) for name in _NAMES}
        with stage.routed(), stage.circuits() as observer:
            stage.heading("Protection on for alice and bob:", " the same again")
            on = {name: _observe(stage, name, observer) for name in _NAMES}
    stage.console.print()
    stage.console.print(_servers(stage, off, on))
    stage.console.print(_wire(off, on))
    words = "tcpdump on the uplink, packets of alice and bob in clear with protection on:"
    escaped = sum(on[name].in_clear for name in ROUTED)
    return tables.verdict(stage.console, problems(stage, off, on), words, escaped)


def problems(stage: Stage, off: Observations, on: Observations) -> list[str]:
    """What is not as it must be, but for packets in clear."""
    askers = [stage.account(name) for name in _NAMES]

    def expected_off(_: Asker, title: str) -> Fate:
        return "nobody" if title == ONION else "itself"

    def expected_on(asker: Asker, title: str) -> Fate:
        return "Tor" if asker.account in ROUTED else expected_off(asker, title)

    found = []
    for observation in (*off.values(), on["carol"]):
        found += tables.unseen(observation.leaks)
    found += tables.strayed(stage, "off", askers, _visits(off), expected_off)
    found += tables.strayed(stage, "on", askers, _visits(on), expected_on)
    circuits = {name: on[name].circuits for name in ROUTED}
    found += [f"{name} has no circuit" for name in ROUTED if not circuits[name]]
    found += [f"{one} and {other} share a circuit" for one, other in shared(circuits)]
    if on["carol"].circuits:
        found.append("carol goes through Tor")
    return found


def _visits(observations: Observations) -> Visits:
    return {name: observation.visits for name, observation in observations.items()}


def _observe(stage: Stage, name: str, observer: Observer | None) -> Observation:
    asker = stage.account(name)
    with stage.watch(name) as capture:
        outcomes = stage.attempt(asker, VECTORS)
        visits = stage.visit(asker, stage.pages)
        stage.resolve("www.example.test", stage.lab.dns6, account=name)
    used = observer.used() if observer else {}
    return Observation(
        visits,
        outcomes,
        stage.seen_of(capture, VECTORS),
        capture.count("port 53"),
        capture.count(stage.in_clear()),
        frozenset().union(*used.values()),
    )


def _servers(stage: Stage, off: Observations, on: Observations) -> Table:
    askers = [stage.account(name) for name in _NAMES]
    made = tables.table("What servers saw", "", *_NAMES)
    tables.add_visits(made, stage, "protection off", askers, _visits(off))
    tables.add_visits(made, stage, "protection on", askers, _visits(on))
    made.caption = tables.CIRCUITS
    made.add_row("circuits", *(tables.numbers(on[name].circuits) for name in _NAMES))
    return made


def _wire(off: Observations, on: Observations) -> Table:
    columns = ("off: all three", *(f"on: {name}" for name in _NAMES))
    made = tables.table("What left the machine", "", *columns)
    made.caption = "refused: nothing left, and the program was told so at once"

    def add(title: str, before: int, after: Mapping[str, str]) -> None:
        made.add_row(title, tables.packets(before), *after.values())

    def cell(name: str, count: int, outcome: str = "") -> str:
        if not count and outcome.startswith("refused"):
            return "[green]refused[/]"
        return tables.packets(count, harmless=name not in ROUTED)

    for vector, title in tables.try_titles(VECTORS).items():
        before = sum(observation.leaks[vector] for observation in off.values())
        after = {n: cell(n, o.leaks[vector], o.outcomes[vector]) for n, o in on.items()}
        add(title, before, after)
    made.add_section()
    queries = {name: cell(name, observation.queries) for name, observation in on.items()}
    add(
        "name queries, to any resolver",
        sum(observation.queries for observation in off.values()),
        queries,
    )
    in_clear = {name: cell(name, observation.in_clear) for name, observation in on.items()}
    title = "[bold]all packets in clear[/]"
    add(title, sum(observation.in_clear for observation in off.values()), in_clear)
    return made
