"""The journal: what was done, and what undoes it, on disk before it is done. And the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from onionward.errors import JournalError, LockedError
from onionward.paths import Paths
from onionward.system import System

VERSION = 1
_SILENCE = 0.5  # seconds of waiting that are not worth a word
_LONGEST = 200  # characters of a command in the lock
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


def load(paths: Paths) -> Journal | None:
    """The journal of the current activation, or None when there is none.

    Raises:
        JournalError: the file is not a journal.

    """
    try:
        raw = paths.journal.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(raw.decode())
        if document.pop("version") != VERSION:
            raise JournalError(
                f"{paths.journal} was written by another version of onionward",
                "use that version's `onionward down`",
            )
        return _checked(Journal(**document))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(
            f"{paths.journal} is damaged: {error}",
            "`onionward down --force` removes what can be recognised without it",
        ) from error


def saved_step(paths: Paths, name: str) -> Any:
    """What undoes a surrounding's step of the current activation, or None.

    A journal that cannot be read has none.
    """
    try:
        journal = load(paths)
    except (JournalError, PermissionError):
        return None
    return None if journal is None else journal.undo.get(name, {}).get("saved")


def _checked(journal: Journal) -> Journal:
    """The journal itself when its fields are what they should be, else a TypeError."""
    texts = (journal.instance, journal.digest, journal.config, journal.torrc)
    if (
        journal.state not in get_args(State)
        or not isinstance(journal.since, int | float)
        or not isinstance(journal.stamp, int)
        or not isinstance(journal.scopes, list)
        or not all(isinstance(text, str) for text in (*texts, *journal.scopes))
        or not isinstance(journal.undo, dict)
        or not all(isinstance(undo, dict) for undo in journal.undo.values())
    ):
        raise TypeError("a field is not what it should be")
    return journal


def save(system: System, paths: Paths, journal: Journal) -> Journal:
    """Write the journal durably; returns it."""
    fields = ("state", "since", "instance", "stamp", "undo", "digest", "config", "torrc", "scopes")
    document = {"version": VERSION, **{name: getattr(journal, name) for name in fields}}
    system.write_file(paths.journal, json.dumps(document, indent=1) + "\n", mode=0o600)
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
