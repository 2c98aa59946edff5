"""The journal and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import shutil
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onionward.errors import JournalError, LockedError
from onionward.paths import Paths
from onionward.state import VERSION, Journal, _checksum, entered, load, locked, save
from tests.support import DyingSystem, LocalSystem


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "state").mkdir()
    return Paths(tmp_path / "state", tmp_path / "run", tmp_path / "resolv.conf")


JOURNAL = Journal(
    state="blocked",
    since=1.5,
    instance="abcd",
    stamp=7,
    undo={"rules": {"bypass": ["10.0.0.0/8"]}, "tor": {"cgroup": None}},
    digest="d",
    config="o.toml",
    torrc="t",
)


def test_what_is_saved_is_loaded(paths: Paths) -> None:
    assert load(paths) is None
    assert save(LocalSystem(), paths, JOURNAL) == JOURNAL
    assert load(paths) == JOURNAL
    assert stat.S_IMODE(paths.journal.stat().st_mode) == 0o600


def test_saving_is_all_or_nothing(paths: Paths) -> None:
    save(LocalSystem(), paths, JOURNAL)
    with pytest.raises(DyingSystem.DeathError):
        save(DyingSystem(0), paths, replace(JOURNAL, state="routed"))
    assert load(paths) == JOURNAL


def test_entering_a_state() -> None:
    after = entered(JOURNAL, "routed", "new")
    assert (after.state, after.digest) == ("routed", "new")
    assert abs(after.since - time.time()) < 60
    assert replace(after, state="blocked", digest="d", since=1.5) == JOURNAL


DOCUMENT = {
    "version": VERSION,
    "state": "blocked",
    "since": 1.0,
    "instance": "",
    "stamp": 1,
    "undo": {},
    "digest": "",
    "config": "",
    "torrc": "",
    "scopes": [],
    "filters": ["nftables"],
}


def with_checksum(document: dict[str, Any]) -> bytes:
    """As if this program had written it."""
    content = {name: value for name, value in document.items() if name != "version"}
    return json.dumps(document | {"checksum": _checksum(content)}).encode()


def test_what_these_tests_write_would_be_a_journal(paths: Paths) -> None:
    paths.journal.write_bytes(with_checksum(DOCUMENT))
    assert load(paths) == Journal(state="blocked", since=1.0, instance="", stamp=1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"\xff\xfe\0\0",
        bytes(4096),
        b"[" * 100_000,
        json.dumps({"version": VERSION}).encode(),
        json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT | {"checksum": 1}).encode(),
        with_checksum(DOCUMENT | {"more": 1}),
        with_checksum(DOCUMENT | {"undo": []}),
        with_checksum(DOCUMENT | {"state": "open"}),
        with_checksum(DOCUMENT | {"stamp": "1"}),
        with_checksum(DOCUMENT | {"undo": {"tor": "x"}}),
        with_checksum(DOCUMENT | {"undo": {"routes": {}}}),
        with_checksum(DOCUMENT | {"filters": []}),
        with_checksum(DOCUMENT | {"filters": ["nftables", "ipfwadm"]}),
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_a_damaged_journal(paths: Paths, raw: bytes) -> None:
    paths.journal.write_bytes(raw)
    with pytest.raises(JournalError, match=r"journal\.json is damaged") as caught:
        load(paths)
    assert "down --force" in caught.value.hint


@pytest.mark.parametrize("version", [VERSION + 1, VERSION - 1, 0, "2", None, [2]])
def test_a_journal_of_another_version(paths: Paths, version: object) -> None:
    paths.journal.write_bytes(with_checksum(DOCUMENT | {"version": version}))
    with pytest.raises(JournalError, match="written by another version") as caught:
        load(paths)
    assert "that version's `onionward down`" in caught.value.hint
    assert "down --force" in caught.value.hint


def test_no_changed_bit_is_taken_for_what_was_written(paths: Paths) -> None:
    """What was before is put back from it: better nothing than something else."""
    save(LocalSystem(), paths, JOURNAL)
    whole = paths.journal.read_bytes()
    # neighbours among digits, and letters of the other case
    for place, bit in itertools.product(range(len(whole)), (0, 5)):
        raw = bytearray(whole)
        raw[place] ^= 1 << bit
        paths.journal.write_bytes(raw)
        with contextlib.suppress(JournalError):
            # between values there is space that may be any
            assert load(paths) == JOURNAL, f"bit {bit} of byte {place}"


def _directory(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _bad_disk(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # its first byte is an I/O error


@pytest.mark.parametrize("make", [_directory, _loop, _bad_disk])
def test_a_journal_that_cannot_be_read(paths: Paths, make: Callable[[Path], None]) -> None:
    make(paths.journal)
    with pytest.raises(JournalError, match=r"journal\.json cannot be read: ") as caught:
        load(paths)
    assert "down --force" in caught.value.hint


def test_the_lock_excludes(paths: Paths) -> None:
    system = LocalSystem()
    with (
        locked(system, paths, patience=0),
        pytest.raises(
            LockedError, match=r"another onionward is at work: process \d+, '.*', since \d\d:"
        ),
        locked(system, paths, patience=0),
    ):
        pytest.fail("two hold the lock")
    with locked(system, paths, patience=0):
        pass


def test_the_lock_is_given_back_after_an_error(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt), locked(LocalSystem(), paths):
        raise KeyboardInterrupt
    with locked(LocalSystem(), paths, patience=0):
        pass


def test_the_next_one_waits(paths: Paths) -> None:
    order = []
    holds = threading.Event()

    def first() -> None:
        with locked(LocalSystem(), paths):
            holds.set()
            time.sleep(0.1)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert holds.wait(10)
    with locked(LocalSystem(), paths, patience=10):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_removed_lock_excludes_nobody(paths: Paths) -> None:
    """`down` removes the directory while it holds the lock; who waits must take a new one."""
    entered_by_two = threading.Event()
    with locked(LocalSystem(), paths):
        shutil.rmtree(paths.runtime)

        def second() -> None:
            with locked(LocalSystem(), paths, patience=0):
                entered_by_two.set()

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert entered_by_two.is_set()


def test_a_lock_on_a_file_that_has_no_name_any_more_is_not_taken(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the holder ended and removed the file."""
    taken: list[int] = []
    flock = fcntl.flock

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        if not taken:
            paths.lock.unlink()
        taken.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with locked(LocalSystem(), paths, patience=5):
        assert len(taken) == 2
        assert paths.lock.exists()
