"""The journal: what was done, and what undoes it, on disk before it is done. And the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from onionward import backend, regular_file
from onionward.errors import JournalError, LockedError
from onionward.paths import Paths
from onionward.system import System

VERSION = 2
_SILENCE = 0.5  # seconds of waiting that are not worth a word
_LONGEST = 200  # characters of a command in the lock
_FORCE = "`onionward down --force` removes what can be recognised without it"
State = Literal["blocked", "routed"]


@dataclass(frozen=True, slots=True)
class Journal:
    """One activation, from `up` to `down`.

    Attributes:
        state: the last state reached; "blocked" until routing is verified.
        since: seconds since the epoch when that was.
        instance: names what belongs to this activation (the control group).
        stamp: the packet mark in force.
        undo: for each step taken, in order, what undoes it.
        digest: fingerprint of the rules in force, "" before they were read back.
        config: where the configuration came from.
        torrc: fingerprint of tor's configuration, "" until tor runs.
        scopes: who is routed, in words.
        filters: packet filters that may hold rules of ours; the last one decides.

    """

    state: State
    since: float
    instance: str
    stamp: int
    undo: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    config: str = ""
    torrc: str = ""
    scopes: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=lambda: ["nftables"])


_FIELDS = tuple(Journal.__dataclass_fields__)

# what lifecycle/surroundings.py writes: each with what puts it back
SURROUNDINGS = (
    *("routes", "belt", "sysctls", "ports", "masks"),
    *("full_dns", "onion", "control", "dhcp"),
)


def load(paths: Paths) -> Journal | None:
    """The journal of the current activation, or None when there is none.

    Raises:
        JournalError: the file is not a journal that this version wrote, or it cannot be read.
        PermissionError: whoever asks is not root.

    """
    try:
        raw = regular_file.read(paths.journal)
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            raise
        raise JournalError(f"{paths.journal} cannot be read: {error.strerror}", _FORCE) from error
    try:
        document = json.loads(raw.decode())
        if (version := document.pop("version")) != VERSION:
            raise JournalError(
                f"{paths.journal} was written by another version of onionward (format {version!r}, "
                f"this one has {VERSION})",
                f"use that version's `onionward down`; {_FORCE}",
            )
        if document.pop("checksum") != _checksum(document):
            raise ValueError("it does not have its checksum")
        return _checked(Journal(**document))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(f"{paths.journal} is damaged: {error}", _FORCE) from error


def _checksum(document: Mapping[str, Any]) -> int:
    """A value that differs when a byte does: a wrong one would be put back as what was before."""
    import zlib

    return zlib.crc32(json.dumps(document).encode())


def saved_step(paths: Paths, name: str) -> Any:
    """What undoes a surrounding's step of the current activation, or None.

    A journal that cannot be read has none.
    """
    try:
        journal = load(paths)
    except (JournalError, PermissionError):
        return None
    return None if journal is None else journal.undo.get(name, {}).get("saved")


def noted_lans(paths: Paths) -> tuple[str, ...]:
    """Interfaces whose clients are routed by the current activation; none without a journal."""
    try:
        journal = load(paths)
    except (JournalError, PermissionError):
        return ()
    return () if journal is None else tuple(journal.undo.get("rules", {}).get("lans", ()))


def _checked(journal: Journal) -> Journal:
    """The journal itself when its fields are what they should be, else a TypeError."""
    texts = (journal.instance, journal.digest, journal.config, journal.torrc)
    if (
        journal.state not in get_args(State)
        or not isinstance(journal.since, int | float)
        or not isinstance(journal.stamp, int)
        or not isinstance(journal.scopes, list)
        or not isinstance(journal.filters, list)
        or not journal.filters
        or not set(journal.filters) <= {*backend.NAMES, *backend.BSD}
        or not all(isinstance(text, str) for text in (*texts, *journal.scopes))
        or not isinstance(journal.undo, dict)
        or not all(isinstance(undo, dict) for undo in journal.undo.values())
        or not all("saved" in journal.undo.get(name, {"saved": {}}) for name in SURROUNDINGS)
    ):
        raise TypeError("a field is not what it should be")
    return journal


def save(system: System, paths: Paths, journal: Journal) -> Journal:
    """Write the journal durably; returns it."""
    document = {name: getattr(journal, name) for name in _FIELDS}
    checked = {"version": VERSION, **document, "checksum": _checksum(document)}
    system.write_file(paths.journal, json.dumps(checked, indent=1) + "\n", mode=0o600)
    return journal


def entered(journal: Journal, state: State, digest: str) -> Journal:
    """The journal of a machine that is in this state from now on."""
    return replace(journal, state=state, since=time.time(), digest=digest)


@contextlib.contextmanager
def locked(
    system: System,
    paths: Paths,
    patience: float = 10.0,
    tell: Callable[[str], object] = lambda _: None,
) -> Iterator[None]:
    """Hold the lock that keeps two onionwards from working at once.

    Args:
        system: the seam.
        paths: where the lock is.
        patience: seconds to wait for another one.
        tell: told once who is waited for.

    Raises:
        LockedError: another one did not finish in time, or the lock cannot be made.

    """
    start = time.monotonic()
    told = False
    while (descriptor := _lock_or_refuse(system, paths)) is None:
        waited = time.monotonic() - start
        if waited > patience:
            raise LockedError(
                f"another onionward is at work: {_holder(paths)}; waited {waited:.0f} s, nothing "
                "was touched",
                "wait for it, or end it; the rules stay in place meanwhile",
            )
        if waited > _SILENCE and not told:
            told = True
            tell(f"waiting for another onionward: {_holder(paths)}")
        time.sleep(0.05)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _card().encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock_or_refuse(system: System, paths: Paths) -> int | None:
    try:
        return _try_lock(system, paths)
    except OSError as error:
        raise LockedError(f"the lock cannot be taken: {error}; nothing was touched") from error


def _try_lock(system: System, paths: Paths) -> int | None:
    if not paths.runtime.is_dir():
        system.make_directory(paths.runtime)
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # the other one has just removed the directory
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `down` removes the file: a lock on what has no name any more excludes nobody
        if os.path.samestat(os.fstat(descriptor), paths.lock.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _card() -> str:
    """What the lock says of its holder: process, since when, command."""
    words = [Path(sys.argv[0] or "onionward").name, *sys.argv[1:]]
    return f"{os.getpid()}\n{time.time():.0f}\n{' '.join(words)[:_LONGEST]!r}\n"


def _holder(paths: Paths) -> str:
    """Who holds the lock, in words."""
    try:
        pid, since, command = paths.lock.read_text(errors="replace").splitlines()
        moment = time.strftime("%H:%M:%S", time.localtime(int(since)))
    except (OSError, ValueError):
        return "it has not said which"
    return f"process {pid}, {command}, since {moment}"
