"""How `up` and `down` speak: a bar for tor's bootstrap on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from onionward.printable import printable_lines


def say(words: str) -> None:
    """Print a line; where nobody can read it, that is no reason to stop what is being done."""
    try:
        sys.stdout.write(printable_lines(words) + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        silence_stdout()


def silence_stdout() -> None:
    """Send what is still to be printed nowhere, so that it fails no second time."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the end of the program


def with_time(say: Callable[[str], object]) -> Callable[[str], None]:
    """Put the seconds since this call before everything that is said."""
    start = time.monotonic()

    def timed(words: str) -> None:
        say(f"[{time.monotonic() - start:6.2f} s] {words}")

    return timed


class Progress:
    """Prints steps with the time since the start; a context manager, because of the bar.

    Args:
        aside: on standard error, because standard output is somebody else's.

    """

    def __init__(self, *, aside: bool = False) -> None:
        self._aside = aside
        self._start = time.monotonic()
        self.warned = False
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close_bar()

    def step(self, words: str) -> None:
        """Something was done."""
        self._close_bar()
        self._print(f"[{time.monotonic() - self._start:6.2f} s] {words}")

    def warn(self, words: str) -> None:
        """Something that the user should know."""
        self.warned = True
        self._close_bar()
        self._print(f"warning: {words}")

    def bootstrap(self, percent: int, words: str) -> None:
        """How far tor is."""
        if not (sys.stderr if self._aside else sys.stdout).isatty():
            self._print(f"[{time.monotonic() - self._start:6.2f} s] tor {words}")
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            # tor's words hold addresses in brackets, which are no markup
            words_column = TextColumn("{task.description}", markup=False)
            self._bar = Bars(
                TextColumn("tor"), BarColumn(), words_column, console=Console(stderr=self._aside)
            )
            self._task = self._bar.add_task("", total=100)
            self._bar.start()
        self._bar.update(self._task, completed=percent, description=words)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, words: str) -> None:
        if self._aside:
            with contextlib.suppress(OSError):
                os.write(2, f"{printable_lines(words)}\n".encode(errors="replace"))
        else:
            say(words)
