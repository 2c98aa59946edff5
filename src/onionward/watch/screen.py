"""The terminal: its modes, its size, what is written on it; put back whatever happens.

console_codes(4), termios(3).
"""

from __future__ import annotations

import contextlib
import io
import os
import termios
import tty
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.text import Text

# another screen, without a cursor; and back
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J", "\x1b[?25h\x1b[?1049l"
_KEYS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b": "escape"}
_KEYS |= {"\r": "enter", "\n": "enter", "k": "up", "j": "down"}
_ASCII = str.maketrans("→↓↑·…", ">v^-~")


class Painter:
    """Styled text → what a terminal takes.

    Args:
        colours: whether it has any; without, what is bold or reversed still is.
        unicode: whether it has more than ASCII.

    """

    def __init__(self, *, colours: bool, unicode: bool = True) -> None:
        self._unicode = unicode
        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            color_system="standard",
            no_color=not colours,
            highlight=False,
            markup=False,
            emoji=False,
            width=1000,
            legacy_windows=False,
        )

    def paint(self, line: Text) -> str:
        """One line, without its end."""
        with self._console.capture() as capture:
            self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        written = capture.get()
        if self._unicode:
            return written
        return written.translate(_ASCII).encode("ascii", "replace").decode()


class Screen:
    """A terminal while it shows the screen; a context manager.

    Args:
        keyboard: descriptor of the terminal to read keys from, or None for none.
        display: descriptor of the terminal to write on.
        painter: how lines are written.

    """

    def __init__(self, keyboard: int | None, display: int, painter: Painter) -> None:
        self._keyboard = keyboard
        self._display = display
        self._painter = painter
        self._modes = None if keyboard is None else termios.tcgetattr(keyboard)
        self._drawn: list[str] = []

    def __enter__(self) -> Screen:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        if self._keyboard is not None:
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._write(_ENTER)
        self._drawn = []

    def leave(self) -> None:
        """Put it back; a terminal that is gone needs nothing."""
        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        if self._keyboard is not None and self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        found = os.get_terminal_size(self._display)
        # a serial line knows none (tty_ioctl(4))
        return (found.columns or 80, found.lines or 24)

    def draw(self, lines: Sequence[Text]) -> None:
        """Write the lines that differ from what is there."""
        painted = [self._painter.paint(line) for line in lines]
        text = "" if len(painted) == len(self._drawn) else "\x1b[2J"
        before = self._drawn if not text else [""] * len(painted)
        for row, (line, known) in enumerate(zip(painted, before, strict=True), 1):
            if line != known:
                text += f"\x1b[{row};1H{line}\x1b[K"
        self._drawn = painted
        if text:
            self._write(text)

    def forget(self) -> None:
        """Draw everything the next time: the size was changed."""
        self._drawn = []

    def read(self) -> tuple[str, ...]:
        """What was typed, by name; "gone" when the terminal is."""
        if self._keyboard is None:
            return ()
        try:
            typed = os.read(self._keyboard, 64).decode(errors="replace")
        except OSError:
            return ("gone",)
        return named(typed) if typed else ("gone",)

    def _write(self, text: str) -> None:
        left = text.encode()
        while left:
            left = left[os.write(self._display, left) :]


def named(typed: str) -> tuple[str, ...]:
    """Keys by name; what a terminal sends for one that is not known is left out."""
    found = []
    while typed:
        whole = next((typed[:n] for n in (3, 1) if typed[:n] in _KEYS), typed[0])
        if whole == "\x1b" and len(typed) > 2 and typed[1] in "[O":
            # another key's sequence (ECMA-48, 5.4)
            end = next((n for n, c in enumerate(typed[2:], 2) if "@" <= c <= "~"), len(typed) - 1)
            typed = typed[end + 1 :]
            continue
        found.append(_KEYS.get(whole, whole))
        typed = typed[len(whole) :]
    return tuple(found)
