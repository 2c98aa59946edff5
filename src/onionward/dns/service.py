"""Resolvers that are services of systemd read their configuration again."""

from __future__ import annotations

from collections.abc import Sequence

from onionward.errors import CommandError
from onionward.system import System

RESOLVED = "systemd-resolved.service"


def reload(system: System, argv: Sequence[str], *, gone: Sequence[int] = ()) -> None:
    """Have a running resolver take its configuration.

    A service that is restarted too often in too short a time is stopped by systemd and not started
    any more (systemd.unit(5), StartLimitIntervalSec=); names would stay without an answer then.

    Args:
        system: the seam.
        argv: the command after which it has read it; of systemctl(1), the service comes last.
        gone: exit statuses that say that the resolver is not there any more.

    Raises:
        CommandError: it did not take it, or does not come up again.

    """
    try:
        system.change(argv, accept=(0, *gone))
    except CommandError:
        if argv[0] != "systemctl" or not _was_started_too_often(system, argv[-1]):
            raise
        system.change(["systemctl", "reset-failed", argv[-1]])
        system.change(["systemctl", "restart", argv[-1]])


def restart_resolved(system: System) -> None:
    """Restart systemd-resolved, if it runs.

    Raises:
        CommandError: it does not come up again.

    """
    # 5: it is not there any more
    reload(system, ["systemctl", "try-restart", RESOLVED], gone=(5,))


def _was_started_too_often(system: System, unit: str) -> bool:
    show = ["systemctl", "show", "--property=Result", "--value", unit]
    return system.query(show).strip() == "start-limit-hit"
