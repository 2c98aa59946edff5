"""Why a kernel forbids user namespaces to accounts, and what to change; pure but for `read`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from onionward.errors import StepError

_CLONE = "kernel.unprivileged_userns_clone"
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_MOST_USER, _MOST_NET = "user.max_user_namespaces", "user.max_net_namespaces"
_MOST_IPC = "user.max_ipc_namespaces"
_PERSISTENT = "to keep it, write that line into /etc/sysctl.d/99-onionward.conf"


class Finding(NamedTuple):
    """What stands in the way.

    Attributes:
        words: which setting it is.
        hint: how to change it.

    """

    words: str
    hint: str


def read(setting: str) -> int | None:
    """A kernel setting of the user namespace we are in (sysctl(8)); None where there is none."""
    try:
        with open(f"/proc/sys/{setting.replace('.', '/')}") as file:  # noqa: PTH123
            return int(file.read())
    except (OSError, ValueError):
        return None


def explain(number: int, setting: Callable[[str], int | None]) -> Finding:
    """What forbids it.

    Args:
        number: the error of unshare(2), or of writing the map afterwards.
        setting: reads a kernel setting.

    """
    if setting(_CLONE) == 0:
        return _sysctl(_CLONE, 0, 1)
    for limit in (_MOST_USER, _MOST_NET, _MOST_IPC):
        if setting(limit) == 0:
            return _sysctl(limit, 0, 15000)
    if number == errno.ENOSPC:
        return Finding(
            f"this account has as many namespaces as {_MOST_USER} or {_MOST_NET} allow, or they "
            "are nested 32 deep",
            f"raise it, as root: sysctl -w {_MOST_USER}=100000 {_MOST_NET}=100000; {_PERSISTENT}",
        )
    if setting(_APPARMOR) == 1:
        return Finding(
            f"{_APPARMOR} = 1",
            f"as root: sysctl -w {_APPARMOR}=0; {_PERSISTENT}. Or allow this program alone: "
            "a profile in /etc/apparmor.d with `userns,` for it (docs/security.md has one)",
        )
    if number in (errno.EINVAL, errno.ENOSYS):
        return Finding(
            "this kernel has no user or network namespaces (CONFIG_USER_NS, CONFIG_NET_NS)",
            "run it as root: sudo onionward run",
        )
    return Finding(
        "no setting of the kernel says so, so it is a filter of system calls, a security module, "
        "or a chroot: inside a container that is usual",
        "start the container with user namespaces allowed (with Docker or Podman: a seccomp "
        "profile that lets unshare and mount pass), or run it as root: sudo onionward run",
    )


def _sysctl(name: str, value: int, better: int) -> Finding:
    return Finding(f"{name} = {value}", f"as root: sysctl -w {name}={better}; {_PERSISTENT}")


def refusal(error: OSError) -> StepError:
    """The error to raise."""
    number = error.errno or 0
    found = explain(number, read)
    return StepError(
        f"user namespaces are forbidden to this account ({os.strerror(number)}): {found.words}; "
        "nothing was started or changed",
        f"{found.hint}; or run it as root: sudo onionward run"
        if "sudo" not in found.hint
        else found.hint,
    )
