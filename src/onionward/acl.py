"""POSIX access control lists as values, and the kernel's encoding of them (acl(5), xattr(7)).

The lists are read and written as the extended attribute that setfacl(1) uses, so that what returns
later is the same to the byte, and no program is needed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ATTRIBUTE = "system.posix_acl_access"
READ, WRITE, EXECUTE = 4, 2, 1

# linux/posix_acl_xattr.h: a version, then (tag, permissions, id), all little-endian
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list.

    Attributes:
        tag: what kind it is (linux/posix_acl.h).
        permissions: READ, WRITE, EXECUTE, added up.
        id: of the user or group, for entries that name one.

    """

    tag: int
    permissions: int
    id: int = _NOBODY


Entries = tuple[Entry, ...]


def decode(raw: bytes) -> Entries:
    """The entries of an attribute.

    Raises:
        ValueError: it is none.

    """
    if len(raw) < _HEADER.size or _HEADER.unpack_from(raw)[0] != _VERSION:
        raise ValueError(f"not an access control list: {raw[:8].hex()}")
    if (len(raw) - _HEADER.size) % _ENTRY.size:
        raise ValueError("an access control list that breaks off")
    return tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(raw[_HEADER.size :]))


def encode(entries: Entries) -> bytes:
    """The attribute of a list."""
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(entry.tag, entry.permissions, entry.id) for entry in entries
    )


def minimal(mode: int) -> Entries:
    """The list that permission bits alone amount to."""
    return (
        Entry(_USER_OBJ, mode >> 6 & 7),
        Entry(_GROUP_OBJ, mode >> 3 & 7),
        Entry(_OTHER, mode & 7),
    )


def permissions_of(entries: Entries, uid: int) -> int | None:
    """What a list says of a user by id, or None."""
    return next((e.permissions for e in entries if e.tag == _USER and e.id == uid), None)


def denied(entries: Entries, uid: int) -> Entries:
    """The list with an entry that refuses a user everything; nothing changes for anybody else."""
    if permissions_of(entries, uid) is not None:
        return _with(entries, uid, 0)
    found = list(entries)
    users = [i for i, entry in enumerate(found) if entry.tag in (_USER_OBJ, _USER)]
    found.insert(users[-1] + 1, Entry(_USER, 0, uid))
    if not any(entry.tag == _MASK for entry in found):
        # a list that names somebody needs a mask; this one takes nothing away
        group = next(entry.permissions for entry in found if entry.tag == _GROUP_OBJ)
        found.insert(len(found) - 1, Entry(_MASK, group))
    return tuple(found)


def readmitted(entries: Entries, uid: int, before: int | None) -> Entries:
    """The list with the user's own entry as it was before `denied`; None: without one."""
    if before is not None:
        return _with(entries, uid, before)
    return tuple(entry for entry in entries if (entry.tag, entry.id) != (_USER, uid))


def _with(entries: Entries, uid: int, permissions: int) -> Entries:
    return tuple(
        replace(e, permissions=permissions) if (e.tag, e.id) == (_USER, uid) else e for e in entries
    )


def names_somebody(entries: Entries) -> bool:
    """Whether a list says more than permission bits could."""
    return any(entry.tag in (_USER, _GROUP) for entry in entries)


def read(path: Path) -> Entries | None:
    """The access control list of a file, or None when it has none.

    Raises:
        OSError: there is no such file; or with ENOTSUP, its file system has no such lists.

    """
    try:
        return decode(os.getxattr(path, ATTRIBUTE, follow_symlinks=False))
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who may do what with a file.

    Attributes:
        owner: its user id.
        group: its group id.
        mode: its type and permission bits, as of stat(2).
        entries: its access control list; without one, what the mode says.

    """

    owner: int
    group: int
    mode: int
    entries: Entries

    def allow(self, uid: int, groups: Iterable[int], wanted: int) -> bool:
        """Whether a process of these ids, without privileges, may (acl(5), ACCESS CHECK)."""
        mask = next((e.permissions for e in self.entries if e.tag == _MASK), 7)
        belongs = set(groups)
        in_groups = []
        for entry in self.entries:
            granted = entry.permissions & mask & wanted == wanted
            if entry.tag == _USER_OBJ and uid == self.owner:
                return entry.permissions & wanted == wanted
            if entry.tag == _USER and uid == entry.id:
                return granted
            if (entry.tag == _GROUP_OBJ and self.group in belongs) or (
                entry.tag == _GROUP and entry.id in belongs
            ):
                in_groups.append(granted)
        if in_groups:
            return any(in_groups)
        return any(e.tag == _OTHER and e.permissions & wanted == wanted for e in self.entries)


def permissions(path: Path) -> Permissions | None:
    """The permissions of a path, of a link itself; None when it does not exist."""
    try:
        status = path.lstat()
        try:
            entries = read(path)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            entries = None
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = status.st_mode
    return Permissions(
        status.st_uid,
        status.st_gid,
        mode,
        minimal(stat.S_IMODE(mode)) if entries is None else entries,
    )


def way_to(path: Path) -> Iterator[Path]:
    """The directories that must be searched to reach a path, the highest first."""
    yield from reversed(path.parents)


def may_reach(
    uid: int,
    groups: Iterable[int],
    path: Path,
    wanted: int,
    look: Callable[[Path], Permissions | None] = permissions,
) -> bool:
    """Whether an account may search every directory above a path, and use it as `wanted`.

    Args:
        uid: of the account.
        groups: ids of all its groups.
        path: absolute, without symbolic links.
        wanted: READ, WRITE, EXECUTE, added up.
        look: reads the permissions of a path.

    """
    belongs = frozenset(groups)
    needs = [*((place, EXECUTE) for place in way_to(path)), (path, wanted)]
    return all(
        (found := look(place)) is not None and found.allow(uid, belongs, needed)
        for place, needed in needs
    )
