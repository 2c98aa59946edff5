"""Files that may not be there, read without pathlib: an application would wait for its import."""

from __future__ import annotations


def text_of(path: str) -> str:
    """What a file says, whatever bytes it has; "" when it cannot be read."""
    try:
        with open(path, errors="surrogateescape") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""
