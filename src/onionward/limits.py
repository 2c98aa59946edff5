"""What is not covered on this machine, kept for `status` since `up` has looked."""

from __future__ import annotations

import json
from collections.abc import Iterable

from onionward.paths import Paths
from onionward.system import System


def save(system: System, paths: Paths, limits: Iterable[str]) -> None:
    """Write them down; they go with `down` or a reboot, after which they may be others."""
    system.write_file(paths.limits, json.dumps([*limits], indent=2) + "\n", mode=0o600)


def load(paths: Paths) -> tuple[str, ...]:
    """As `up` has found them; none when it has not written any."""
    try:
        return tuple(map(str, json.loads(paths.limits.read_text())))
    except (OSError, ValueError, TypeError):
        return ()
