"""How onionward is called at boot, on every system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Program(NamedTuple):
    """How `up` is called at boot.

    Attributes:
        argv: program and arguments, the first an absolute path.
        environment: variables that it needs.

    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def program(config_path: str | None) -> Program:
    """How this program is called from anywhere."""
    script = Path(sys.argv[0])
    options = ("--config", os.path.abspath(config_path)) if config_path else ()  # noqa: PTH100
    if script.name == "onionward" and script.is_absolute() and os.access(script, os.X_OK):
        return Program((str(script), *options, "up"), {})
    variables = {n: os.environ[n] for n in ("PYTHONPATH",) if n in os.environ}
    return Program((sys.executable, "-P", "-m", "onionward", *options, "up"), variables)
