"""Files in places that others may write to: read without being led elsewhere or held up."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(path: Path, *, last: int | None = None) -> bytes:
    """What a file holds.

    Args:
        path: where it is.
        last: bytes at its end that are enough; None: all of it.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or it is no regular file: a pipe would wait for a writer, a
            link lead elsewhere (open(2), O_NONBLOCK and O_NOFOLLOW).

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        size = require(descriptor, path).st_size
        if last is None:
            return file.read()
        file.seek(max(0, size - last))
        return file.read(last)


def require(descriptor: int, path: Path) -> os.stat_result:
    """What is known of an open file.

    Raises:
        OSError: it is no regular file.

    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return found
