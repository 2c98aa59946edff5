"""What the machine calls a user id."""

from __future__ import annotations

import pwd
from pathlib import Path

_SUBUID = Path("/etc/subuid")


def account(uid: int, subuid: Path = _SUBUID) -> str:
    """The account's name; for a subordinate id (subuid(5)) "ID of NAME"; else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return _of_container(uid, subuid) or f"account {uid}"


def _of_container(uid: int, subuid: Path) -> str:
    try:
        lines = subuid.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, numbers = line.partition(":")
        first, _, length = numbers.partition(":")
        if first.isdecimal() and length.isdecimal() and 0 <= uid - int(first) < int(length):
            return f"{uid} of {name}"
    return ""
