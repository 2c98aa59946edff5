"""To how many places tor is held, kept for `status` since rules were loaded."""

from __future__ import annotations

import json
from typing import NamedTuple

from onionward.paths import Paths
from onionward.system import System


class Held(NamedTuple):
    """What tor's account may reach.

    Attributes:
        places: how many addresses with a port.
        valid_until: of the consensus that they are from, UTC; "" for bridges, or without one.

    """

    places: int
    valid_until: str


def save(system: System, paths: Paths, held: Held | None) -> None:
    """Write it down; None: tor may reach anything."""
    if held is None:
        system.remove_file(paths.relays)
    else:
        system.write_file(paths.relays, json.dumps(held._asdict()) + "\n", mode=0o600)


def load(paths: Paths) -> Held | None:
    """As it was when rules were loaded; None as well when nobody has written it."""
    try:
        return Held(**json.loads(paths.relays.read_text()))
    except (OSError, ValueError, TypeError):
        return None
