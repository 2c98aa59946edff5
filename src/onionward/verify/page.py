"""The report as one page of HTML: nothing is fetched, nothing is run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from time import gmtime, strftime

from onionward.verify import timeline
from onionward.verify.report import VERDICTS, Report, Result, Sighting, Verdict, count, summary

_WORDS: dict[Verdict, str] = {
    "open": "seen leaving this machine in clear",
    "not proven": "tried, but what was seen or not seen means nothing; the reason is given",
    "closed": "tried and not seen, by a detector that was shown to see it",
    "not tried": "the reason is given",
}

_STYLE = """
:root { --ink: #1d2330; --dim: #596275; --line: #d5dae3; --open: #b3261e; --unsure: #8a5a00;
  --closed: #1b6b3a; --paper: #ffffff; --shade: #f4f6f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
.verdict { color: #fff; padding: 1rem 1.25rem; border-radius: .4rem; font-size: 1.15rem; }
.verdict.closed { background: var(--closed); } .verdict.open { background: var(--open); }
.verdict.not-proven { background: var(--unsure); }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; color: var(--dim); }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { background: var(--shade); }
td.by, td.is { white-space: nowrap; } td.is { font-weight: 600; }
td.open { color: var(--open); } td.closed { color: var(--closed); }
td.not-proven { color: var(--unsure); } td.not-tried { color: var(--dim); }
code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--shade); padding: .75rem 1rem; white-space: pre-wrap; }
.dim { color: var(--dim); } svg { width: 100%; height: auto; display: block; }
@media print { body { padding: 0; } tr { break-inside: avoid; } }
"""


def render(report: Report) -> str:
    """The page."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            # whatever slipped through would still not be run or fetched
            '<meta http-equiv="Content-Security-Policy"'
            " content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>onionward verify: {escape(report.machine)}</title>",
            f"<style>{_STYLE}</style></head><body>",
            *_head(report),
            *_picture(report),
            *_method(report),
            *_results(report),
            "</body></html>",
            "",
        )
    )


def _head(report: Report) -> Iterator[str]:
    when = strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(report.began))
    yield f"<h1>What leaves {escape(report.machine)} in clear</h1>"
    yield f'<p class="verdict {_class(report.verdict)}">{escape(summary(report))}</p>'
    yield "<table><caption>What is known of the ways out that were looked at</caption>"
    for verdict, number in count(report.results).items():
        yield (
            f'<tr><td class="is {_class(verdict)}">{verdict}</td><td>{number}</td>'
            f"<td>{_WORDS[verdict]}</td></tr>"
        )
    yield "</table><h2>The machine</h2><table>"
    watched = ", ".join(report.watched) or "none: nobody watched the wire"
    for name, value in (
        ("when", f"{when}, {report.seconds:g} s"),
        ("name", report.machine),
        ("kernel", report.kernel),
        ("onionward", report.onionward),
        ("watched by", "; ".join(report.tools)),
        ("interfaces watched", watched),
        ("probes would leave by", report.interface),
        ("state", report.state),
        ("routed", "\n".join(report.scopes) or "not for this account to know"),
    ):
        yield f"<tr><th>{name}</th><td>{_lines(value)}</td></tr>"
    yield "</table>"
    yield from (f'<p class="dim">{escape(note)}</p>' for note in report.notes)
    if report.policy:
        yield "<h2>The policy in force</h2>"
        yield f"<pre>{escape(chr(10).join(report.policy))}</pre>"


def _picture(report: Report) -> Iterator[str]:
    yield "<h2>What left the wire over time</h2>"
    yield timeline.draw(report)
    yield "<table><caption>Packets in the picture</caption>"
    for lane in timeline.LANES:
        packets = sum(marks.packets for marks in report.traffic if marks.kind == lane.kind)
        yield (
            f"<tr><th>{escape(lane.title)}</th><td>{packets}</td><td>{escape(lane.words)}</td></tr>"
        )
    yield "</table>"


def _method(report: Report) -> Iterator[str]:
    canaries = ", ".join(sorted(set(report.canaries.values())))
    yield "<h2>How it was tried</h2>"
    yield (
        "<p>Probes send what must not leave, to addresses that are nobody's "
        f"(<code>{escape(canaries)}</code>) and to the router of this link. Each bears a number, "
        f"from {report.first} on, by which its packets are known. They ran twice: first in a "
        "network of their own that leads nowhere (the control), where the detector had to see "
        "them, then on this machine, where it must not. What was not seen in the control "
        "is not called closed.</p>"
    )


def _results(report: Report) -> Iterator[str]:
    yield "<h2>Every way out</h2>"
    for theme, results in groupby(report.results, key=lambda result: result.theme):
        yield f"<h3>{escape(theme)}</h3>"
        yield "<table><tr><th>way out</th><th>by</th><th>is</th><th>control</th><th>wire</th>"
        yield "<th>the machine said, or why</th></tr>"
        yield from _rows(sorted(results, key=lambda result: VERDICTS.index(result.verdict)))
        yield "</table>"


def _rows(results: Iterable[Result]) -> Iterator[str]:
    for result in results:
        tried = result.verdict != "not tried"
        known = f'<br><code class="dim">{escape(result.filter)}</code>' if result.filter else ""
        words = "; ".join(part for part in (result.why, result.said) if part)
        yield (
            f"<tr><td>{escape(result.title)} <code>{escape(result.id)}</code>{known}</td>"
            f'<td class="by">{escape(result.who)}</td>'
            f'<td class="is {_class(result.verdict)}">{result.verdict}</td>'
            f"<td>{_sighting(result.control) if tried else ''}</td>"
            f"<td>{_sighting(result.uplink) if tried else ''}</td><td>{escape(words)}</td></tr>"
        )


def _sighting(sighting: Sighting) -> str:
    if not sighting.packets:
        return "nothing"
    packets = f"{sighting.packets} packet{'s' * (sighting.packets != 1)}"
    return f"{packets} <code>{escape(sighting.words)}</code>"


def _class(verdict: Verdict) -> str:
    return verdict.replace(" ", "-")


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.splitlines())
