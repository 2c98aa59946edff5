"""resolv.conf is replaced, and comes back exactly, from wherever the program was killed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from onionward.dns.file import Saved, is_ours, replace, restore, survey, waiting_name
from onionward.errors import ResolverError
from tests.support import DyingSystem, LocalSystem

OURS = "nameserver 127.0.0.1\n"
THEIRS = b"# caf\xe9\nnameserver 192.0.2.53\nsearch example.org\n"


@dataclass(frozen=True)
class Seen:
    """Everything that must return."""

    kind: str
    target: str
    content: bytes
    mode: int
    owner: tuple[int, int]
    mtime: int
    inode: int
    neighbours: tuple[str, ...]


def look(path: Path) -> Seen:
    neighbours = tuple(sorted(entry.name for entry in path.parent.iterdir()))
    if not path.is_symlink() and not path.exists():
        return Seen("absent", "", b"", 0, (0, 0), 0, 0, neighbours)
    status = path.lstat()
    return Seen(
        "link" if path.is_symlink() else "file",
        str(path.readlink()) if path.is_symlink() else "",
        path.read_bytes() if path.exists() else b"",
        status.st_mode,
        (status.st_uid, status.st_gid),
        status.st_mtime_ns,
        status.st_ino,
        neighbours,
    )


def make(folder: Path, kind: str) -> Path:
    path = folder / "etc" / "resolv.conf"
    path.parent.mkdir()
    (folder / "run").mkdir()
    target = folder / "run" / "stub.conf"
    if kind in ("file", "overwritten"):
        path.write_bytes(THEIRS)
        path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(path, 33, 34)
        os.utime(path, ns=(1_234_567_890_123_456_789, 1_234_567_890_987_654_321))
    elif kind == "symlink":
        target.write_bytes(THEIRS)
        path.symlink_to("../run/stub.conf")
    elif kind == "dangling symlink":
        path.symlink_to("/nowhere/at/all")
    elif kind == "empty file":
        path.touch()
    return path


KINDS = ["file", "symlink", "dangling symlink", "absent", "empty file", "overwritten"]


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "overwritten":
        # a bind mount, as containers have: it cannot be renamed
        monkeypatch.setattr("os.path.ismount", lambda _path: True)
    return make(tmp_path, request.param)


def test_it_is_replaced_and_comes_back_exactly(path: Path) -> None:
    before = look(path)
    system = LocalSystem()
    saved = survey(system, path, OURS)
    assert system.effects == [], "a survey changes nothing"
    assert not is_ours(path, saved)
    replace(system, path, saved)
    assert path.read_text() == OURS
    assert is_ours(path, saved)
    assert not path.is_symlink()
    if saved["kind"] != "content":
        assert path.stat().st_mode & 0o7777 == 0o644
    assert restore(system, path, saved) == ""
    assert look(path) == before
    effects = list(system.effects)
    assert restore(system, path, saved) == ""
    assert look(path) == before
    assert system.effects == effects, "the second time there is nothing to do"


def test_replacing_twice_is_replacing_once(path: Path) -> None:
    before = look(path)
    system = LocalSystem()
    saved = survey(system, path, OURS)
    replace(system, path, saved)
    replace(system, path, saved)
    assert path.read_text() == OURS
    restore(system, path, saved)
    assert look(path) == before


def test_killed_before_any_effect_of_replacing(path: Path) -> None:
    before = look(path)
    saved = survey(LocalSystem(), path, OURS)
    for survives in range(20):
        try:
            replace(DyingSystem(survives), path, saved)
        except DyingSystem.DeathError:
            died = True
        else:
            died = False
        assert restore(LocalSystem(), path, saved) == ""
        assert look(path) == before, f"killed before effect {survives}"
        assert restore(LocalSystem(), path, saved) == ""
        assert look(path) == before
        if not died:
            assert survives >= 1
            return
    pytest.fail("replacing never ends")


def test_killed_before_any_effect_of_restoring(path: Path) -> None:
    before = look(path)
    for survives in range(20):
        saved = survey(LocalSystem(), path, OURS)
        replace(LocalSystem(), path, saved)
        try:
            restore(DyingSystem(survives), path, saved)
        except DyingSystem.DeathError:
            died = True
        else:
            died = False
        assert restore(LocalSystem(), path, saved) == ""
        assert look(path) == before, f"killed before effect {survives}"
        if not died:
            assert survives >= 1
            return
    pytest.fail("restoring never ends")


class DiesWhileWriting(LocalSystem):
    """The disk fills up after our file has been written beside, before it is renamed."""

    def sync_directory(self, directory: Path) -> None:
        raise OSError(28, "No space left on device", str(directory))


def test_a_full_disk_while_replacing(path: Path) -> None:
    before = look(path)
    saved = survey(LocalSystem(), path, OURS)
    if saved["kind"] == "content":
        return
    with pytest.raises(OSError, match="No space left"):
        replace(DiesWhileWriting(), path, saved)
    restore(LocalSystem(), path, saved)
    assert look(path) == before


@pytest.mark.parametrize("how", ["rewritten", "renamed over", "linked", "removed"])
def test_what_somebody_else_has_written_meanwhile_is_left(path: Path, how: str) -> None:
    system = LocalSystem()
    saved = survey(system, path, OURS)
    before = look(path)
    replace(system, path, saved)
    if how == "rewritten":
        path.write_text("nameserver 203.0.113.1\n")
    elif how == "renamed over":
        new = path.with_name("new")
        new.write_text("nameserver 203.0.113.1\n")
        new.rename(path)
    else:
        path.unlink()
        if how == "linked":
            path.symlink_to("/run/elsewhere")
    theirs = look(path)
    if saved["kind"] == "content" and how in ("linked", "removed"):
        return  # a mounted file can be neither
    note = restore(system, path, saved)
    after = look(path)
    if saved["kind"] == "renamed" and how == "removed":
        # nothing of theirs is lost by what was there before
        assert (note, after) == ("", before)
        return
    did = "made" if saved["kind"] == "absent" else "changed"
    assert note == (
        ""
        if saved["kind"] == "absent" and how == "removed"
        else f"{path} was {did} by somebody else meanwhile and is left as it is"
    )
    assert (after.kind, after.target, after.content) == (
        theirs.kind,
        theirs.target,
        theirs.content,
    )
    assert not waiting_name(path).is_symlink()
    assert not waiting_name(path).exists()


def test_the_original_may_have_been_put_back_by_hand(tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    system = LocalSystem()
    saved = survey(system, path, OURS)
    replace(system, path, saved)
    waiting_name(path).rename(path)
    assert restore(system, path, saved) == ""
    assert path.read_bytes() == THEIRS


def test_a_stale_second_name_is_not_taken_for_the_original(tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    waiting_name(path).write_text("nameserver 203.0.113.99\n")
    system = LocalSystem()
    saved = survey(system, path, OURS)
    replace(system, path, saved)
    assert restore(system, path, saved) == ""
    assert path.read_bytes() == THEIRS


def test_after_somebody_else_wrote_it_theirs_is_what_returns(tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    system = LocalSystem()
    replace(system, path, survey(system, path, OURS))
    path.unlink()
    path.write_text("nameserver 203.0.113.1\n")
    theirs = look(path)
    again = survey(system, path, OURS)
    replace(system, path, again)
    assert path.read_text() == OURS
    assert restore(system, path, again) == ""
    after = look(path)
    assert (after.content, after.inode) == (theirs.content, theirs.inode)
    assert after.neighbours == ("resolv.conf",)


class WithFlags(LocalSystem):
    """A file system with chattr's flags, which need root in reality."""

    def __init__(self, immutable: set[int]) -> None:
        super().__init__()
        self.immutable = immutable

    def is_immutable(self, path: Path) -> bool:
        return path.stat().st_ino in self.immutable

    def set_immutable(self, path: Path, *, immutable: bool) -> None:
        self.effect("chattr")
        if immutable:
            self.immutable.add(path.stat().st_ino)
        else:
            self.immutable.discard(path.stat().st_ino)


