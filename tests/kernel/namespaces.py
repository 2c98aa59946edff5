"""Network namespaces without names: each lives as long as its descriptor, at most as the tests."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def create() -> int:
    """A new network namespace, as a descriptor."""

    def unshare() -> int:
        _check(_libc.unshare(_CLONE_NEWNET))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    descriptor = _in_a_thread(unshare)
    assert os.fstat(descriptor).st_ino != Path("/proc/self/ns/net").stat().st_ino
    return descriptor


def inside(namespace: int, action: Callable[[], T]) -> T:
    """The result of `action` in a namespace; sockets that it makes stay there."""

    def enter() -> T:
        _check(_libc.setns(namespace, _CLONE_NEWNET))
        return action()

    return _in_a_thread(enter)


def path(namespace: int) -> str:
    """A path that other programs can open."""
    return f"/proc/{os.getpid()}/fd/{namespace}"


def _in_a_thread(action: Callable[[], T]) -> T:
    # namespaces are a thread's, so ours is never left
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
