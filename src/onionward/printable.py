"""Words of others, before they are shown on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a question mark for all that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
