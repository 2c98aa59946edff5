"""A command of onionward's own that a key has asked for, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from onionward import background
from onionward.printable import printable


class Act:
    """One at work; readable when it has ended.

    Args:
        arguments: of `onionward`.

    """

    def __init__(self, *arguments: str) -> None:
        self._said, writer = os.pipe2(os.O_CLOEXEC)
        # it finishes what it has begun, whatever becomes of the screen
        self._running = subprocess.Popen(
            background.command("onionward.watch.act", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(writer)
        self._heard = b""

    def fileno(self) -> int:
        """What to wait on."""
        return self._said

    def read(self) -> str | None:
        """What it has said in the end, in one line; None while it is at work."""
        part = os.read(self._said, 4096)
        self._heard += part
        if part:
            return None
        os.close(self._said)
        self._running.wait()
        lines = [line.strip() for line in self._heard.decode(errors="replace").splitlines()]
        # after an error's words comes what to do
        return printable("; ".join(line for line in lines if line)) or "done"


def main(arguments: Sequence[str]) -> None:
    """Do as the command line would."""
    from onionward.__main__ import main as command_line

    sys.argv = ["onionward", *arguments]
    command_line()
