"""Carries out a plan of mounts, in the first process of a run's namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from onionward.app import kernel
from onionward.app.mounts import COVER, OWN, Cover, Directory, Hide, Keep, Own, Proc, Step, Sys

# a path that does not lead anywhere is no way to a socket either
_NOBODY_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
_PLAIN = kernel.MS_NOSUID | kernel.MS_NODEV


def carry_out(steps: Sequence[Step], owner: tuple[int, int]) -> None:
    """Make the mounts in a mount namespace of this process's own.

    Args:
        steps: of `mounts.plan`.
        owner: user and group of what belongs to the run's account.

    Raises:
        OSError: one failed.

    """
    kernel.unshare(kernel.CLONE_NEWNS)
    # nothing from here is seen outside, and nothing from outside from here on
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    # what is kept must be held before its directory is hidden
    held = {s.path: os.open(s.path, os.O_PATH) for s in steps if isinstance(s, Keep)}
    for step in steps:
        _take(step, owner, held)
    for descriptor in held.values():
        os.close(descriptor)


def _take(step: Step, owner: tuple[int, int], held: dict[str, int]) -> None:
    match step:
        case Hide():
            kernel.mount("tmpfs", step.path, "tmpfs", _PLAIN, f"mode={step.mode:o}")
            if step.path == "/run":
                _cover_file()
        case Directory():
            os.makedirs(step.path, exist_ok=True)  # noqa: PTH103
            os.chmod(step.path, step.mode)  # noqa: PTH101
            if step.owned:
                os.chown(step.path, *owner)
        case Keep():
            _make_place(step.path, is_directory=_is_directory(held[step.path]))
            _bind(f"/proc/self/fd/{held[step.path]}", step.path)
        case Own():
            source = f"{OWN}/{step.name}"
            _write(source, step.text, 0o644)
            if not os.path.lexists(step.path):
                _make_place(step.path, is_directory=False)
            _bind(source, step.path)
        case Cover():
            try:
                _bind(COVER, step.path)
            except OSError as error:
                if error.errno not in _NOBODY_THERE:
                    raise
        case Sys():
            flags = _PLAIN | kernel.MS_NOEXEC | kernel.MS_RDONLY
            kernel.mount("sysfs", "/sys", "sysfs", flags)
        case Proc():
            kernel.mount("proc", "/proc", "proc", _PLAIN | kernel.MS_NOEXEC)
            if step.sealed:
                for place in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"):
                    _seal(place)


def _seal(place: str) -> None:
    if os.path.exists(place):  # noqa: PTH110
        _bind(place, place)
        flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | _PLAIN | kernel.MS_NOEXEC
        kernel.mount("none", place, None, flags)


def _bind(source: str, target: str) -> None:
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _cover_file() -> None:
    os.makedirs(OWN, exist_ok=True)  # noqa: PTH103
    _write(COVER, "", 0o000)


def _write(path: str, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)


def _is_directory(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112


def _make_place(path: str, *, is_directory: bool) -> None:
    """Something to mount on, in a directory that was hidden."""
    os.makedirs(path if is_directory else os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    if not is_directory:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
