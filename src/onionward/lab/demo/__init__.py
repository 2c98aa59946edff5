"""`onionward lab demo`: who does what with protection off and on, and what left the machine.

server saw …    the page's own words about who asked
… seen          tcpdump on the far side of the machine's cable
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from onionward.lab import build, destroy
from onionward.lab.demo import app, everything, host, lan, onion, user
from onionward.lab.demo.stage import Stage
from onionward.progress import with_time
from onionward.system import System

SCENES: Mapping[str, Callable[[Stage], int]] = MappingProxyType(
    {
        "host": host.play,
        "lan": lan.play,
        "user": user.play,
        "onion": onion.play,
        "app": app.play,
        "all": everything.play,
    }
)
"""What can be shown, by scope; each returns the exit status."""


def run(system: System, scope: str) -> int:
    """Build a lab, show a scope, remove the lab.

    Args:
        system: the seam.
        scope: one of `SCENES`.

    Returns:
        0 when everything leaked with protection off, nothing with it on, and all pages came.

    Raises:
        LabError: the lab cannot be built or a machine cannot be routed.
        CommandError: a command failed in the lab.

    """
    console = Console(highlight=False)
    name = f"demo-{os.getpid()}"
    console.print("[bold]A private Tor network on this machine[/] (no internet is used)")
    try:
        progress = with_time(lambda words: console.print(words, markup=False))
        lab = build(system, name=name, progress=progress)
        with tempfile.TemporaryDirectory(prefix="onionward-demo-") as directory:
            return SCENES[scope](Stage(system, lab, console, Path(directory)))
    finally:
        destroy(system, name)
