"""The child that does what takes more than loading rules (`onionward.guard.mend`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from onionward import background
from onionward.guard.events import Process
from onionward.paths import Paths
from onionward.system import DIES_WITH_US

_MOST_LINES = 10  # of what it says


class Child(Process):
    """A child at work; an event when it has ended.

    Args:
        paths: where things are.
        options: of `onionward.guard.mend`.

    Raises:
        OSError: no process or descriptor is to be had; there is no child then.

    """

    def __init__(self, paths: Paths, options: Sequence[str]) -> None:
        # a pipe that nobody reads would stop it
        self._said = os.memfd_create("said")
        places = map(str, (paths.state, paths.runtime, paths.resolv_conf))
        try:
            self._running = subprocess.Popen(
                # what the guard has begun does not go on without it
                [*DIES_WITH_US, *background.command("onionward.guard.mend", *places, *options)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
            )
        except OSError:
            os.close(self._said)
            raise
        try:
            super().__init__(self._running.pid, "")
        except OSError:
            # nobody would hear of its end
            self._running.kill()
            self._running.wait()
            os.close(self._said)
            raise

    def kill(self) -> None:
        """End it in the midst of its work; the journal knows how far it was."""
        self._running.kill()

    def outcome(self) -> tuple[bool, tuple[str, ...]]:
        """Whether it succeeded, and what it said; to be asked once, when it has ended."""
        succeeded = self._running.wait() == 0
        with os.fdopen(self._said, "r", errors="replace") as said:
            said.seek(0)
            lines = said.read().splitlines()
        self.close()
        return succeeded, tuple(lines[-_MOST_LINES:])
