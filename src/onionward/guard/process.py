"""The guard as others see it: started, told of new rules, found, ended.

Where systemd runs the machine it is a transient service, which is started again when it ends;
elsewhere it goes to the background by itself.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

from onionward import background
from onionward.errors import CommandError, StepError
from onionward.paths import Paths
from onionward.system import System, find_tool

UNIT = "onionward-guard.service"
NOT_WANTED = 3
"""Its exit status when there is nothing to guard; systemd does not start it again then."""

_SYSTEMD = Path("/run/systemd/system")
_START_PATIENCE = 20.0


def command(paths: Paths) -> list[str]:
    """The command line of the process."""
    places = (paths.state, paths.runtime, paths.resolv_conf)
    return background.command("onionward.guard.loop", *map(str, places))


def running(paths: Paths) -> tuple[int, ...]:
    """Process ids of the guard of these paths."""
    return background.running(command(paths))


def settle(system: System, paths: Paths) -> None:
    """Tell it that all is done: what it finds now is as it should be.

    Raises:
        StepError: it does not answer.

    """
    _tell(system, paths, "settled")


def make_way(system: System, paths: Paths) -> None:
    """Have it stop what it is doing, because somebody wants the lock; it goes on later.

    One that does not answer is left alone: whoever holds the lock then is told by the lock.
    """
    if paths.guard_socket.exists():
        with contextlib.suppress(StepError):
            _tell(system, paths, "give way", patience=1.0)


def ensure(system: System, paths: Paths, lock_rules: str) -> bool:
    """Have a guard with these rules of its own; one that runs is told of them.

    Args:
        system: the seam.
        paths: where things are.
        lock_rules: `render.nftables.lock.document`.

    Returns:
        Whether it had to be started.

    Raises:
        StepError: it does not start, or does not take them; with its words.

    """
    system.write_file(paths.lock_rules, lock_rules, mode=0o600)
    if running(paths):
        try:
            _tell(system, paths, "load")
        except StepError:
            # it may be suspended, or of another version
            stop(system, paths)
        else:
            return False
    _start(system, paths)
    return True


def _tell(system: System, paths: Paths, word: str, patience: float = 10.0) -> None:
    try:
        system.effect(f"tell the guard: {word}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(patience)
            client.connect(str(paths.guard_socket))
            client.sendall(f"{word}\n".encode())
            answer = client.makefile("rb").readline().decode(errors="replace").strip()
    except OSError as error:
        raise StepError(f"the guard does not answer: {error}") from error
    if answer != word:
        raise StepError(f"the guard has failed: {answer or 'it said nothing'}")


def _start(system: System, paths: Paths) -> None:
    argv = command(paths)
    if _SYSTEMD.is_dir() and find_tool("systemd-run"):
        # a service of this name that has failed stands in the way
        system.change(["systemctl", "reset-failed", UNIT], accept=(0, 1, 5))
        argv = [*_service(), *argv]
    try:
        system.change(argv, timeout=_START_PATIENCE, words="start the guard")
    except CommandError as error:
        raise StepError(f"the guard does not start: {error.message}") from error
    if not running(paths):
        raise StepError("the guard has ended at once")


def _service() -> list[str]:
    """How systemd runs it: the same restrictions as what routes at boot."""
    from onionward.boot.units import HARDENED_UP

    settings = [
        "Restart=always",
        "RestartSec=1",
        f"RestartPreventExitStatus={NOT_WANTED}",
        "StartLimitIntervalSec=0",
        # at shutdown it is to outlive nftables.service, which flushes everything when it is stopped
        "DefaultDependencies=no",
        # `systemctl isolate` (emergency, rescue) stops that one, too, and in no order
        "IgnoreOnIsolate=yes",
        "OOMScoreAdjust=-900",
        # tor and helpers that it has started are no concern of this service
        "KillMode=process",
        *_merged(HARDENED_UP.splitlines()),
    ]
    return [
        *("systemd-run", "--quiet", "--collect", "--service-type=notify", f"--unit={UNIT}"),
        "--description=onionward: puts back what protects this machine",
        *(f"--property={setting}" for setting in settings),
        "--",
    ]


def _merged(settings: Iterable[str]) -> list[str]:
    """Lists in one line each: unlike in a unit file, a second one takes the place of the first."""
    found: dict[str, list[str]] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        found.setdefault(name, []).append(value)
    return [f"{name}={' '.join(values)}" for name, values in found.items()]


def stop(system: System, paths: Paths) -> None:
    """End it, and with it its tables; nothing happens when there is none.

    Raises:
        StepError: it does not end.

    """
    if not running(paths):
        return
    if _SYSTEMD.is_dir() and find_tool("systemctl"):
        # else it would be started again
        system.change(["systemctl", "stop", UNIT], accept=(0, 5), timeout=30)
    for pid in running(paths):
        background.end(system, pid, "the guard")
