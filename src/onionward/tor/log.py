"""The log of onionward's tor, in a directory that is tor's own."""

from __future__ import annotations

from onionward import regular_file
from onionward.paths import Paths

_READ = 1 << 18  # bytes at its end


def end(paths: Paths) -> str:
    """What was written last, whole lines but for the first.

    Raises:
        OSError: there is none, or something else is in its place.

    """
    return regular_file.read(paths.tor_log, last=_READ).decode(errors="replace")
