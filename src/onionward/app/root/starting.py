"""Starts the keeper of runs: a service where systemd runs the machine, else a daemon."""

from __future__ import annotations

from pathlib import Path

from onionward.app.root import keeper
from onionward.errors import CommandError, StepError
from onionward.system import System, find_tool

UNIT = "onionward-runs.service"
_SYSTEMD = Path("/run/systemd/system")


def start() -> None:
    """Start it; when this returns it listens, or another one does soon.

    Raises:
        StepError: it does not start; with its words.

    """
    system = System()
    if find_tool("nft") is None:
        raise StepError(
            "nft is missing: rules of runs are made with it, whatever the machine's own filter",
            "install it: apt install nftables",
        )
    if find_tool("tor") is None:
        raise StepError("tor is missing", "apt install tor")
    argv = keeper.command()
    if _SYSTEMD.is_dir() and find_tool("systemd-run"):
        # it is nobody's session's: another run may need it when that session has ended
        argv = [
            *("systemd-run", "--quiet", "--collect", "--service-type=notify", f"--unit={UNIT}"),
            "--description=onionward: keeps tor and rules for onionward run",
            "--property=OOMScoreAdjust=-900",
            "--",
            *argv,
        ]
    try:
        # not System.change: it lives on when we are gone
        system.query(argv, timeout=30)
    except CommandError as error:
        if "already" not in error.stderr:
            raise StepError(f"the keeper of runs does not start: {error.message}") from error
