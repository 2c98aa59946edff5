"""Reads the screenshots of a browser: PNG of eight bits for a colour, not interlaced (RFC 2083)."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass

Colour = tuple[int, int, int]

_CHANNELS = {2: 3, 6: 4}  # by colour type


@dataclass(frozen=True)
class Picture:
    """Rows of bytes."""

    width: int
    height: int
    channels: int
    rows: tuple[bytes, ...]

    def at(self, x: int, y: int) -> Colour:
        place = x * self.channels
        red, green, blue = self.rows[y][place : place + 3]
        return red, green, blue

    def counts(self) -> Counter[Colour]:
        """How many dots have each colour."""
        found: Counter[Colour] = Counter()
        for row in self.rows:
            planes = (row[channel :: self.channels] for channel in range(3))
            found.update(zip(*planes, strict=True))
        return found


def read(data: bytes) -> Picture:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed = 8, b""
    width = height = kind = 0
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        place += 12 + length
        if name == b"IHDR":
            width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, interlaced) == (8, 0)
        elif name == b"IDAT":
            packed += body
    channels = _CHANNELS[kind]
    raw, stride = zlib.decompress(packed), width * channels
    rows: list[bytes] = []
    before = bytes(stride)
    for row in range(height):
        start = row * (stride + 1)
        before = _unfiltered(raw[start], raw[start + 1 : start + 1 + stride], before, channels)
        rows.append(before)
    return Picture(width, height, channels, tuple(rows))


def _unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    if kind == 0:
        return line
    if kind == 2:
        return bytes((one + up) & 0xFF for one, up in zip(line, above, strict=True))
    made = bytearray(line)
    for place, value in enumerate(line):
        left = made[place - channels] if place >= channels else 0
        corner = above[place - channels] if place >= channels else 0
        match kind:
            case 1:
                guess = left
            case 3:
                guess = (left + above[place]) // 2
            case _:
                guess = _paeth(left, above[place], corner)
        made[place] = (value + guess) & 0xFF
    return bytes(made)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))
