"""Only names under .onion go to Tor, for everybody on the machine; the rest is as before."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from rich.table import Table

from onionward.errors import LabError
from onionward.lab.demo import tables
from onionward.lab.demo.stage import BY_NAME, ONION, Asker, Fate, Stage, Visits
from onionward.leaks.wire import Capture
from onionward.status_text import EXIT_STATUS

_CONFIG = "onion = true\n"
_NAMES = ("root", "alice", "carol")
_PAGES = ("page over IPv4", BY_NAME, ONION)
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What everybody did, and what was seen of it on the machine's uplink.

    Attributes:
        visits: what was fetched.
        foreign: what a resolver of somebody's own choice said to the onion service's name, or "".
        onion_queries: queries in clear for names under .onion.
        other_queries: queries in clear for other names.

    """

    visits: Visits
    foreign: str
    onion_queries: int
    other_queries: int


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    with stage.configured(_CONFIG):
        stage.heading("Protection off:", " three accounts fetch pages, one of an onion service")
        off = _observe(stage, "off")
        with stage.routed():
            stage.heading("Only .onion goes to Tor:", " the same again")
            on = _observe(stage, "on")
            kill_tor(stage)
            stage.heading("Tor was killed:", " the same again")
            dead = _observe(stage, "dead")
    stage.console.print()
    stage.console.print(_servers(stage, off, on, dead))
    stage.console.print(_wire(off, on, dead))
    words = "tcpdump on the uplink, queries for names under .onion with protection on:"
    escaped = on.onion_queries + dead.onion_queries
    return tables.verdict(stage.console, problems(stage, off, on, dead), words, escaped)


def problems(stage: Stage, off: Observation, on: Observation, dead: Observation) -> list[str]:
    """What is not as it must be, but for queries for names under .onion."""
    askers = [stage.account(name) for name in _NAMES]
    found: list[str] = []
    if not off.onion_queries:
        found.append("the witness did not see a query for an onion name with protection off")
    if not on.foreign:
        found.append("on: a resolver of one's own choice knows nothing of the onion name")

    def expected(onion: Fate) -> tables.Expected:
        def fate(_: Asker, title: str) -> Fate:
            return onion if title == ONION else "itself"

        return fate

    observed: tuple[tuple[str, Observation, Fate], ...] = (
        ("off", off, "nobody"),
        ("on", on, "Tor"),
        ("tor killed", dead, "nobody"),
    )
    for when, observation, onion in observed:
        found += tables.strayed(stage, when, askers, observation.visits, expected(onion))
        if not observation.other_queries:
            found.append(f"{when}: other names are not asked for as before")
    return found


def onion_queries(capture: Capture) -> int:
    """Name queries in clear that speak of .onion."""
    return sum(".onion" in packet.words.casefold() for packet in capture.packets("port 53"))


def kill_tor(stage: Stage) -> None:
    """End the machine's tor without a chance to say goodbye.

    Raises:
        LabError: there is none, or it does not end.

    """
    deadline = time.monotonic() + _END_SECONDS
    pid = _tor_pid(stage)
    if pid is None:
        raise LabError("there is no tor to be killed in the lab")
    stage.run(stage.machine, ["kill", "-KILL", str(pid)])
    while _tor_pid(stage) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"tor does not end: process {pid} of the lab's {stage.machine}")


def _tor_pid(stage: Stage) -> int | None:
    asked = ["onionward", "status", "--json"]
    report = json.loads(stage.run(stage.machine, asked, accept=(*EXIT_STATUS.values(),)))
    pid: int | None = report["tor_pid"]
    return pid


def _observe(stage: Stage, label: str) -> Observation:
    with stage.watch(label) as capture:
        visits = stage.at_once([stage.account(name) for name in _NAMES], (), _PAGES)
        foreign = stage.resolve(stage.lab.onion, stage.lab.dns6)
    queries, onions = capture.count("port 53"), onion_queries(capture)
    return Observation(visits, foreign, onions, queries - onions)


def _servers(stage: Stage, off: Observation, on: Observation, dead: Observation) -> Table:
    askers = [stage.account(name) for name in _NAMES]
    made = tables.table("What servers saw", "", *(asker.name for asker in askers))
    observed = (("off", off), ("on", on), ("on, tor killed", dead))
    for heading, observation in observed:
        words = f"protection {heading}"
        tables.add_visits(made, stage, words, askers, observation.visits, harmless=True)
    return made


def _wire(off: Observation, on: Observation, dead: Observation) -> Table:
    observed = (off, on, dead)
    made = tables.table("Names on the wire", "", "off", "on", "on, tor killed")
    made.add_row(
        "[bold]queries for names under .onion[/]",
        *(tables.packets(of.onion_queries) for of in observed),
    )
    others = (tables.packets(of.other_queries, harmless=True) for of in observed)
    made.add_row("queries for other names", *others)
    foreign = (of.foreign or "nothing" for of in observed)
    made.add_row("address that one got from a resolver elsewhere", *foreign)
    return made
