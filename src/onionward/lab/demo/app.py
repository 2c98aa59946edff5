"""An application by itself, and with `onionward run`, on a machine that is off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.table import Table

from onionward.app.root.places import DEVICE
from onionward.lab.demo import tables, visit
from onionward.lab.demo.circuits import listening, shared
from onionward.lab.demo.stage import ONION, Asker, Fate, Stage
from onionward.lab.demo.user import Observation
from onionward.lab.targets import targets
from onionward.paths import OF_RUNS

VECTORS = ("udp.quic4", "udp.ntp6", "dns.tls4", "dns.udp4", "bound.tcp4", "bound.udp6")
_RUN = ("onionward", "run")
_WAYS: Mapping[str, tuple[str, ...]] = {
    "by itself": (),
    "onionward run": (*_RUN, "--"),
    "another run": (*_RUN, "--"),
}
_PLAIN = "by itself"


Observations = Mapping[str, Observation]
"""By way."""


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    stage.heading("An application by itself:", " it fetches pages, and tries to leak")
    seen = {_PLAIN: _observe(stage, ())}
    stage.heading("onionward run:", " two of them, each starts anew; the machine stays off")
    try:
        stage.run(stage.machine, [*_RUN, "true"])
        seen |= {name: _observe(stage, way) for name, way in _WAYS.items() if way}
    finally:
        stage.onionward("down")
    stage.console.print()
    stage.console.print(_servers(stage, seen))
    stage.console.print(_wire(seen))
    words = "tcpdump on the uplink, packets of the runs in clear:"
    escaped = sum(observation.in_clear for name, observation in seen.items() if name != _PLAIN)
    return tables.verdict(stage.console, problems(stage, seen), words, escaped)


def problems(stage: Stage, seen: Observations) -> list[str]:
    """What is not as it must be, but for packets in clear."""

    def expected(asker: Asker, title: str) -> Fate:
        if asker.name != _PLAIN:
            return "Tor"
        return "nobody" if title == ONION else "itself"

    visits = {name: observation.visits for name, observation in seen.items()}
    found = tables.unseen(seen[_PLAIN].leaks)
    found += tables.strayed(stage, "run", _askers(stage, seen), visits, expected)
    circuits = {name: one.circuits for name, one in seen.items() if name != _PLAIN}
    found += [f"{name} has no circuit" for name, used in circuits.items() if not used]
    found += [f"{one} and {other} share a circuit" for one, other in shared(circuits)]
    return found


def _askers(stage: Stage, seen: Observations) -> list[Asker]:
    return [replace(stage.account("root"), name=name) for name in seen]


def _observe(stage: Stage, way: Sequence[str]) -> Observation:
    aims = targets(stage.lab, stage.machine)
    probe = ["python", "-m", "onionward.leaks.probe"]
    if way:
        # it cannot become somebody else in there, and there is no other device
        aims, probe = replace(aims, device=DEVICE), [*probe, "--account", "root"]
    visitor = ["python", "-I", "-S", visit.__file__, "root", *stage.pages.values()]
    dig = ["dig", "+short", "+tries=1", "+time=5", f"@{stage.lab.dns6}", "www.example.test", "A"]
    used: frozenset[str] = frozenset()
    with stage.watch("app") as capture:
        tried = stage.run(stage.machine, [*way, *probe, aims.to_json(), *VECTORS])
        if way:
            with listening(stage.host, OF_RUNS) as observer:
                visited = stage.run(stage.machine, [*way, *visitor])
                used = frozenset().union(*observer.used().values())
        else:
            visited = stage.run(stage.machine, visitor)
        stage.run(stage.machine, [*way, *dig])
    told = [json.loads(line) for line in tried.splitlines()]
    return Observation(
        dict(zip(stage.pages, json.loads(visited), strict=True)),
        {one["id"]: one["outcome"] for one in told},
        stage.seen_of(capture, VECTORS),
        capture.count("port 53"),
        capture.count(stage.in_clear()),
        used,
    )


def _servers(stage: Stage, seen: Observations) -> Table:
    made = tables.table("What servers saw", "", *seen)
    visits = {name: observation.visits for name, observation in seen.items()}
    tables.add_visits(made, stage, "an application", _askers(stage, seen), visits)
    made.caption = tables.CIRCUITS
    made.add_row("circuits", *(tables.numbers(one.circuits) for one in seen.values()))
    return made


def _wire(seen: Observations) -> Table:
    made = tables.table("What left the machine", "", *seen)
    made.caption = "refused: nothing left, and the program was told so at once"

    def cell(observation: Observation, vector: str) -> str:
        count = observation.leaks[vector]
        if not count and observation.outcomes[vector].startswith("refused"):
            return "[green]refused[/]"
        return tables.packets(count)

    for vector, title in tables.try_titles(VECTORS).items():
        made.add_row(title, *(cell(one, vector) for one in seen.values()))
    made.add_section()
    for title, counts in (
        ("name queries, to any resolver", [one.queries for one in seen.values()]),
        ("[bold]all packets in clear[/]", [one.in_clear for one in seen.values()]),
    ):
        made.add_row(title, *map(tables.packets, counts))
    return made
