"""The picture of what left over time, as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from onionward.verify.report import Report

WIDTH, LEFT, RIGHT = 1000, 190, 20
TOP, LANE_HEIGHT, GAP, AXIS = 30, 52, 10, 34
_BAR = 3.0  # width of the mark of a tenth of a second, in units of the picture
_STEPS = (1, 2, 5, 10, 20, 30, 60)
_MOST_TICKS = 12


class Lane(NamedTuple):
    """One row of the picture.

    Attributes:
        kind: of `report.Marks`.
        title: for people.
        words: what is in it.
        colour: of its marks.

    """

    kind: str
    title: str
    words: str
    colour: str


LANES = (
    Lane(
        "control",
        "control",
        "what the detector saw in the network that leads nowhere; on no wire",
        "#5b6b8c",
    ),
    Lane("tor", "tor to its relays", "permitted: connections of tor's own account", "#1b6b3a"),
    Lane(
        "link",
        "link and bypass",
        "permitted: ARP, neighbour discovery, DHCP, bypassed networks, answers to neighbours",
        "#2f6fb0",
    ),
    Lane("canary", "ESCAPES", "canary packets that left in clear", "#b3261e"),
    Lane("other", "other", "no canaries, and not accounted for by this report", "#8a5a00"),
)


def height() -> int:
    """Of the whole picture."""
    return TOP + len(LANES) * (LANE_HEIGHT + GAP) + AXIS


def draw(report: Report) -> str:
    """The picture: a row for each kind of packet, a bar for each tenth of a second."""
    begin, end = report.control[0], max(report.trial[1], report.control[0] + 1)
    scale = (WIDTH - LEFT - RIGHT) / (end - begin)

    def place(moment: float) -> float:
        return round(LEFT + (min(max(moment, begin), end) - begin) * scale, 1)

    bottom = height() - AXIS
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height()}" role="img" xmlns="http://www.w3.org/2000/svg"'
        ' font-family="sans-serif" font-size="13">',
        "<title>Packets over time</title>",
    ]
    for title, (from_, to) in (("control", report.control), ("on this machine", report.trial)):
        left, right = place(from_), place(to)
        parts.append(
            f'<rect x="{left}" y="{TOP - 6}" width="{round(right - left, 1)}"'
            f' height="{bottom - TOP + 6}" fill="#eef1f6"/>'
            f'<text x="{left + 4}" y="{TOP - 11}" fill="#596275">{title}</text>'
        )
    for row, lane in enumerate(LANES):
        base = TOP + row * (LANE_HEIGHT + GAP) + LANE_HEIGHT
        counts = [c for marks in report.traffic if marks.kind == lane.kind for c in marks.counts]
        packets = sum(number for _, number in counts)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}" stroke="#c3cad6"/>'
            f'<text x="8" y="{base - 22}" fill="#1d2330">{escape(lane.title)}</text>'
            f'<text x="8" y="{base - 6}" fill="#596275">{packets} packets</text>'
        )
        parts += (
            f'<rect class="{lane.kind}" x="{place(moment)}" y="{base - tall}" width="{_BAR}"'
            f' height="{tall}" fill="{lane.colour}"><title>{number}</title></rect>'
            for moment, number in counts
            for tall in (_tall(number),)
        )
    parts += _axis(begin, end, scale, bottom)
    parts.append("</svg>")
    return "\n".join(parts)


def _tall(packets: int) -> float:
    """Height of a bar; a hundred times as many packets are three times as high."""
    return round(min(LANE_HEIGHT - 4, 12 * (1 + math.log10(packets))), 1)


def _axis(begin: float, end: float, scale: float, bottom: int) -> Iterator[str]:
    seconds = end - begin
    step = next((s for s in _STEPS if seconds / s <= _MOST_TICKS), math.ceil(seconds / 10))
    for second in range(0, int(seconds) + 1, step):
        x = round(LEFT + second * scale, 1)
        yield (
            f'<line x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}" stroke="#596275"/>'
            f'<text x="{x}" y="{bottom + 20}" text-anchor="middle" fill="#596275">{second} s</text>'
        )
