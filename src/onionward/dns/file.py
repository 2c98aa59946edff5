"""A plain resolv.conf: replaced by a file of our own, and put back as it was.

The original gets a second name beside it and the new file is renamed over the first, so there is
no instant without a resolver, and what returns is the original itself: content, link target, mode,
owner, times and extended attributes. A file that cannot be renamed (a bind mount, as in
containers) is overwritten in place instead and its content kept in the journal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import NotRequired, TypedDict

from onionward.errors import ResolverError
from onionward.system import System, temporary_name

_MOUNTS = Path("/proc/self/mountinfo")
_STATUS = Path("/proc/self/status")
_CAP_LINUX_IMMUTABLE = 9


class Saved(TypedDict):
    """How to put resolv.conf back; JSON in the journal.

    Attributes:
        kind: "absent", "renamed" (the original waits under another name) or "content".
        content: the original text of a file that is overwritten in place.
        immutable: whether chattr's flag was set.
        append_only: whether the other one was that keeps a file from being renamed.
        times: access and modification times in nanoseconds of an overwritten file.
        ours: the text that was put there.

    """

    kind: str
    content: str
    immutable: bool
    times: list[int]
    ours: str
    append_only: NotRequired[bool]


def waiting_name(path: Path) -> Path:
    """The second name of the original."""
    return path.with_name(f".{path.name}.before-onionward")


def survey(system: System, path: Path, ours: str) -> Saved:
    """What is there now, before anything changes.

    Raises:
        ResolverError: it is neither a file nor a link, and has no second name.

    """
    _refuse_unusable(path)
    saved = Saved(kind="absent", content="", immutable=False, times=[0, 0], ours=ours)
    if path.is_symlink():
        saved["kind"] = "renamed"
    elif path.exists():
        status = path.stat()
        saved["immutable"] = stat.S_ISREG(status.st_mode) and system.is_immutable(path)
        if stat.S_ISREG(status.st_mode) and system.is_append_only(path):
            saved["append_only"] = True
        saved["kind"] = "content" if is_mounted(path) else "renamed"
        if saved["kind"] == "content":
            saved["content"] = _read(path)
            saved["times"] = [status.st_atime_ns, status.st_mtime_ns]
    return saved


def unusable(path: Path) -> tuple[str, ...]:
    """Why what is there cannot be replaced by a file, if so."""
    if path.is_symlink() or path.is_file() or not path.exists():
        return ()
    return (f"{path} is neither a file nor a link; put it right first",)


def _refuse_unusable(path: Path) -> None:
    if words := unusable(path):
        raise ResolverError(words[0])


def fixed(system: System, path: Path) -> str:
    """Why nothing can take the place of what is there, in words, or ""."""
    directory = path.parent
    if is_mounted(path):
        if _refusal(path):
            return f"it is a mount, and {_refusal(path)}"
        if system.is_immutable(path) and not _may_clear_flags():
            return "it is an immutable mount, which this machine may not change"
        return ""
    if refusal := _refusal(directory):
        return f"{directory}: {refusal}"
    if system.is_immutable(directory):
        return f"{directory} is immutable (chattr +i)"
    regular = path.is_file() and not path.is_symlink()
    if regular and system.is_immutable(path) and not _may_clear_flags():
        return "it is immutable (chattr +i), which this machine may not change"
    return ""


def _refusal(path: Path) -> str:
    """Why root cannot write there, or ""."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "its file system is read-only"
    return ""


def _may_clear_flags() -> bool:
    """Whether this process has CAP_LINUX_IMMUTABLE (proc_pid_status(5))."""
    lines = _STATUS.read_text().splitlines()
    held = next(line for line in lines if line.startswith("CapEff:"))
    return bool(int(held.split()[1], 16) >> _CAP_LINUX_IMMUTABLE & 1)


def recognise(path: Path, ours: str) -> Saved | None:
    """What must have been done here, by what is left of it; None when there is no trace."""
    waiting = waiting_name(path)
    saved = Saved(kind="renamed", content="", immutable=False, times=[0, 0], ours=ours)
    # what is mounted over our file says something else
    if is_mounted(path) and is_ours(path, saved) and waiting.is_file():
        moment = waiting.stat().st_mtime_ns
        return {**saved, "kind": "content", "content": _read(waiting), "times": [moment, moment]}
    return saved if _present(waiting) or is_ours(path, saved) else None


def lost_original(path: Path, ours: str) -> str:
    """What to say when ours is there and nothing is known of what was there before; else ""."""
    saved = recognise(path, ours)
    if saved is None or saved["kind"] != "renamed" or _present(waiting_name(path)):
        return ""
    return f"{path} still points to Tor, and its original is gone: write a new one by hand"


def is_covered(path: Path, saved: Saved) -> bool:
    """Whether something has been mounted over our file since: it and the original are below."""
    return saved["kind"] != "content" and is_mounted(path)


