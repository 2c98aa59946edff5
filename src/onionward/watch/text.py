"""A view and a size in, styled lines out; words say what colours say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.text import Text

from onionward.watch.ledger import Circuit, News, Stream
from onionward.watch.view import Chooser, ScopeRow, View, moment

LEAST = (40, 6)
"""Columns and lines below which there is nothing to see."""

_STATES = {
    "routed": ("ROUTED", "bold green"),
    "blocked": ("BLOCKED", "bold yellow"),
    "open": ("OPEN: NOT PROTECTED", "bold red"),
    "off": ("OFF: traffic leaves in clear", "bold red"),
    "unknown": ("only root may ask for the state", "bold"),
}
_LEVELS = {"warn": "yellow", "err": "bold red", "guard": "cyan"}
_KEYS = (
    ("n", "new identity"),
    ("p", "pause"),
    ("r", "resume"),
    ("?", "help"),
    ("q", "quit"),
)
_HELP = (
    "n   a new identity: fresh circuits for all; what is open stays on its own",
    "p   pause an account: nothing of it gets through, and what is open is cut",
    "r   resume a paused account",
    "q   quit; so does Ctrl-C",
    "?   this help, and back",
    "",
    "The first line has what tor moves in a second, relays' cells and all; `down` and",
    "`up` are bytes of connections. `stopped` counts packets since rules were loaded.",
    "Whose a connection is, is known if it has begun while you look. Where it goes is",
    "shown here and kept nowhere.",
)


class _Section(NamedTuple):
    title: Text
    rows: tuple[Text, ...]


def render(view: View, width: int, height: int) -> tuple[Text, ...]:
    """Exactly `height` lines of at most `width` cells."""
    if width < LEAST[0] or height < LEAST[1]:
        words = [f"{_STATES[view.state][0]}", f"{LEAST[0]}x{LEAST[1]} is too small"]
        return _fitted([Text(word) for word in words], width, height)
    above = [_head(view), *(Text(f"! {p}", "yellow") for p in view.problems[:2])]
    below = [_foot(view)]
    left = height - len(above) - len(below)
    if view.typed.help:
        body = [Text(line) for line in _HELP]
        body += [Text(f"{key}   not for you: {why}", "dim") for key, why in view.typed.refused]
    elif view.typed.chooser is not None:
        body = _chooser(view.typed.chooser, left)
    else:
        body = _body(view, width, left)
    filled = [*body[:left], *[Text()] * (left - len(body))]
    return _fitted([*above, *filled, *below], width, height)


def _fitted(lines: Sequence[Text], width: int, height: int) -> tuple[Text, ...]:
    found = [*lines[:height], *[Text()] * (height - len(lines))]
    for line in found:
        line.truncate(width, overflow="ellipsis")
    return tuple(found)


def _head(view: View) -> Text:
    words, style = _STATES[view.state]
    since = f" since {moment(view.since)}" if view.since else ""
    about = [view.tor, *([f"guard {view.guard}"] if view.guard else [])]
    if any(view.total):
        about.append(f"↓ {_rate(view.total.down)} ↑ {_rate(view.total.up)}")
    return Text.assemble((f"{words}{since}", style), "  ", " · ".join(about))


def _foot(view: View) -> Text:
    if view.typed.message:
        return Text(view.typed.message, "bold")
    refused = {key for key, _ in view.typed.refused}
    parts: list[Text] = []
    for key, words in _KEYS:
        parts.append(Text(f"{key} {words}", "dim" if key in refused else "reverse"))
    return Text("  ").join(parts)


def _chooser(chooser: Chooser, height: int) -> list[Text]:
    room = max(1, height - 2)
    first = max(0, min(chooser.marked - room // 2, len(chooser.names) - room))
    lines = [Text(f"{chooser.title}: arrows, Enter; Esc goes back", "bold"), Text()]
    for place, name in enumerate(chooser.names[first : first + room], first):
        is_marked = place == chooser.marked
        lines.append(Text(f"{'>' if is_marked else ' '} {name}", "reverse" if is_marked else ""))
    return lines


def _body(view: View, width: int, height: int) -> list[Text]:
    used = sum(circuit.owner is not None for circuit in view.circuits)
    sections = (
        _Section(_scope_title(width), tuple(_scope(row, width) for row in view.scopes)),
        _Section(
            _title("CIRCUITS", f"{used} used, {len(view.circuits) - used} spare"),
            tuple(_circuit(circuit) for circuit in view.circuits),
        ),
        _Section(
            _title("TRIED", _count(len(view.attempts))),
            _latest(Text(f"  {words}") for words in view.attempts),
        ),
        _Section(
            _title("STREAMS", _count(len(view.streams))),
            tuple(_stream(stream) for stream in view.streams),
        ),
        _Section(_title("EVENTS", _count(len(view.news))), _latest(_event(n) for n in view.news)),
    )
    lines: list[Text] = []
    for section, room in zip(sections, _rooms(sections, height), strict=True):
        if room < 0:
            continue
        lines.append(section.title)
        shown = section.rows[:room]
        if len(section.rows) > room > 1:
            rest = len(section.rows) - room + 1
            shown = (*section.rows[: room - 1], Text(f"  … {rest} more", "dim"))
        lines += shown
    return lines


def _latest(lines: Iterable[Text]) -> tuple[Text, ...]:
    """The latest first, where there is room for few."""
    return tuple(reversed([*lines]))


def _rooms(sections: Sequence[_Section], height: int) -> list[int]:
    """Rows for each section; -1 for one without even a title."""
    rooms = [-1] * len(sections)
    left = height
    for place in range(len(sections)):
        if left > 0:
            rooms[place] = 0
            left -= 1
    # a row for each in turn, as long as there is room, and more for whoever has more to say
    while left > 0:
        wanting = [
            place for place, section in enumerate(sections) if 0 <= rooms[place] < len(section.rows)
        ]
        if not wanting:
            break
        for place in wanting[:left]:
            rooms[place] += 1
        left -= len(wanting[:left])
    return rooms


def _title(name: str, words: str) -> Text:
    return Text.assemble((name, "bold"), f"  {words}")


def _count(number: int) -> str:
    return str(number) if number else "none"


_COLUMNS = (
    ("down", 11),
    ("up", 11),
    ("streams", 9),
    ("stopped", 10),
    ("now", 8),
)


def _in_columns(first: str, cells: Sequence[str], width: int) -> str:
    rest = "".join(cell.rjust(room) for cell, (_, room) in zip(cells, _COLUMNS, strict=True))
    room = max(8, min(60, width - len(rest)))
    return first[: room - 1].ljust(room) + rest


def _scope_title(width: int) -> Text:
    return Text(_in_columns("SCOPES", [name for name, _ in _COLUMNS], width), "bold")


def _scope(row: ScopeRow, width: int) -> Text:
    name = f"  {row.name}" + (f" ({row.note})" if row.note else "")
    cells = (
        _rate(row.moved.down),
        _rate(row.moved.up),
        str(row.streams),
        str(row.refused),
        f"{row.rate:.1f}/s" if row.rate else "-",
    )
    style = "yellow" if row.note else "red" if row.rate else ""
    return Text(_in_columns(name, cells, width), style)


def _circuit(circuit: Circuit) -> Text:
    whose = "spare" if circuit.owner is None else circuit.owner.words()
    path = " → ".join(hop.name + (f" {hop.country}" if hop.country else "") for hop in circuit.hops)
    state = "" if circuit.state == "BUILT" else f" {circuit.state.lower()}"
    carried = f"  {circuit.streams} stream{'s' * (circuit.streams > 1)}" if circuit.streams else ""
    style = "dim" if circuit.owner is None else ""
    return Text(f"  {whose[:22]:<22} {path or '-'}{state}{carried}", style)


def _stream(stream: Stream) -> Text:
    where = f"circuit {stream.circuit}" if stream.circuit else "no circuit yet"
    return Text(f"  {stream.owner.words()[:22]:<22} {stream.target}  {where}")


def _event(news: News) -> Text:
    return Text(f"  {moment(news.time)} {news.level}: {news.words}", _LEVELS.get(news.level, ""))


def _rate(count: int) -> str:
    """Bytes in a second."""
    if not count:
        return "-"
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}/s" if unit == "B" else f"{size:.1f} {unit}/s"
        size /= 1000
    return f"{size:.1f} GB/s"
