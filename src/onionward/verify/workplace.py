"""Where a run of `verify` keeps its capture files: one run at a time, and nothing stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from onionward.errors import LockedError, RefusedError

_OF_ROOT = Path("/run/onionward-verify")


def directory() -> Path:
    """The directory of the account that asks; in memory, where the system has it so."""
    if os.geteuid() == 0:
        return _OF_ROOT
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(own or "/tmp") / f"onionward-verify-{os.geteuid()}"  # noqa: S108  see `_make`


@contextlib.contextmanager
def occupied(place: Path) -> Iterator[Path]:
    """Have the directory for oneself, empty; what a killed run has left there is removed.

    Raises:
        LockedError: another run is at work.
        RefusedError: the directory is somebody else's.

    """
    _make(place)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "another `onionward verify` is at work; nothing was touched", "wait until it ends"
            ) from None
        _empty(place)
        try:
            yield place
        finally:
            _empty(place)
            # the next run may have come for the lock already
            with contextlib.suppress(OSError):
                (place / "lock").unlink()
                place.rmdir()


def _make(place: Path) -> None:
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RefusedError(f"{place} is not a directory of yours; nothing was touched", "remove it")


def _empty(place: Path) -> None:
    """Remove what is there but the lock; runs make files only."""
    for path in place.iterdir():
        if path.name != "lock":
            path.unlink()
