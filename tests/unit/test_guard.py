"""The fixture that keeps unit tests off the machine."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from subprocess import Popen
from typing import Any

import pytest

from onionward.system import System
from tests.unit.conftest import ReachedTheMachineError


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: Popen(["true"]),
        lambda: os.system("true"),  # noqa: S605
        lambda: os.popen("true"),  # noqa: S605
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.posix_spawnp("true", ["true"], {}),
        lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),  # noqa: S606
        lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        lambda: os.execvpe("true", ["true"], {}),  # noqa: S606
        lambda: os.fork(),
        lambda: os.forkpty(),
        lambda: os.kill(os.getpid(), 0),
        lambda: socket.socket(),
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.1),
        lambda: System().query(["true"]),
        lambda: System().change(["true"]),
    ],
)
def test_no_way_to_the_machine(attempt: Callable[[], Any]) -> None:
    with pytest.raises(ReachedTheMachineError):
        attempt()


def test_a_local_socket_is_allowed() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        assert other.recv(1) == b"x"
