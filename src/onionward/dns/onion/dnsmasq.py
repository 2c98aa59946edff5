"""A dnsmasq of our own: started, found again, stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from onionward.errors import CommandError, ResolverError
from onionward.paths import PATHS, Paths
from onionward.system import System, temporary_name
from onionward.tor.process import is_of_this_machine, is_suspended, user_of

_PATIENCE = 10.0  # seconds for a process to end after it was killed


def config_path(paths: Paths = PATHS) -> Path:
    """Its configuration, by which it is recognised."""
    return paths.runtime / "dnsmasq-onion.conf"


def pid_path(paths: Paths = PATHS) -> Path:
    """Where it writes its process id; nothing trusts it."""
    return paths.runtime / "dnsmasq-onion.pid"


def log_path(paths: Paths = PATHS) -> Path:
    """Its complaints; in memory, gone with a reboot."""
    return paths.runtime / "dnsmasq-onion.log"


def command(config: Path) -> list[str]:
    """Its command line; also what it is recognised by."""
    return ["dnsmasq", f"--conf-file={config}"]


def running(paths: Paths = PATHS) -> tuple[int, ...]:
    """Its process ids; while it answers over TCP there are several."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    wanted = [os.fsencode(word) for word in command(config_path(paths))]
    return tuple(sorted(pid for pid in pids if _is_own(pid, wanted)))


def _is_own(pid: int, wanted: list[bytes]) -> bool:
    """Whether a process has this command line and an account that it can have."""
    process = Path(f"/proc/{pid}")
    try:
        raw = (process / "cmdline").read_bytes()
        if raw.rstrip(b"\0").split(b"\0") != wanted:
            return False
        return is_of_this_machine(pid) and user_of(process) in _trusted()
    except OSError:
        return False


def _trusted() -> tuple[int, ...]:
    from onionward.facts import find_account

    account = find_account("nobody")
    return (0,) if account is None else (0, account.uid)


def start(system: System, text: str, paths: Paths = PATHS) -> None:
    """Start it; returns when it listens and has gone to the background.

    One that runs with this configuration already is left alone.

    Raises:
        ResolverError: it ended instead, with dnsmasq's words; or an earlier one does not end.

    """
    config = config_path(paths)
    pids = running(paths)
    if pids and not any(map(is_suspended, pids)) and config.read_text() == text:
        return
    stop(system, paths)
    if not paths.runtime.is_dir():
        system.make_directory(paths.runtime)
    system.write_file(config, text)
    try:
        system.change(command(config))
    except CommandError as error:
        raise ResolverError(
            f"the forwarder for names did not start: {error.stderr.strip()}",
            "see who else is on port 53: ss -lnup sport = :53",
        ) from error
    if not running(paths):
        raise ResolverError(
            "the forwarder for names has ended at once", f"its words are in {log_path(paths)}"
        )


def stop(system: System, paths: Paths = PATHS) -> None:
    """End it, whatever it is doing, and remove its files; nothing happens when it is gone.

    Raises:
        ResolverError: a process does not end.

    """
    pids = set(running(paths))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            system.kill(pid, number)
        pids = _left(pids, _PATIENCE if number is signal.SIGKILL else 3.0)
        if not pids:
            break
    else:
        left = ", ".join(map(str, sorted(pids)))
        raise ResolverError(f"the forwarder for names does not end: process {left}")
    config = config_path(paths)
    for path in (config, temporary_name(config), pid_path(paths), log_path(paths)):
        system.remove_file(path)


def _left(pids: set[int], patience: float) -> set[int]:
    """Which of these processes have not ended after some seconds."""
    deadline = time.monotonic() + patience
    while (left := {pid for pid in pids if not _has_ended(pid)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _has_ended(pid: int) -> bool:
    # one that ends loses its command line before it gives up its port
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")
