"""A new identity: fresh circuits for everybody (control-spec, SIGNAL NEWNYM)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from onionward.errors import TorError
from onionward.paths import Paths
from onionward.tor.session import Session, session

LEAST = 10
"""Seconds from one to the next (tor, MAX_SIGNEWNYM_RATE): an earlier one waits."""

_AT_ONCE = 0.2  # seconds in which tor does what it does not delay
_PATIENCE = LEAST + 5.0
_MISC = 1  # why a stream is closed (tor-spec, 6.3)


class Renewed(NamedTuple):
    """What became of it.

    Attributes:
        waited: seconds for which tor has delayed it.
        open: connections that stay on their circuits.
        cut: connections that were cut.

    """

    waited: float
    open: int
    cut: int


def renew(paths: Paths, *, close: bool, tell: Callable[[str], object]) -> Renewed:
    """Have tor give everybody fresh circuits, and wait until it has.

    Args:
        paths: of tor's control socket.
        close: cut what is open, too.
        tell: told that tor makes it wait.

    Raises:
        RefusedError: whoever asks may not.
        TorError: tor does not answer, or does not do it in time.

    """
    with session(paths, ("SIGNAL",)) as tor:
        start = time.monotonic()
        tor.ask("SIGNAL NEWNYM")
        waited = _await(tor, start, tell)
        streams = tuple(carried(tor.info("stream-status")))
        cut = _close(tor, streams) if close else 0
        return Renewed(waited, 0 if close else len(streams), cut)


def _await(tor: Session, start: float, tell: Callable[[str], object]) -> float:
    """Wait for the event that tor tells when it has done it; seconds if that was not at once."""
    done = ("SIGNAL NEWNYM",)
    if done in tor.events(_AT_ONCE):
        return 0.0
    tell(f"tor takes a new identity every {LEAST} s and no sooner: waiting for it")
    while (left := start + _PATIENCE - time.monotonic()) > 0:
        if done in tor.events(left):
            return time.monotonic() - start
    raise TorError(
        f"tor has not taken a new identity in {_PATIENCE:g} s; circuits are those of before",
        f"it does so at most every {LEAST} s: try again",
    )


def carried(lines: Iterable[str]) -> Iterable[str]:
    """Numbers of the streams that are on circuits, out of `stream-status`."""
    for line in lines:
        number, _, circuit, *_ = [*line.split(maxsplit=3), "", "", "0"]
        if circuit.isdecimal() and circuit != "0":
            yield number


def _close(tor: Session, streams: Iterable[str]) -> int:
    """Close streams; how many there still were."""
    closed = 0
    for number in streams:
        try:
            # its circuit is used no more; another leg of it would take over if that were closed
            tor.ask(f"CLOSESTREAM {number} {_MISC}")
        except TorError as error:
            # it has ended by itself meanwhile
            if "Unknown stream" not in error.message:
                raise
        else:
            closed += 1
    return closed
