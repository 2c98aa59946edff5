"""A filter of system calls against what namespaces do not reach (seccomp(2)).

    TIOCSTI, TIOCLINUX    typing into the terminal, for the shell outside to execute
    socket                of other families than local ones, IP and netlink: those to a hypervisor
                          (AF_VSOCK) or to other processors know no network namespace
    io_uring_setup        makes sockets without the calls that are filtered here
    request_key           has a program of root's outside look up names for dns_resolver keys

Programs of another architecture that the kernel runs as well make other numbers: theirs are
filtered likewise, as far as numbers say it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from onionward.app import kernel

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_ALG (socket(2))
_FAMILIES = (1, 2, 10, 16, 17, 38)
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
# linux/filter.h, linux/seccomp.h
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # struct seccomp_data, little endian
_X32 = 0x40000000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_IO_URING_SETUP = 425  # everywhere
# linux/audit.h: (architecture, numbers of ioctl, of socket, of request_key) by machine
_CALLS = {
    "x86_64": (
        (0xC000003E, (16, _X32 | 16, _X32 | 514), (41, _X32 | 41), (249, _X32 | 249)),
        (0x40000003, (54,), (359,), (287,)),
    ),
    "aarch64": ((0xC00000B7, (29,), (198,), (218,)), (0x40000028, (54,), (281,), (310,))),
    "riscv64": ((0xC00000F3, (29,), (198,), (218,)),),
}
# what a kernel calls itself to a process of another personality (setarch(8)), or is
_CALLS |= dict.fromkeys(("i386", "i486", "i586", "i686"), _CALLS["x86_64"])
_CALLS |= dict.fromkeys(("armv6l", "armv7l", "armv8l"), _CALLS["aarch64"])


def program(machine: str) -> bytes:
    """The filter for a machine as uname(2) names it; empty where its numbers are not known."""
    code = b"".join(_of_architecture(*calls) for calls in _CALLS.get(machine, ()))
    return code + _instruction(_RETURN, _ALLOW) if code else b""


def _of_architecture(
    architecture: int, ioctl: tuple[int, ...], sockets: tuple[int, ...], keys: tuple[int, ...]
) -> bytes:
    body = b"".join(_without(n, _SECOND, (_TIOCSTI, _TIOCLINUX), _EPERM) for n in ioctl)
    body += b"".join(_only(n, _FIRST, _FAMILIES, _EAFNOSUPPORT) for n in sockets)
    body += _none_of((*keys, _IO_URING_SETUP, _X32 | _IO_URING_SETUP))
    body += _instruction(_RETURN, _ALLOW)
    head = _instruction(_LOAD, _ARCHITECTURE)
    return head + _instruction(_EQUAL, architecture, 0, len(body) // 8) + body


def _none_of(numbers: tuple[int, ...]) -> bytes:
    refusal = _instruction(_RETURN, _ERROR | _ENOSYS)
    checks = (_instruction(_EQUAL, number, 0, 1) + refusal for number in numbers)
    return _instruction(_LOAD, _NUMBER) + b"".join(checks)


def _only(number: int, place: int, values: tuple[int, ...], error: int) -> bytes:
    """Refuse a call whose argument is none of these values."""
    # to behind the refusal, which is the last
    checks = b"".join(
        _instruction(_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)
    )
    return _of_call(number, place, checks + _instruction(_RETURN, _ERROR | error))


def _without(number: int, place: int, values: tuple[int, ...], error: int) -> bytes:
    """Refuse a call whose argument is one of these values."""
    checks = b"".join(
        # to the refusal behind the last one, or on
        _instruction(_EQUAL, value, len(values) - 1 - index, 1 if index == len(values) - 1 else 0)
        for index, value in enumerate(values)
    )
    return _of_call(number, place, checks + _instruction(_RETURN, _ERROR | error))


def _of_call(number: int, place: int, checks: bytes) -> bytes:
    body = _instruction(_LOAD, place) + checks
    head = _instruction(_LOAD, _NUMBER)
    return head + _instruction(_EQUAL, number, 0, len(body) // 8) + body


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def forbid_ways_out() -> None:
    """Put the filter in force for this process and all that it executes.

    Raises:
        OSError: the kernel refuses it.

    """
    if not (code := program(os.uname().machine)) or sys.byteorder != "little":
        return
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog
    filtering = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    whole = ctypes.create_string_buffer(filtering, len(filtering))
    kernel.control(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(whole))
