"""Tables and verdicts that the demonstrations have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from onionward.lab.demo.stage import Asker, Fate, Stage, Visits
from onionward.leaks.vectors import CATALOGUE

Expected = Callable[[Asker, str], Fate]
"""Whom a server must have seen, by asker and page."""


CIRCUITS = "circuits: the numbers that tor gives them; one in two columns would be shared"


def packets(count: int, *, harmless: bool = False) -> str:
    """A number of packets in a cell."""
    if not count:
        return "[green]0[/]"
    return f"{count} seen" if harmless else f"[red]{count} seen[/]"


def seen(stage: Stage, asker: Asker, address: str, *, harmless: bool = False) -> str:
    """What a server saw, in a cell."""
    match stage.fate(asker, address):
        case "nobody":
            return "no answer"
        case "itself":
            return "itself" if harmless else "[red]itself[/]"
        case "Tor":
            return f"[green]Tor {'(onion)' if address == '127.0.0.1' else address}[/]"
        case _:
            return f"[red]{address}[/]"


def numbers(circuits: Iterable[str]) -> str:
    """Circuits in a cell."""
    return ", ".join(sorted(circuits, key=int))


def table(title: str, *columns: str) -> Table:
    """An empty one."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column)
    return made


def add_section(made: Table, heading: str, rows: Mapping[str, Iterable[str]]) -> None:
    """Add rows below a line of their own."""
    made.add_section()
    made.add_row(f"[bold]{heading}[/]")
    for title, cells in rows.items():
        made.add_row(title, *cells)


def add_visits(
    made: Table,
    stage: Stage,
    heading: str,
    askers: Sequence[Asker],
    visits: Visits,
    *,
    harmless: bool = False,
) -> None:
    """Add what servers saw: a row for each page, a column for each asker."""
    rows = {
        title: [
            seen(stage, asker, visits[asker.name][title], harmless=harmless) for asker in askers
        ]
        for title in visits[askers[0].name]
    }
    add_section(made, heading, rows)


def try_titles(vectors: Iterable[str]) -> dict[str, str]:
    """Vectors in words, by name."""
    return {name: f"tries: {CATALOGUE[name].title}" for name in vectors}


def unseen(leaks: Mapping[str, int]) -> list[str]:
    """Problems: what the witness should have seen with protection off."""
    return [
        f"the witness did not see {vector} with protection off"
        for vector, count in leaks.items()
        if not count
    ]


def strayed(
    stage: Stage, when: str, askers: Iterable[Asker], visits: Visits, expected: Expected
) -> list[str]:
    """Problems: who was not seen as it must be."""
    return [
        f"{when}: {asker.name}, {title}: the server saw {fate}, not {wanted}"
        for asker in askers
        for title, address in visits[asker.name].items()
        if (fate := stage.fate(asker, address)) != (wanted := expected(asker, title))
    ]


def verdict(console: Console, problems: Iterable[str], words: str, escaped: int) -> int:
    """Say what is wrong and how many packets escaped; returns the exit status."""
    found = list(problems)
    for problem in found:
        console.print(f"[red]problem:[/] {problem}")
    console.print(words)
    console.print(f"[bold]{escaped}[/]")
    return 1 if found or escaped else 0
