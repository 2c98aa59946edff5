"""Unit tests touch no machine: they cannot run commands, fork, or open sockets to a network."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

_PROCESS_EVENTS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.posix_spawn",
        "os.system",
        "subprocess.Popen",
    }
)
_guard = {"is_on": False}


class ReachedTheMachineError(BaseException):
    """Not an Exception: code under test that catches broadly must not hide it."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Python tells of these before they happen, however they were imported (sys.addaudithook)."""
    if not _guard["is_on"]:
        return
    if event in _PROCESS_EVENTS:
        raise ReachedTheMachineError(f"a unit test tried {event}{arguments[:2]!r}")
    if event == "socket.__new__" and arguments[1] not in (-1, socket.AF_UNIX):
        raise ReachedTheMachineError(f"a unit test tried to open a socket of {arguments[1]!r}")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _no_machine() -> Iterator[None]:
    _guard["is_on"] = True
    try:
        yield
    finally:
        _guard["is_on"] = False
