"""tor's control port, through stem; nothing else imports it."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import stem
import stem.control
import stem.util.log

from onionward.errors import TorError
from onionward.paths import Paths
from onionward.tor import clock, log

_POLL = 0.1  # seconds between two looks at the bootstrap phase
_STALL = 10.0  # seconds in one phase after which it is asked what stops tor


@dataclass(frozen=True, slots=True)
class Phase:
    """How far tor is (control-spec, status/bootstrap-phase).

    Attributes:
        percent: 0 to 100.
        summary: the phase in tor's words.
        warning: what tor complains of, or "".
        reason: tor's keyword for it, such as NOROUTE, CONNECTREFUSED or CLOCK_SKEW.

    """

    percent: int
    summary: str
    warning: str = ""
    reason: str = ""

    def words(self) -> str:
        """One line for people."""
        trouble = f" ({self.warning})" if self.warning else ""
        return f"{self.percent} %: {self.summary}{trouble}"


def _unquoted(text: str) -> str:
    """A QuotedString of the control protocol, or a bare word, as plain text."""
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def parse_phase(text: str) -> Phase:
    """A `status/bootstrap-phase` value.

    Raises:
        TorError: it is none.

    """
    pairs = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', text))
    try:
        percent = int(pairs["PROGRESS"])
    except (KeyError, ValueError):
        raise TorError(f"tor's bootstrap phase is not understood: {text!r}") from None
    return Phase(
        percent,
        _unquoted(pairs.get("SUMMARY", "")),
        _unquoted(pairs.get("WARNING", "")),
        pairs.get("REASON", ""),
    )


class _NotListeningError(TorError):
    """Nobody listens on the control socket."""


_BLOCKED = "does a firewall outside block Tor? Then bridges may help ([tor] bridges)"
_ADVICE = {
    "NOROUTE": "the machine has no route to the Tor network: is the uplink up?",
    "CONNECTREFUSED": f"relays refuse the connection: {_BLOCKED}",
    "TIMEOUT": f"relays do not answer: {_BLOCKED}",
    "CLOCK_SKEW": "the clock is wrong",
    "DONE": "relays close the connection: does something between here and them block Tor?",
    "RESOURCELIMIT": "tor has too few file descriptors or too little memory",
}


_ADVICE_FIREWALL = "let TCP of tor's account leave there, and established connections in"


def advice(phase: Phase, log: str) -> str:
    """What to do about a phase that does not go on; `log` is the end of tor's log."""
    if (skew := clock.last(log)) is not None:
        return f"{_ADVICE['CLOCK_SKEW']}: {skew.words()}"
    if "certificate expired" in log:
        expired = "relays' certificates, which hold for days or weeks, have expired by it"
        return f"{_ADVICE['CLOCK_SKEW']}: {expired}; set it, then try again"
    if "clock" in phase.warning.lower() or re.search(r"clock (skew|is)|Our clock", log):
        return f"{_ADVICE['CLOCK_SKEW']}: set it, then try again"
    return _ADVICE.get(phase.reason, "")


@contextlib.contextmanager
def connected(paths: Paths) -> Iterator[Any]:
    """A `stem.control.Controller` on onionward's tor.

    Raises:
        TorError: tor does not answer or does not accept the cookie.

    """
    # stem reports a closed socket as an error of its own; ours says it once
    stem.util.log.get_logger().setLevel(logging.CRITICAL)
    try:
        controller = stem.control.Controller.from_socket_file(str(paths.control_socket))
    except stem.SocketError as error:
        raise _NotListeningError(
            f"tor does not answer on {paths.control_socket}: {error}", f"its log: {paths.tor_log}"
        ) from error
    with controller:
        try:
            controller.authenticate()
        except stem.connection.AuthenticationFailure as error:
            raise TorError(f"tor does not accept its own cookie: {error}") from error
        yield controller


def wait_for_circuits(
    paths: Paths,
    timeout: float,
    progress: Callable[[Phase], None],
    alive: Callable[[], bool],
    stopping: Callable[[], str] = lambda: "",
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Wait until tor can build circuits.

    Args:
        paths: of the control socket and log.
        timeout: seconds.
        progress: called with each new phase.
        alive: whether the tor process is there.
        stopping: called when it does not go on; says what on this machine stops tor, or "", or
            raises what cannot pass by itself.
        meanwhile: called again and again until then.

    Raises:
        TorError: it took too long or tor ended; with tor's own reason.

    """
    deadline = time.monotonic() + timeout
    last: Phase | None = None
    asked, reason = False, ""
    since = time.monotonic()
    try:
        with _connected_soon(paths, deadline, alive) as controller:
            while time.monotonic() < deadline:
                meanwhile()
                phase = parse_phase(controller.get_info("status/bootstrap-phase"))
                if phase != last:
                    progress(phase)
                    last, since = phase, time.monotonic()
                if phase.percent == 100:
                    return
                if not asked and time.monotonic() - since > _STALL:
                    asked, reason = True, stopping()
                time.sleep(_POLL)
    except stem.ControllerError as error:
        if not alive():
            raise _ended(paths) from error
        raise TorError(f"tor's control port failed: {error}") from error
    stalled = last or Phase(0, "nothing heard")
    reason = reason or stopping()
    raise TorError(
        f"tor has no circuit after {timeout:g} s; it is at {stalled.words()}{_last_words(paths)}"
        + (f"; {reason}" if reason else ""),
        (_ADVICE_FIREWALL if reason else advice(stalled, log_tail(paths)))
        or f"its log: {paths.tor_log}",
    )


@contextlib.contextmanager
def _connected_soon(paths: Paths, deadline: float, alive: Callable[[], bool]) -> Iterator[Any]:
    """As `connected`, with patience: the daemon is there a second before its control socket."""
    while True:
        if not alive():
            raise _ended(paths)
        if paths.control_socket.exists() or time.monotonic() > deadline:
            try:
                with connected(paths) as controller:
                    yield controller
                return
            except _NotListeningError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.02)


def _ended(paths: Paths) -> TorError:
    return TorError(
        f"tor ended while it was starting{_last_words(paths)}", f"its log: {paths.tor_log}"
    )


def log_tail(paths: Paths, lines: int = 20) -> str:
    """The last warnings of tor's log."""
    try:
        text = log.end(paths)
    except OSError:
        return ""
    found = [line for line in text.splitlines() if "[warn]" in line or "[err]" in line]
    return "\n".join(found[-lines:])


def _last_words(paths: Paths) -> str:
    tail = log_tail(paths, 1)
    return f'; its last warning: "{tail.split("] ", 1)[-1]}"' if tail else ""
