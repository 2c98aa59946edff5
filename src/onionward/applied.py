"""The configuration that is in force, as it was read; the file of today may say otherwise."""

from __future__ import annotations

from onionward.config.values import Config
from onionward.paths import Paths
from onionward.system import System


def save(system: System, paths: Paths, config: Config) -> None:
    """Write it down; nothing happens when it is there already."""
    if load(paths) != config.source.text:
        system.write_file(paths.applied, config.source.text, mode=0o600)


def load(paths: Paths) -> str | None:
    """Its text, or None when none was written."""
    try:
        return paths.applied.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def remove(system: System, paths: Paths) -> None:
    """Forget it; nothing happens when there is none."""
    from onionward.system import temporary_name

    system.remove_file(paths.applied)
    system.remove_file(temporary_name(paths.applied))