def is_mounted(path: Path) -> bool:
    """Whether the file is a mount of its own."""
    # os.path.ismount compares devices: the same for a mount from within one file system, and
    # different for every file of an overlay
    place = os.fsencode(path.parent.resolve() / path.name).replace(b" ", b"\\040")
    points = (line.split()[4] for line in _MOUNTS.read_bytes().splitlines())
    return place in points


def replace(system: System, path: Path, saved: Saved) -> None:
    """Put our file in place of the surveyed one."""
    _unlock(system, path)
    waiting = waiting_name(path)
    if saved["kind"] == "content":
        # the journal has it too; this one is for the day when the journal is damaged
        with contextlib.suppress(OSError):
            system.write_file(waiting, saved["content"])
        _overwrite(system, path, saved["ours"])
    else:
        _take_its_place(system, path, waiting, saved)
    if saved["immutable"]:
        # nobody was to change it, and nobody is to change ours
        system.set_immutable(path, immutable=True)


def _unlock(system: System, path: Path) -> None:
    if not path.is_file() or path.is_symlink():
        return
    if system.is_immutable(path):
        system.set_immutable(path, immutable=False)
    if system.is_append_only(path):
        system.set_append_only(path, append_only=False)


def _take_its_place(system: System, path: Path, waiting: Path, saved: Saved) -> None:
    if saved["kind"] == "renamed" and not (_present(waiting) and is_ours(path, saved)):
        system.remove_file(waiting)
        system.hard_link(path, waiting)
    system.write_file(path, saved["ours"])


def is_ours(path: Path, saved: Saved) -> bool:
    """Whether what is there now is what was put there, if only in part when that was cut short."""
    if path.is_symlink() or not path.is_file():
        return False
    return _read(path) in (saved["ours"], _begun(saved["ours"], saved["content"]))


def is_original(path: Path, saved: Saved) -> bool:
    """Whether what was there at first is there now: not replaced yet, or restored already."""
    match saved["kind"]:
        case "absent":
            return not _present(path)
        case "content":
            return path.is_file() and _read(path) == saved["content"]
        case _:
            waiting = waiting_name(path)
            return not _present(waiting) or _same_file(waiting, path)


def restore(system: System, path: Path, saved: Saved) -> str:
    """Put the original back, unless somebody else has written the file since.

    Works from every point at which `replace` can have been interrupted, and twice.

    Returns:
        What was left alone and why, or "".

    Raises:
        ResolverError: something that is neither a file nor a link has taken its place, or has
            been mounted over it.

    """
    _refuse_unusable(path)
    if is_covered(path, saved):
        raise ResolverError(
            f"something has been mounted over {path}, and the original waits below: umount {path}"
        )
    waiting = waiting_name(path)
    note = ""
    immutable = saved["immutable"]
    if is_ours(path, saved):
        # without a journal it is ours that tells
        immutable = immutable or system.is_immutable(path)
        _unlock(system, path)
    system.remove_file(temporary_name(path))
    if saved["kind"] == "content":
        note = _restore_content(system, path, saved)
        system.remove_file(waiting)
    elif saved["kind"] == "absent":
        # there was none, but a DHCP client has had to say something meanwhile
        if is_ours(path, saved) and _present(waiting):
            system.rename(waiting, path)
        elif is_ours(path, saved):
            system.remove_file(path)
        elif _present(path):
            note = f"{path} was made by somebody else meanwhile and is left as it is"
    elif _present(waiting):
        if _same_file(waiting, path):
            system.remove_file(waiting)
        elif is_ours(path, saved) or not _present(path):
            system.rename(waiting, path)
        else:
            note = f"{path} was changed by somebody else meanwhile and is left as it is"
            system.remove_file(waiting)
    elif is_ours(path, saved):
        note = f"{path} still points to Tor: somebody has removed its original, {waiting}"
    regular = path.is_file() and not path.is_symlink()
    if immutable and not note and regular and not system.is_immutable(path):
        system.set_immutable(path, immutable=True)
    if saved.get("append_only") and not note and regular and not system.is_append_only(path):
        system.set_append_only(path, append_only=True)
    return note


def _restore_content(system: System, path: Path, saved: Saved) -> str:
    now = _read(path)
    half_restored = _begun(saved["content"], saved["ours"])
    if now != saved["content"] and (is_ours(path, saved) or now == half_restored):
        _overwrite(system, path, saved["content"])
    elif now != saved["content"]:
        return f"{path} was changed by somebody else meanwhile and is left as it is"
    os.utime(path, ns=(saved["times"][0], saved["times"][1]))
    return ""


def _begun(new: str, old: str) -> str:
    """A file in which `new` has been written over `old` and the rest not yet cut off."""
    return _decoded(_encoded(new) + _encoded(old)[len(_encoded(new)) :])


def _present(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> str:
    return _decoded(path.read_bytes())


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _overwrite(system: System, path: Path, text: str) -> None:
    system.effect(f"overwrite {path}")
    with path.open("r+", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
        file.truncate()
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
