"""What the steps of `up` and `down` say, and to whom."""

from __future__ import annotations

from typing import Protocol

from onionward.errors import words_of

__all__ = ["Reporter", "words_of"]


class Reporter(Protocol):
    """What the steps say while they go on."""

    def step(self, words: str) -> None:
        """Something was done."""

    def warn(self, words: str) -> None:
        """Something that the user should know."""

    def bootstrap(self, percent: int, words: str) -> None:
        """How far tor is."""
