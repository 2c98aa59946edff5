"""The process that an account's tor lives under: started with the first run, gone when tor is idle.

It holds `keeper.lock` while it lives, tor dies with it (PR_SET_PDEATHSIG), and it looks now and
then whether any run holds `runs.lock`; the kernel takes that from runs that were killed. Tor is
stopped while the keeper itself holds `runs.lock`, so no run can begin in between. It listens to
nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from onionward import background
from onionward.app.rootless.own_tor import Home
from onionward.paths import Paths
from onionward.system import DIES_WITH_US
from onionward.tor import process

IDLE = 600.0
"""Seconds after the end of the last run until tor is stopped."""

_MODULE = "onionward.app.rootless.keeper"
_LOOK = 15.0
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
_START_PATIENCE = 30.0
_END_PATIENCE = 5.0


def command(own: Home, idle: float = IDLE) -> list[str]:
    """The command line of the keeper; it returns when tor has opened its sockets."""
    return background.command(_MODULE, str(own.paths.runtime), str(own.paths.state), str(idle))


def main(arguments: Sequence[str]) -> None:
    """Start tor, say so by ending, and keep it in the background.

    Args:
        arguments: runtime directory, state directory, seconds until an idle tor is stopped.

    """
    runtime, state, idle = arguments
    own = Home(Paths(state=Path(state), runtime=Path(runtime)))
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as heard:
            words = heard.read().decode(errors="replace")
        if words == "up":
            return
        sys.exit(words or "the keeper of tor has ended at once")
    os.close(reader)
    background.leave_terminal()
    _Keeper(own, float(idle)).live(writer)


class _Keeper:
    def __init__(self, own: Home, idle: float) -> None:
        self._own = own
        self._idle = idle
        self._runs = -1
        self._tor = -1
        self._look = min(_LOOK, max(idle / 4, 0.05))

    def live(self, report: int) -> None:
        """Until tor has been idle for long enough.

        Args:
            report: a pipe; gets "up", or why there is no tor.

        """
        kept = _open(self._own.keeper_lock)
        if not _locked(kept):
            _say(report, "another keeper lives")
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self._runs = _open(self._own.runs_lock)
        try:
            words = self._start()
            _say(report, words or "up")
            if not words:
                self._keep()
        finally:
            self._stop()
            os.close(kept)

    def _start(self) -> str:
        """Start tor; returns why it did not, or "" when it listens."""
        paths = self._own.paths
        # the control socket is opened last
        opened = (*self._own.sockets, paths.control_socket)
        for path in (self._own.ready, paths.tor_log, *opened):
            path.unlink(missing_ok=True)
        log = _open(paths.runtime / "tor.err")
        os.ftruncate(log, 0)
        argv = [*DIES_WITH_US, *process.command(paths.torrc)]
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        pid = os.posix_spawnp(argv[0], argv, _environment(), file_actions=actions, setsigmask=())
        self._tor = os.pidfd_open(pid)
        deadline = time.monotonic() + _START_PATIENCE
        try:
            while time.monotonic() < deadline:
                if self._ended(0.02):
                    return process.complaint(os.pread(log, 1 << 16, 0).decode(errors="replace"))
                if all(path.exists() for path in opened):
                    return ""
            return f"it has not opened its sockets after {_START_PATIENCE:g} s"
        finally:
            os.close(log)

    def _ended(self, patience: float) -> bool:
        if self._tor < 0:
            return True
        if not select.select([self._tor], [], [], patience)[0]:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._tor, os.WEXITED)
        os.close(self._tor)
        self._tor = -1
        self._own.ready.unlink(missing_ok=True)
        return True

    def _keep(self) -> None:
        idle_since, seen, retry = time.monotonic(), self._last_run(), _FIRST_RETRY
        while True:
            if self._ended(self._look):
                time.sleep(retry)
                retry = min(_LAST_RETRY, retry * 2)
                if self._start():
                    self._stop()
            if not self._own.runs_lock.exists():  # the session's directory is gone, and with it we
                return
            now, last = time.monotonic(), self._last_run()
            # CLOCK_MONOTONIC stands still in a suspension, and so does idleness
            if last != seen or self._is_used():
                idle_since, seen = now, last
            elif now - idle_since >= self._idle and self._take():
                return

    def _last_run(self) -> int:
        return os.fstat(self._runs).st_mtime_ns

    def _is_used(self) -> bool:
        if not self._take():
            return True
        fcntl.flock(self._runs, fcntl.LOCK_UN)
        return False

    def _take(self) -> bool:
        """Hold the runs' lock alone: none lives, and none begins."""
        try:
            fcntl.flock(self._runs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._tor < 0:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._tor, number)
            self._ended(_END_PATIENCE)


def _locked(descriptor: int) -> bool:
    """Take the keeper's lock; who only looks whether there is one holds it for a moment."""
    for _ in range(50):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("HOME", "PATH", "TMPDIR")}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **kept}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _say(report: int, words: str) -> None:
    with contextlib.suppress(OSError):
        os.write(report, words.encode())
    os.close(report)
