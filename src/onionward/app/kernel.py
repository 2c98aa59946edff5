"""System calls that Python 3.11 has no names for. Constants are those of every Linux."""

from __future__ import annotations

import ctypes
import os

# sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
# linux/prctl.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_PR_SET_DUMPABLE, _PR_CAP_AMBIENT = 4, 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
# linux/capability.h
CAP_NET_ADMIN = 12
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.mount.argtypes = [*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p]


def _checked(result: int, words: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{words}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave namespaces (unshare(2)).

    Raises:
        OSError: refused.

    """
    _checked(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Enter a namespace (setns(2)).

    Args:
        descriptor: of it.
        kind: which one it has to be, as for `unshare`.

    Raises:
        OSError: refused.

    """
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount (mount(2)).

    Raises:
        OSError: refused; with the target's name.

    """
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            None if kind is None else kind.encode(),
            flags,
            data.encode() if data else None,
        ),
        f"mount {target}",
    )


def control(option: int, value: int, address: int = 0) -> None:
    """prctl(2).

    Raises:
        OSError: refused.

    """
    _checked(_libc.prctl(option, value, address, 0, 0), f"prctl({option})")


def die_with_parent(number: int = 9) -> None:
    """Have the kernel send this signal when the parent ends (PR_SET_PDEATHSIG)."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def forbid_privileges() -> None:
    """From now on no program that is executed gains rights by its file (PR_SET_NO_NEW_PRIVS)."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def forbid_dumps() -> None:
    """Let nobody of the same account look into this process (PR_SET_DUMPABLE)."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def drop_bounding_set() -> None:
    """Take all capabilities out of what can be gained (capabilities(7)); needs CAP_SETPCAP."""
    with open("/proc/sys/kernel/cap_last_cap") as file:  # noqa: PTH123  # pathlib takes long
        last = int(file.read())
    for number in range(last + 1):
        _checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Give up all capabilities of this process (capset(2), PR_CAP_AMBIENT_CLEAR_ALL)."""
    _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")


def keep_capability(number: int) -> None:
    """Let programs that are executed have a capability that this process has (PR_CAP_AMBIENT)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable of the lower 32, then of the upper ones
    sets = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(ctypes.byref(header), ctypes.byref(sets)), "capget")
    sets[2] |= 1 << number
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(sets)), "capset")
    control(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def keep_no_capability() -> None:
    """Take back `keep_capability`; this process has them all the same."""
    control(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close every descriptor above 2 but these."""
    first = 3
    for descriptor in sorted({number for number in kept if number > 2}):
        os.closerange(first, descriptor)
        first = descriptor + 1
    limit = os.sysconf("SC_OPEN_MAX")
    os.closerange(first, limit if limit > 0 else 1 << 20)
