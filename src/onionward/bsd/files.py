"""Files that are changed and put back.

They return as they were, or, when others have changed them since, without what was added.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from onionward.system import System, temporary_name


class Saved(TypedDict):
    """How to put a file back; JSON in the journal.

    Attributes:
        path: the file.
        before: its text, or None when there was none.
        after: the text that is written.
        mode: permissions before.
        owner: user and group before.
        lines: those that are added, or "" when the file is replaced.
        earlier: texts that were written before this one.

    """

    path: str
    before: str | None
    after: str
    mode: int
    owner: list[int]
    lines: str
    earlier: list[str]


def read(path: Path) -> str | None:
    """A file's text, or None when there is none."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def survey(path: Path, after: str, *, lines: str = "", mode: int = 0o644) -> Saved:
    """What puts the file back, read before it is changed."""
    before = read(path)
    saved = Saved(
        path=str(path),
        before=before,
        after=after,
        mode=mode,
        owner=[0, 0],
        lines=lines,
        earlier=[],
    )
    if before is not None:
        status = path.stat()
        saved["mode"] = status.st_mode & 0o7777
        saved["owner"] = [status.st_uid, status.st_gid]
    return saved


def with_lines(before: str | None, lines: str) -> str:
    """A text with these lines at its end, each once."""
    text = before or ""
    if text and not text.endswith("\n"):
        text += "\n"
    present = set(text.splitlines())
    return text + "".join(f"{line}\n" for line in lines.splitlines() if line not in present)


def without_lines(text: str, lines: str) -> str:
    """A text without these lines."""
    gone = set(lines.splitlines())
    return "".join(line for line in text.splitlines(keepends=True) if line.rstrip("\n") not in gone)


def replaced(saved: Saved, after: str) -> Saved:
    """The same with another text, of which a file may still have the one before."""
    if after == saved["after"]:
        return saved
    earlier = [text for text in (*saved["earlier"], saved["after"]) if text != after]
    return {**saved, "after": after, "earlier": earlier}


def renewed(saved: Saved | None, path: Path, lines: str, *, whole: bool, mode: int) -> Saved:
    """What puts a file back that gets these lines, or becomes them, again perhaps."""
    if saved is None:
        after = lines if whole else with_lines(read(path), lines)
        return survey(path, after, lines="" if whole else lines, mode=mode)
    if whole:
        return replaced(saved, lines)
    added = with_lines(saved["lines"], lines)
    return {**replaced(saved, with_lines(saved["before"], added)), "lines": added}


def write(system: System, saved: Saved) -> None:
    """Put our text there; lines are added to what others have written meanwhile."""
    path = Path(saved["path"])
    if not path.parent.is_dir():
        system.make_directory(path.parent)
    now, after = read(path), saved["after"]
    if saved["lines"] and now not in (None, saved["before"], *saved["earlier"]):
        after = with_lines(now, saved["lines"])
    if now != after:
        system.write_file(path, after, mode=saved["mode"], owner=_owner(saved))


def restore(system: System, saved: Saved) -> str:
    """Put the file back; from every point, and twice.

    Returns:
        What was left alone and why, or "".

    """
    path = Path(saved["path"])
    system.remove_file(temporary_name(path))
    now = read(path)
    if now == saved["before"]:
        return ""
    if now in (saved["after"], *saved["earlier"]):
        if saved["before"] is None:
            system.remove_file(path)
        else:
            system.write_file(path, saved["before"], mode=saved["mode"], owner=_owner(saved))
        return ""
    if now is None:
        return f"{path} was removed by somebody else meanwhile and is left as it is"
    if not saved["lines"]:
        return f"{path} was changed by somebody else meanwhile and is left as it is"
    added = set(saved["lines"].splitlines()) - set((saved["before"] or "").splitlines())
    rest = without_lines(now, "\n".join(added))
    if rest != now:
        system.write_file(path, rest, mode=saved["mode"], owner=_owner(saved))
    return ""


def _owner(saved: Saved) -> tuple[int, int]:
    return saved["owner"][0], saved["owner"][1]


def is_in_place(saved: Saved) -> bool:
    """Whether what was written is there still; other lines may have been added."""
    now = read(Path(saved["path"])) or ""
    if saved["lines"]:
        return set(saved["lines"].splitlines()) <= set(now.splitlines())
    return now == saved["after"]
