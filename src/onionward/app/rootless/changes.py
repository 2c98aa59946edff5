"""Which tor a run without root has, when the machine's comes and goes.

While the machine's onionward is on its tor serves runs; when it goes off, the account's own one is
started, for those who live. Connections end with the tor that had them, new ones go on with the
other; in between there are none. The forwarder says so to onionward, which says it to people:

    forwarder ──(lines)──► onionward ──► standard error
       └── starter: a process that starts the account's tor, as the first run does
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from onionward.app import kernel
from onionward.errors import OnionwardError
from onionward.paths import PATHS

if TYPE_CHECKING:
    from onionward.app.rootless.forwarder import Forwarder
    from onionward.app.rootless.own_tor import Hold, Home
    from onionward.config import Config
    from onionward.system import System

MACHINES, OWN, NOBODY = 0, 1, -1
"""Whose tor has taken a connection."""

_LOOK = 1.0  # seconds from one look at the machine's state to the next
_RETRY = 10.0  # from one try to start tor to the next
_LONGEST = 4096


class Changes:
    """What the forwarder is told of tor, and what it does then.

    Args:
        system: the seam.
        own: where the account's tor is.
        config: of that one.
        channel: to onionward.
        whose: which tor the run has begun with.

    """

    def __init__(
        self,
        system: System,
        own: Home,
        config: Callable[[], Config],
        channel: socket.socket,
        whose: int,
    ) -> None:
        self._system = system
        self._own = own
        self._config = config
        self._channel = channel
        self._whose = whose
        self._held: Hold | None = None
        self._starter = -1
        self._next_try = 0.0
        self._said = ""

    def served(self, whose: int, loop: Forwarder) -> None:
        """Hear who has taken a connection; called for each."""
        if whose == NOBODY:
            self._nobody(loop)
        elif whose != self._whose:
            self._whose = whose
            tor = "the machine's tor" if whose == MACHINES else "this account's own tor"
            self._say(f"new connections go through {tor}; those of before have ended")
        else:
            self._said = ""

    def _nobody(self, loop: Forwarder) -> None:
        if self._starter >= 0 or time.monotonic() < self._next_try:
            return
        # it is there while onionward is on, for every account to see
        is_on = os.path.exists(PATHS.journal)  # noqa: PTH110  # pathlib takes long
        self._next_try = time.monotonic() + (_LOOK if is_on else _RETRY)
        if is_on:
            self._say("the machine's onionward serves nobody now, so there are no connections")
        else:
            self._say("there is no tor any more, so connections have ended; starting our own")
            self._start(loop)

    def _start(self, loop: Forwarder) -> None:
        from onionward.app.rootless import own_tor

        # this process is the run, as far as the keeper of tor knows
        self._held = self._held or own_tor.Hold(self._own)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            words = "it has ended"
            try:
                kernel.die_with_parent()
                kernel.close_all_but((writer,))
                own_tor.hold(self._system, self._own, self._config)
                words = ""
            except (OnionwardError, OSError) as error:
                words = " ".join(str(error).split())
            finally:
                os.write(writer, words.encode(errors="replace")[:_LONGEST])
                os._exit(0)
        os.close(writer)
        self._starter = reader

        def heard(_events: int) -> None:
            loop.watch(reader, None, heard)
            words = os.read(reader, _LONGEST).decode(errors="replace")
            os.close(reader)
            os.waitpid(child, 0)
            self._starter = -1
            if words:
                self._say(f"this run has no network: {words}")

        loop.watch(reader, select.EPOLLIN, heard)

    def _say(self, words: str) -> None:
        if words == self._said:
            return
        self._said = words
        with contextlib.suppress(OSError):
            self._channel.send(f"{words}\n".encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def tell(channel: socket.socket, terminal: int = 2) -> None:
    """Say what the forwarder has said by now."""
    said = b""
    with contextlib.suppress(OSError):
        said = channel.recv(_LONGEST, socket.MSG_DONTWAIT)
    for line in said.decode(errors="replace").splitlines():
        os.write(terminal, f"onionward: {line}\n".encode(errors="replace"))
