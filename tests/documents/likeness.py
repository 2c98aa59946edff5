"""Whether what a document shows is what a command printed, but for what differs each time; pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

OMITTED = "…"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FRAMES = re.compile(r"[─━│┃┏┓┗┛┡┩┢┪└┘├┤┼╇╈┳┻┬┴╀]")
# in this order: what is longer first
_GENERAL = (
    (re.compile(r"\b[a-z2-7]{56}\.onion\b"), "NAME.onion"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?"), "TIME"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "ADDRESS"),
    (re.compile(r"(?<![\w:])[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}(?![\w:])"), "ADDRESS"),
    (re.compile(r"\$?\b[0-9A-F]{40}\b"), "FINGERPRINT"),
    (re.compile(r"(?<![\w.])0x[0-9a-f]+\b"), "N"),
    (re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])"), "N"),
    (re.compile(r"(?<![\w.-])[1-9]\d*(?![\w.]*\w)"), "N"),
)
# how often tor says how far it is depends on the moment
_PROGRESS = re.compile(r"^\[ ?N s\] tor (N|0) %:.*$")


def general(lines: Sequence[str]) -> list[str]:
    """Lines without frames and what is different each time: numbers but 0, times, addresses."""
    return list(_general(lines))


def _general(lines: Sequence[str]) -> Iterator[str]:
    before = ""
    for line in lines:
        words = " ".join(_FRAMES.sub(" ", _ESCAPES.sub("", line)).split())
        for pattern, name in _GENERAL:
            words = pattern.sub(name, words)
        words = _PROGRESS.sub("[N s] tor N %", words)
        if words and not (words == before == "[N s] tor N %"):
            yield words
        before = words or before


def difference(shown: Sequence[str], real: Sequence[str]) -> str:
    """How what is shown differs from what is real, or "" where it does not.

    In what is shown `…` alone on a line stands for any lines, and elsewhere for any words.
    """
    wanted, found = general(shown), general(real)
    if _fits(wanted, found):
        return ""
    diff = difflib.unified_diff(wanted, found, "shown", "real", lineterm="")
    return "\n".join([*diff, "", "real output:", *real])


def _fits(wanted: Sequence[str], found: Sequence[str]) -> bool:
    if not wanted:
        return not found
    first, *rest = wanted
    if first == OMITTED:
        return any(_fits(rest, found[n:]) for n in range(len(found) + 1))
    return bool(found) and _matches(first, found[0]) and _fits(rest, found[1:])


def _matches(wanted: str, found: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in wanted.split(OMITTED))
    return re.fullmatch(pattern, found) is not None


def columns(lines: Sequence[str]) -> list[str]:
    """Words of a page with tables, in an order that does not depend on the width of the page.

    Within each part of a table the cells of a column are read downwards.
    """
    return list(_columns([_ESCAPES.sub("", line).rstrip() for line in lines]))


def _columns(lines: Sequence[str]) -> Iterator[str]:
    paragraph: list[str] = []
    cells: list[list[str]] = []
    for line in [*lines, ""]:
        row = [cell.split() for cell in re.split("[│┃]", line)[1:-1]]
        if row and (not cells or len(row) == len(cells)):
            if paragraph:
                yield " ".join(paragraph)
                paragraph = []
            cells = [a + b for a, b in zip(cells or [[] for _ in row], row, strict=True)]
            continue
        if cells:
            yield from (" ".join(words) for words in cells)
            cells = []
        words = _FRAMES.sub(" ", line).split()
        # progress has a line for each step
        if paragraph and (not words or line.startswith("[") or paragraph[0].startswith("[")):
            yield " ".join(paragraph)
            paragraph = []
        paragraph += words


def rows(lines: Sequence[str]) -> list[str]:
    """The rows of tables in which no cell is broken, generalised; lists of numbers are one."""
    found = [" | ".join(re.split("[│┃]", line)[1:-1]) for line in lines if re.search("[│┃]", line)]
    return [re.sub(r"N(, N)+", "N", words) for words in general(found)]