class AppendOnly(LocalSystem):
    """The same for the flag of append-only files, which are neither linked nor renamed."""

    def __init__(self, appended: set[int]) -> None:
        super().__init__()
        self.appended = appended

    def is_append_only(self, path: Path) -> bool:
        return path.stat().st_ino in self.appended

    def set_append_only(self, path: Path, *, append_only: bool) -> None:
        self.effect("chattr")
        (self.appended.add if append_only else self.appended.discard)(path.stat().st_ino)

    def hard_link(self, path: Path, name: Path) -> None:
        self._refuse(path)
        super().hard_link(path, name)

    def write_file(
        self, path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        self._refuse(path)
        super().write_file(path, text, mode=mode, owner=owner)

    def rename(self, path: Path, target: Path) -> None:
        self._refuse(target)
        super().rename(path, target)

    def _refuse(self, path: Path) -> None:
        if path.exists() and self.is_append_only(path):
            raise PermissionError(1, "Operation not permitted", str(path))


class WithFlagsDying(WithFlags, DyingSystem):
    def __init__(self, immutable: set[int], survives: int) -> None:
        DyingSystem.__init__(self, survives)
        self.immutable = immutable


@pytest.mark.parametrize("kind", ["file", "overwritten"])
def test_the_immutable_flag_comes_back(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "overwritten":
        monkeypatch.setattr("os.path.ismount", lambda _path: True)
    path = make(tmp_path, kind)
    flags = {path.stat().st_ino}
    for survives in range(10):
        saved = survey(WithFlags(flags), path, OURS)
        assert saved["immutable"]
        try:
            replace(WithFlagsDying(flags, survives), path, saved)
            restore(WithFlagsDying(flags, survives), path, saved)
            died = False
        except DyingSystem.DeathError:
            died = True
        restore(WithFlags(flags), path, saved)
        assert path.read_bytes() == THEIRS
        assert flags == {path.stat().st_ino}
        if not died:
            return
    pytest.fail("it never ends")


def test_an_append_only_file_comes_back_as_one(tmp_path: Path) -> None:
    path = make(tmp_path, "file")
    flags = {path.stat().st_ino}
    before = look(path)
    system = AppendOnly(flags)
    saved = survey(system, path, OURS)
    replace(system, path, saved)
    assert path.read_text() == OURS
    # and one that became so while ours was there
    flags.add(path.stat().st_ino)
    assert restore(system, path, saved) == ""
    assert look(path) == before
    assert path.stat().st_ino in flags


@pytest.mark.parametrize("by", ["down", "guard"])
@pytest.mark.parametrize("strange", ["directory", "pipe"])
def test_the_original_outlives_what_is_no_file(tmp_path: Path, strange: str, by: str) -> None:
    path = make(tmp_path, "file")
    before = look(path)
    system = LocalSystem()
    saved = survey(system, path, OURS)
    replace(system, path, saved)
    path.unlink()
    path.mkdir() if strange == "directory" else os.mkfifo(path)
    for attempt in (lambda: survey(system, path, OURS), lambda: restore(system, path, saved)):
        with pytest.raises(ResolverError, match="neither a file nor a link"):
            attempt()
    path.rmdir() if strange == "directory" else path.unlink()
    if by == "down":
        assert restore(system, path, saved) == ""
        assert look(path) == before
        return
    again = survey(system, path, OURS)
    replace(system, path, again)
    assert restore(system, path, again) == ""
    assert look(path) == before


def test_the_journal_can_hold_it(path: Path) -> None:
    import json

    saved: Saved = survey(LocalSystem(), path, OURS)
    assert json.loads(json.dumps(saved)) == saved
