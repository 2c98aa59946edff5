"""Forbids user namespaces to a program, and becomes it.

    app_rootless_forbidder.py HOW UID COMMAND…

HOW is a setting, as `user.max_user_namespaces`, which is 0 then in a user namespace of this
program's own (namespaces(7)), or `filter`, a filter of system calls as container engines have one.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_UNSHARE = {"x86_64": 272, "aarch64": 97, "riscv64": 97}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_by_setting(setting: str) -> None:
    """In a user namespace of our own; every account keeps its number there."""
    ready, go = os.pipe(), os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        os.read(ready[0], 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{parent}/{name}").write_text("0 0 65536")
        os.write(go[1], b"x")
        os._exit(0)
    if _libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os.wait()
    Path(f"/proc/sys/{setting.replace('.', '/')}").write_text("0")


def forbid_by_filter() -> None:
    """EPERM from unshare(2)."""
    code = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (0x20, 0, 0, 0),  # the number of the call
            (0x15, 0, 1, _UNSHARE[os.uname().machine]),
            (0x06, 0, 0, 0x00050001),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, program)):
        if _libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    """Forbid, become the account, execute."""
    how, uid, *command = sys.argv[1:]
    if how == "filter":
        forbid_by_filter()
    else:
        forbid_by_setting(how)
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.execvp(command[0], command)  # noqa: S606


main()
