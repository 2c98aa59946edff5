"""A terminal as a program in a machine of the lab sees it: typed on, resized, and read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import Any

from tests.lab.lifecycle_machine import Machine

_PATIENCE = 60.0
_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Terminal:
    """As much of a terminal as the screen needs (console_codes(4)).

    Args:
        machine: where the program runs.
        argv: its command line.
        columns: of the terminal.
        lines: of it.

    """

    def __init__(self, machine: Machine, *argv: str, columns: int = 80, lines: int = 24) -> None:
        self._master, self._slave = pty.openpty()
        self._size(columns, lines)
        self.modes = termios.tcgetattr(self._slave)
        self._rest = ""
        self.on_other_screen = False
        self.has_cursor = True
        words = ["env", "TERM=xterm", "LANG=C.UTF-8", "--unset=NO_COLOR", *argv]
        self.process = subprocess.Popen(
            machine.host.command(words),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            preexec_fn=self._control,
        )

    def _control(self) -> None:
        os.setsid()
        fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)

    def _size(self, columns: int, lines: int) -> None:
        self._columns, self._lines = columns, lines
        self._grid = [[" "] * columns for _ in range(lines)]
        self._row = self._column = 0
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Make it another size; the kernel tells the program (SIGWINCH)."""
        self._size(columns, lines)

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def shown(self) -> list[str]:
        """What is there now, line by line."""
        while self._read(0.0):
            pass
        return ["".join(row).rstrip() for row in self._grid]

    def until(self, pattern: str) -> str:
        """Wait until a line looks like this; returns it."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            lines = self.shown()
            found = next((line for line in lines if re.search(pattern, line)), None)
            if found is not None:
                return found
            assert time.monotonic() < deadline, f"never: {pattern}\n" + "\n".join(lines)
            assert self.process.poll() is None, "it has ended\n" + "\n".join(lines)
            self._read(0.2)

    def end(self) -> int:
        """Wait until the program has ended; returns its status."""
        deadline = time.monotonic() + _PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._read(0.1)
        self.shown()
        return self.process.wait()

    def modes_now(self) -> list[Any]:
        """What the program has left (termios(3))."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """Take it away."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, patience: float) -> bool:
        if not select.select([self._master], [], [], patience)[0]:
            return False
        self._rest += os.read(self._master, 1 << 16).decode(errors="replace")
        while self._rest and self._step():
            pass
        return True

    def _step(self) -> bool:
        """Take one character or sequence; False while it is not whole."""
        if self._rest[0] != "\x1b":
            self._put(self._rest[0])
            self._rest = self._rest[1:]
            return True
        found = _SEQUENCE.match(self._rest)
        if found is None:
            return False
        self._rest = self._rest[found.end() :]
        match found[2], found[1]:
            case "H", place:
                self._row, self._column = (int(n) - 1 for n in (place or "1;1").split(";"))
            case "J", _:
                self._grid = [[" "] * self._columns for _ in range(self._lines)]
            case "K", _:
                if self._row < self._lines:
                    self._grid[self._row][self._column :] = [" "] * (self._columns - self._column)
            case "h" | "l" as way, "?1049":
                self.on_other_screen = way == "h"
            case "h" | "l" as way, "?25":
                self.has_cursor = way == "h"
        return True

    def _put(self, character: str) -> None:
        if character == "\n":
            self._row += 1
        elif character == "\r":
            self._column = 0
        elif self._row < self._lines and self._column < self._columns:
            self._grid[self._row][self._column] = character
            self._column += 1
