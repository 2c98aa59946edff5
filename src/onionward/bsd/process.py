"""onionward's own tor on BSD: found by its pid file and its command line, for want of /proc."""

from __future__ import annotations

import signal
import time

from onionward.errors import CommandError, TorError
from onionward.facts import Account
from onionward.paths import Paths
from onionward.system import System
from onionward.tor.process import command

_PATIENCE = 10.0  # seconds for a process to end before it is killed


def running(system: System, paths: Paths) -> int | None:
    """Its process id, or None."""
    try:
        pid = int(paths.tor_pid.read_text())
    except (FileNotFoundError, ValueError):
        return None
    try:
        shown = system.query(["ps", "-ww", "-o", "command=", "-p", str(pid)])
    except CommandError:
        return None
    # a pid may have been given to another since
    return pid if shown.strip().endswith(" ".join(command(paths.torrc)[1:])) else None


def start(system: System, text: str, paths: Paths, account: Account) -> None:
    """Start tor; returns when it has opened its ports and gone to the background.

    Raises:
        TorError: it ended instead; with tor's words.

    """
    owner = (account.uid, account.gid)
    system.make_directory(paths.tor_data, mode=0o700, owner=owner)
    system.make_directory(paths.tor_runtime, mode=0o700, owner=owner)
    system.remove_file(paths.control_socket)
    system.write_file(paths.torrc, text)
    try:
        system.change(command(paths.torrc), timeout=60)
    except CommandError as error:
        raise TorError(f"tor did not start: {error.stderr.strip()}") from error


def stop(system: System, paths: Paths) -> None:
    """End tor; nothing happens when it is gone.

    Raises:
        TorError: it does not end.

    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = running(system, paths)
        if pid is None:
            break
        system.kill(pid, number)
        deadline = time.monotonic() + (3.0 if number is signal.SIGTERM else _PATIENCE)
        while running(system, paths) == pid and time.monotonic() < deadline:
            time.sleep(0.05)
    if (pid := running(system, paths)) is not None:
        raise TorError(f"tor does not end: process {pid}")
    system.remove_file(paths.tor_pid)
