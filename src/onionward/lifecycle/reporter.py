"""What the steps of `up` and `down` say, and to whom."""

from __future__ import annotations

from typing import Protocol

from onionward.errors import OnionwardError


class Reporter(Protocol):
    """What the steps say while they go on."""

    def step(self, words: str) -> None:
        """Something was done."""

    def warn(self, words: str) -> None:
        """Something that the user should know."""

    def bootstrap(self, percent: int, words: str) -> None:
        """How far tor is."""


def words_of(error: BaseException) -> tuple[str, str]:
    """What happened and what to do, of any error."""
    if isinstance(error, OnionwardError):
        return error.message, error.hint
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ""
    return (str(error) if isinstance(error, OSError) else repr(error)), ""
