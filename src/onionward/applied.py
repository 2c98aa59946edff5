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


def deviation(paths: Paths, config: Config) -> str:
    """That another configuration is in force than this one; "" when none is, or nobody may know."""
    from onionward import state
    from onionward.errors import JournalError

    try:
        text, journal = load(paths), state.load(paths)
    except (JournalError, PermissionError):
        return ""
    if text is None or journal is None or text == config.source.text:
        return ""
    name = config.source.name
    if journal.config == name:
        return f"{name} was changed since `onionward up`; this is by what it says now"
    return f"{journal.config} is in force; this is by {name}"


def remove(system: System, paths: Paths) -> None:
    """Forget it; nothing happens when there is none."""
    from onionward.system import temporary_name

    system.remove_file(paths.applied)
    system.remove_file(temporary_name(paths.applied))
