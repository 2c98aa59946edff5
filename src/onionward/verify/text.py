"""The report for a terminal: the summary first, then each theme."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onionward.printable import printable
from onionward.verify.report import Report, Result, Verdict, summary

_STYLES: dict[Verdict, str] = {
    "open": "bold red",
    "not proven": "yellow",
    "closed": "green",
    "not tried": "dim",
}


def show(report: Report, console: Console | None = None) -> None:
    """Print it."""
    console = console or Console(highlight=False)
    console.print(Text(summary(report), style=_STYLES[report.verdict]))
    for line in (*report.scopes, *report.notes):
        console.print(Text(printable(line)))
    for theme, results in groupby(report.results, key=lambda result: result.theme):
        found = list(results)
        console.print()
        if tried := [result for result in found if result.verdict != "not tried"]:
            console.print(_table(theme, tried))
        else:
            console.print(Text(theme, style="italic"))
        for words in _untried(found):
            console.print(Text(f"  {words}", style=_STYLES["not tried"]))


def _table(theme: str, results: Iterable[Result]) -> Table:
    table = Table(title=theme, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("way out", "by", "is"):
        table.add_column(column, overflow="fold")
    for result in _merged(results):
        table.add_row(
            Text(f"{result.title} ({result.id})"),
            Text(result.who),
            Text(_words(result), style=_STYLES[result.verdict]),
        )
    return table


def _merged(results: Iterable[Result]) -> Iterator[Result]:
    """Those of several accounts in one where the same is known of them."""
    from dataclasses import replace

    groups: dict[tuple[str, Verdict, str, int], list[Result]] = {}
    for result in results:
        key = (result.id, result.verdict, result.why, result.uplink.packets)
        groups.setdefault(key, []).append(result)
    for found in groups.values():
        yield replace(found[0], who=", ".join(result.who for result in found))


def _words(result: Result) -> str:
    if result.verdict == "open":
        packets = f"{result.uplink.packets} packet{'s' * (result.uplink.packets != 1)}"
        return f"OPEN: {packets} on {result.uplink.interface}: {result.uplink.words}"
    return f"{result.verdict}: {result.why}" if result.why else result.verdict


def _untried(results: Iterable[Result]) -> Iterator[str]:
    """What was not tried, by reason."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.verdict == "not tried" and result.id not in reasons.setdefault(result.why, []):
            reasons[result.why].append(result.id)
    for why, names in reasons.items():
        yield f"not tried, because {why}: {', '.join(names)}"
