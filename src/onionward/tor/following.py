"""tor's list of relays while it changes: read again only when its file is another one."""

from __future__ import annotations

from pathlib import Path

from onionward.config.values import Config
from onionward.tor import directory
from onionward.tor.directory import CONSENSUSES, Directory

_State = tuple[tuple[int, int, int] | None, ...]


def consensuses(config: Config, data: Path) -> tuple[Path, ...]:
    """The files that are followed; none where tor may reach anything, or bridges alone."""
    if not config.tor.follows_relays:
        return ()
    return tuple(data / name for name in CONSENSUSES)


class Following:
    """A list that is followed.

    Args:
        config: whether and how tor is held to relays.
        data: tor's data directory.
        tor_path: the program.
        known: what has been read of the list already.

    """

    def __init__(self, config: Config, data: Path, tor_path: str | None, known: Directory) -> None:
        self._config = config
        self._data = data
        self._tor_path = tor_path
        self._known = known
        self._files = consensuses(config, data)
        self._seen: _State = ()

    def changed(self) -> Directory | None:
        """The list, if it is another one than was known."""
        seen = tuple(map(_state, self._files))
        if seen == self._seen:
            return None
        self._seen = seen
        found = directory.look(self._config, self._data, self._tor_path)
        if found == self._known:
            return None
        self._known = found
        return found


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
