"""Access control lists: the kernel's encoding, one account refused and readmitted, who may what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward import acl
from onionward.acl import EXECUTE, READ, WRITE, Entry, Permissions

# what the kernel gave after: chmod 0640 FILE; setfacl -m u:1000:rwx,g:50:r FILE
RAW = bytes.fromhex(
    "02000000"
    "01000600ffffffff"
    "02000700e8030000"
    "04000400ffffffff"
    "0800040032000000"
    "10000700ffffffff"
    "20000000ffffffff"
)
LIST = (
    Entry(1, 6),
    Entry(2, 7, 1000),
    Entry(4, 4),
    Entry(8, 4, 50),
    Entry(16, 7),
    Entry(32, 0),
)


def test_the_encoding_of_the_kernel() -> None:
    assert acl.decode(RAW) == LIST
    assert acl.encode(LIST) == RAW


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x03\0\0\0", RAW[:-1], b"\x01\0\0\0" + RAW[4:]])
def test_something_else(raw: bytes) -> None:
    with pytest.raises(ValueError, match="access control list"):
        acl.decode(raw)


def test_one_account_is_refused_where_there_was_no_list() -> None:
    before = acl.minimal(0o755)
    assert before == (Entry(1, 7), Entry(4, 5), Entry(32, 5))
    after = acl.denied(before, 61002)
    assert after == (Entry(1, 7), Entry(2, 0, 61002), Entry(4, 5), Entry(16, 5), Entry(32, 5))
    assert acl.names_somebody(after)
    assert not acl.names_somebody(acl.readmitted(after, 61002, None))


modes = st.integers(0, 0o777)
ids = st.integers(1, 5)
named = st.dictionaries(st.tuples(st.sampled_from([2, 8]), ids), st.integers(0, 7))


def _list(mode: int, names: dict[tuple[int, int], int]) -> acl.Entries:
    user, group, other = acl.minimal(mode)
    users = [Entry(2, p, i) for (tag, i), p in sorted(names.items()) if tag == 2]
    groups = [Entry(8, p, i) for (tag, i), p in sorted(names.items()) if tag == 8]
    mask = [Entry(16, mode >> 3 & 7)] if names else []
    return (user, *users, group, *groups, *mask, other)


@given(modes, named, ids, ids)
def test_refusing_one_changes_nothing_for_others(
    mode: int, names: dict[tuple[int, int], int], uid: int, other: int
) -> None:
    before = _list(mode, names)
    after = acl.denied(before, uid)
    assert acl.permissions_of(after, uid) == 0
    assert acl.denied(after, uid) == after
    owner = Permissions(99, 98, mode, before), Permissions(99, 98, mode, after)
    for wanted in (READ, WRITE, EXECUTE):
        assert not owner[1].allow(uid, [1, 98], wanted)
        if other != uid:
            assert len({p.allow(other, [1, 98], wanted) for p in owner}) == 1
            assert len({p.allow(other, [7], wanted) for p in owner}) == 1
    # the bits of the mode are the owner's, the mask, and the others'
    assert {e.permissions for e in after if e.tag == 16} == {mode >> 3 & 7}


@given(modes, named, ids)
def test_readmitting_puts_back_the_same_bytes(
    mode: int, names: dict[tuple[int, int], int], uid: int
) -> None:
    before = _list(mode, names)
    after = acl.denied(before, uid)
    back = acl.readmitted(after, uid, acl.permissions_of(before, uid))
    if names:
        assert acl.encode(back) == acl.encode(before)
    else:
        assert not acl.names_somebody(back)
        assert tuple(e for e in back if e.tag != 16) == before


@pytest.mark.parametrize(
    ("uid", "groups", "wanted", "expected"),
    [
        (10, [], READ, True),  # the owner
        (10, [50], EXECUTE, False),
        (1000, [], READ | WRITE | EXECUTE, True),  # named
        (1001, [20], READ, True),  # the owning group
        (1001, [20], WRITE, False),
        (1001, [50], READ, True),  # a named group
        (1001, [50, 20], WRITE, False),
        (1001, [77], READ, False),  # others
    ],
)
def test_who_may_what(uid: int, groups: list[int], wanted: int, expected: bool) -> None:
    assert Permissions(10, 20, 0o100670, LIST).allow(uid, groups, wanted) is expected


def test_the_mask_takes_away() -> None:
    masked = tuple(Entry(e.tag, 4 if e.tag == 16 else e.permissions, e.id) for e in LIST)
    permissions = Permissions(10, 20, 0o100640, masked)
    assert permissions.allow(1000, [], READ)
    assert not permissions.allow(1000, [], WRITE)
    assert permissions.allow(10, [], WRITE)


def test_files_and_the_way_to_them(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "file"
    inner.parent.mkdir(mode=0o700)
    inner.touch(mode=0o644)
    found = acl.permissions(inner)
    assert found is not None
    assert (found.owner, found.mode) == (os.geteuid(), 0o100644)
    assert acl.permissions(tmp_path / "missing") is None
    assert acl.permissions(inner / "below") is None
    assert list(acl.way_to(Path("/a/b/c"))) == [Path("/"), Path("/a"), Path("/a/b")]

    open_to_all = Permissions(0, 0, 0o40755, acl.minimal(0o755))
    ways = {Path("/"): open_to_all, Path("/a"): open_to_all, Path("/a/b"): open_to_all}
    assert acl.may_reach(5, [5], Path("/a/b"), READ, ways.get)
    assert not acl.may_reach(5, [5], Path("/a/b"), WRITE, ways.get)
    assert not acl.may_reach(5, [5], Path("/a/c"), READ, ways.get)
    ways[Path("/a")] = Permissions(0, 0, 0o40700, acl.minimal(0o700))
    assert not acl.may_reach(5, [5], Path("/a/b"), READ, ways.get)
    assert acl.may_reach(0, [0], Path("/a/b"), READ, ways.get)
