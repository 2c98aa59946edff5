"""Attempts as a source of events for the guard: heard, attributed, added up."""

from __future__ import annotations

from collections.abc import Callable

from onionward.attempts.listener import Listener
from onionward.attempts.owners import Owners
from onionward.attempts.record import Record
from onionward.paths import Paths
from onionward.system import System


class Attempts:
    """What is stopped while the guard lives.

    Args:
        system: the seam.
        paths: where it is written.
        complain: told of what goes wrong.

    Raises:
        OSError: the kernel tells nobody, or another program.

    """

    def __init__(self, system: System, paths: Paths, complain: Callable[[str], None]) -> None:
        self._listener = Listener()
        self._owners = Owners()
        self.record = Record(system, paths.attempts, complain)

    def fileno(self) -> int:
        """What to wait on."""
        return self._listener.fileno()

    def read(self) -> tuple[str, ...]:
        """Add up what was told; none of it is of concern to the rules."""
        for packet in self._listener.packets():
            if packet is None:
                self.record.lose()
            else:
                self.record.add(packet, self._owners.find(packet))
        return ()
