"""A file of ours that a manager reads; none of this name was there before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from onionward.errors import ResolverError
from onionward.system import System, temporary_name

MARK = "# Written by onionward"
"""How every file of ours begins."""


class DropIn(TypedDict):
    """How to take it away; JSON in the journal.

    Attributes:
        path: of the file.
        ours: its text.
        made: directories that were not there before, the innermost first.

    """

    path: str
    ours: str
    made: list[str]


def survey(path: Path, ours: str) -> DropIn:
    """What is there now, before anything changes.

    Raises:
        ResolverError: a file of somebody else has the name.

    """
    if path.is_symlink() or (path.exists() and not _text(path).startswith(MARK)):
        raise ResolverError(f"{path} is not onionward's", "give it another name")
    return DropIn(path=str(path), ours=ours, made=[str(p) for p in path.parents if not p.exists()])


def recognise(path: Path) -> DropIn | None:
    """What an earlier `apply` must have done here; None when there is no trace."""
    text = _text(path)
    if not text.startswith(MARK):
        return None
    # an empty one below /run is missed by nobody
    made = [str(path.parent)] if path.is_relative_to("/run") else []
    return DropIn(path=str(path), ours=text, made=made)


def is_there(saved: DropIn) -> bool:
    """Whether it is as it was written."""
    return _text(Path(saved["path"])) == saved["ours"]


def apply(system: System, saved: DropIn) -> bool:
    """Write it; returns whether it was not there yet."""
    if is_there(saved):
        return False
    path = Path(saved["path"])
    if not path.parent.is_dir():
        system.make_directory(path.parent)
    system.write_file(path, saved["ours"])
    return True


def restore(system: System, saved: DropIn) -> str:
    """Take it away with the directories that were made for it; twice, too.

    Returns:
        What was left alone because others have changed it since, or "".

    """
    path = Path(saved["path"])
    system.remove_file(temporary_name(path))
    if _text(path) and not _text(path).startswith(MARK):
        return f"{path} was changed by somebody else meanwhile and is left as it is"
    system.remove_file(path)
    for directory in map(Path, saved["made"]):
        if directory.is_dir() and not any(directory.iterdir()):
            system.remove_tree(directory)
    return ""


def problems(saved: DropIn) -> Iterator[str]:
    """What is no longer as it was written."""
    if not is_there(saved):
        yield f"{saved['path']} was changed or removed"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
