"""Files and processes that the guard watches: the resolver's, tor, its lists of relays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from onionward.guard.events import Files, Process, Source
from onionward.paths import Paths
from onionward.state import Journal
from onionward.tor import process as tor_process


class Watched:
    """What is watched now.

    Raises:
        OSError: there is no watch to be had.

    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._files, self._lists = Files([]), Files([])
        self._processes: tuple[Process, ...] = ()
        self._fingerprints: dict[Path, str] = {}

    @property
    def sources(self) -> tuple[Source, ...]:
        """What to wait on."""
        return (self._files, self._lists, *self._processes)

    def renew(self, journal: Journal | None) -> tuple[str, ...]:
        """Watch what is there now.

        Returns:
            What cannot be watched and why, in words.

        """
        for process in self._processes:
            process.close()
        found = (
            _watched(tor_process.running(self._paths), "tor has ended"),
            _watched(_unbound(journal), "unbound has ended"),
        )
        self._processes = tuple(process for process in found if process is not None)
        undo = {} if journal is None else journal.undo
        watched = _of_resolver(undo, self._paths)
        files = Files(watched)
        self._files.close()
        self._files = files
        self._fingerprints = {path: _fingerprint(path) for path in watched}
        document = json.loads(self._paths.lock_rules.read_text())
        lists = Files(map(Path, document.get("lists", ())))
        self._lists.close()
        self._lists = lists
        return files.unwatched

    def read(self, source: Source) -> Mapping[str, bool]:
        """What has happened, in words → whether `up` is wanted whatever is found."""
        words = source.read()
        if source is self._lists:
            return {"tor has another list of relays": True} if words else {}
        if source is self._files:
            changed = any(_fingerprint(path) != kept for path, kept in self._fingerprints.items())
            return dict.fromkeys(words, False) if changed else {}
        for process in self._processes:
            if process is source:
                process.close()
        self._processes = tuple(one for one in self._processes if one is not source)
        return dict.fromkeys(words, False)


def _of_resolver(undo: Mapping[str, Any], paths: Paths) -> tuple[Path, ...]:
    if (saved := undo.get("resolver")) is not None:
        from onionward.dns import host

        return host.watched(saved, paths)
    return (paths.resolv_conf,) if "onion" in undo else ()


def _watched(pids: Sequence[int], words: str) -> Process | None:
    for pid in pids:
        with suppress(ProcessLookupError):
            return Process(pid, words)
    return None


def _unbound(journal: Journal | None) -> tuple[int, ...]:
    saved = {} if journal is None else journal.undo.get("full_dns", {}).get("saved", {})
    if not saved:
        return ()
    from onionward.dns import full

    return full.running(Path(saved["config"]))


def _fingerprint(path: Path) -> str:
    """What a file says and what kind of file it is; of a directory, all that is in it."""
    try:
        if path.is_dir():
            return "\n".join(f"{one.name}\n{_fingerprint(one)}" for one in sorted(path.iterdir()))
        target = str(path.readlink()) if path.is_symlink() else ""
        # a pipe has no end, and somebody may wait at it for ever
        kept = path.read_text(errors="surrogateescape") if path.is_file() else "no file"
        return f"{target}\n{kept}"
    except OSError as error:
        return str(error)
