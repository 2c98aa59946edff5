"""Whether every relay of the network answers those that want circuits.

Now and then, on a busy machine, a tor (0.4.9) that has just begun takes one request for a circuit
and then no more for minutes: it votes, publishes and carries what is built, and whoever chooses it
waits. Web pages find another way soon; an onion service needs nearly every relay there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from onionward.errors import LabError
from onionward.lab.control import Control

_TIMES = 2
_PATIENCE = 4.0  # seconds for a circuit, which takes a tenth of one
_POLL = 0.02


class SilentRelayError(LabError):
    """A relay does not answer those that want circuits."""


Open = Callable[[str], Control]


def check(names: Sequence[str], connect: Open) -> None:
    """Ask each relay for circuits.

    Args:
        names: of all relays, three at least.
        connect: opens the control connection of one.

    Raises:
        SilentRelayError: some do not answer.

    """
    fingerprints = {name: _fingerprint(name, connect) for name in names}
    found = []
    for place, name in enumerate(names):
        # the first hop is asked otherwise, and does not show it
        by, first = names[place - 1], names[place - 2]
        path = f"${fingerprints[first]},${fingerprints[name]}"
        with connect(by) as control:
            if not all(_is_built(control, path) for _ in range(_TIMES)):
                found.append(name)
    if found:
        raise SilentRelayError(
            f"relays that want no circuits: {', '.join(found)}",
            "Build it again; it happens now and then.",
        )


def _fingerprint(name: str, connect: Open) -> str:
    with connect(name) as control:
        return control.ask("GETINFO fingerprint").splitlines()[0].partition("=")[2]


def _is_built(control: Control, path: str) -> bool:
    number = control.ask(f"EXTENDCIRCUIT 0 {path}").split()[1]
    deadline = time.monotonic() + _PATIENCE
    try:
        while time.monotonic() < deadline:
            shown = control.ask("GETINFO circuit-status").replace("circuit-status=", "")
            listed = (line.split() for line in shown.splitlines())
            states = {words[0]: words[1] for words in listed if len(words) > 1}
            # only what is on the way, or has got there, is listed
            if (state := states.get(number, "FAILED")) in ("BUILT", "FAILED"):
                return state == "BUILT"
            time.sleep(_POLL)
        return False
    finally:
        with suppress(LabError):  # it has ended by itself
            control.ask(f"CLOSECIRCUIT {number}")
