"""The process that undoes what nobody has confirmed; it outlives the session that asked for it.

Where systemd runs the machine it is a transient service, because what ends a session may end
all that the session has started; elsewhere it goes to the background by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from onionward import background
from onionward.errors import CommandError, LockedError, OnionwardError, StepError
from onionward.paths import Paths
from onionward.system import System

_SYSTEMD = Path("/run/systemd/system")
_LONGEST_NAP = 1.0  # a deadline can come nearer, and sleep does not count suspension
_FIRST_RETRY, _LAST_RETRY = 5.0, 60.0
_START_PATIENCE = 20.0


def command(paths: Paths) -> list[str]:
    """The command line of the process."""
    places = (paths.state, paths.runtime, paths.resolv_conf)
    return background.command("onionward.confirmation.process", *map(str, places))


def running(paths: Paths) -> tuple[int, ...]:
    """Process ids of the helper; this process is none of them."""
    return background.running(command(paths))


def start(system: System, paths: Paths) -> int:
    """Start it; one that is running already is kept.

    Returns:
        Its process id.

    Raises:
        StepError: it did not start.

    """
    if pids := running(paths):
        return pids[0]
    service = [
        *("systemd-run", "--quiet", "--collect", "--service-type=forking"),
        *(f"--unit=onionward-confirm-{os.getpid()}", "--description=undo what is not confirmed"),
        *("--property=OOMScoreAdjust=-900", "--"),
    ]
    argv = [*(service if _SYSTEMD.is_dir() else ()), *command(paths)]
    try:
        system.change(argv, timeout=_START_PATIENCE, words="start the helper of --confirm")
    except CommandError as error:
        raise StepError(f"the process that undoes does not start: {error.message}") from error
    if not (pids := running(paths)):
        raise StepError("the process that undoes has ended at once")
    return pids[0]


def stop(system: System, paths: Paths) -> None:
    """End it, unless this is it; nothing happens when there is none.

    Raises:
        StepError: it does not end.

    """
    for pid in running(paths):
        background.end(system, pid, "the process that undoes what is not confirmed")


class _Log:
    """Says what is done to the system's log, because nobody else listens."""

    def step(self, words: str) -> None:
        import syslog

        syslog.syslog(words)

    def warn(self, words: str) -> None:
        self.step(f"warning: {words}")

    def bootstrap(self, percent: int, words: str) -> None:
        del percent, words


def watch(system: System, paths: Paths) -> None:
    """Wait for the deadline and undo; returns when there is nothing to undo any more."""
    from onionward.confirmation import undo

    log = _Log()
    retry = _FIRST_RETRY
    while True:
        try:
            # the time may have been changed, so it is asked for again and again
            left = undo.undo_when_due(system, paths, log)
        except LockedError:
            continue  # an `up` at work, which may give it more time
        except (OnionwardError, OSError) as error:
            log.warn(f"not undone: {error}")
            time.sleep(retry)
            retry = min(_LAST_RETRY, retry * 2)
            continue
        if left <= 0:
            return
        time.sleep(min(_LONGEST_NAP, left))


def main(arguments: Sequence[str]) -> None:
    """Go to the background and watch.

    Args:
        arguments: the directories of state and of runtime files, and resolv.conf.

    """
    # all of it now: what is installed may be another version by then
    import syslog

    from onionward.confirmation import undo  # noqa: F401
    from onionward.lifecycle import surroundings  # noqa: F401
    from onionward.tor import control  # noqa: F401

    os.umask(0o022)
    directory, runtime, resolv_conf = map(Path, arguments)
    if os.fork() > 0:
        os._exit(0)
    background.leave_terminal()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    syslog.openlog("onionward", syslog.LOG_PID, syslog.LOG_DAEMON)
    sys.argv = ["onionward", "undoing", "what", "is", "not", "confirmed"]
    watch(System(), Paths(directory, runtime, resolv_conf))
