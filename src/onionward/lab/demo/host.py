"""One machine, all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.table import Table

from onionward.lab.demo import tables
from onionward.lab.demo.stage import Asker, Stage
from onionward.lab.topology import HOST

# One of each kind of way out; the tests try all of the catalogue.
VECTORS = (
    "udp.quic4",
    "udp.ntp6",
    "dns.udp4",
    "dns.udp6",
    "ping.any4",
    "ping.any6",
    "bound.tcp4",
    "raw.gre4",
    "frame.udp4",
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a machine did, and what was seen of it.

    Attributes:
        pages: the addresses that servers saw, or "", by title.
        name: what a name was resolved to, or "".
        leaks: packets that the witness saw of each vector.
        queries: name queries in clear that it saw.
        escaped: packets that a routed machine must not send.

    """

    pages: Mapping[str, str]
    name: str
    leaks: Mapping[str, int]
    queries: int
    escaped: int


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    stage = replace(stage, machine=HOST.name)
    asker = Asker("this machine", HOST.name, (stage.lab.host4, stage.lab.host6))
    stage.heading("Protection off:", " the machine fetches pages, and tries to leak")
    off = _observe(stage, asker, "off")
    with stage.routed():
        stage.heading("Protection on:", " the same again")
        on = _observe(stage, asker, "on")
    stage.console.print()
    stage.console.print(_table(stage, asker, off, on))
    words = "tcpdump on the far side of the wire, packets in clear with protection on:"
    return tables.verdict(stage.console, problems(stage, asker, off, on), words, on.escaped)


def problems(stage: Stage, asker: Asker, off: Observation, on: Observation) -> list[str]:
    """What is not as it must be, but for packets in clear."""
    found = tables.unseen(off.leaks)
    for title, seen in on.pages.items():
        if not seen:
            found.append(f"{title}: no answer through Tor")
        elif stage.fate(asker, seen) != "Tor":
            found.append(f"{title}: the server saw {seen}")
    if not on.name:
        found.append("no name was resolved through Tor")
    return found


def _observe(stage: Stage, asker: Asker, label: str) -> Observation:
    with stage.watch(label) as capture:
        pages = stage.visit(asker, stage.pages)
        argv = ["dig", "+short", "+time=10", "www.example.test", "A"]
        name = stage.run(asker.machine, argv).strip()
        stage.attempt(asker, VECTORS)
    return Observation(
        pages,
        name,
        stage.seen_of(capture, VECTORS),
        capture.count("port 53"),
        capture.count(stage.in_clear()),
    )


def _table(stage: Stage, asker: Asker, off: Observation, on: Observation) -> Table:
    made = tables.table(
        "One machine, without and with onionward", "what it did", "protection off", "protection on"
    )
    for title in off.pages:
        words = title.replace("page", "web page")
        cells = (_seen(stage, asker, of.pages[title]) for of in (off, on))
        made.add_row(f"{words}: server saw", *cells)
    made.add_row("a name was resolved to", off.name or "no answer", on.name or "no answer")
    made.add_section()
    for vector, title in tables.try_titles(VECTORS).items():
        made.add_row(title, *(tables.packets(of.leaks[vector]) for of in (off, on)))
    made.add_section()
    made.add_row("name queries on the wire", *(tables.packets(of.queries) for of in (off, on)))
    escaped = (tables.packets(of.escaped) for of in (off, on))
    made.add_row("[bold]all packets in clear on the wire[/]", *escaped)
    return made


def _seen(stage: Stage, asker: Asker, address: str) -> str:
    match stage.fate(asker, address):
        case "nobody":
            return "no answer"
        case "Tor" if address in stage.lab.exits:
            return f"[green]{address} (a Tor exit)[/]"
        case "Tor":
            return f"[green]{address} (its own tor)[/]"
        case fate:
            return f"[red]{address} ({'this machine' if fate == 'itself' else fate})[/]"
