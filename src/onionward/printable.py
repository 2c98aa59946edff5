"""Words of others, before they are shown on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a question mark for all that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))
