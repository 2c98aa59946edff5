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


def deviation(paths: Paths, config: Config, asked: str = "") -> str:
    """What is in force instead of what an answer is about; "" when it is that, or nobody may know.

    Args:
        paths: where things are.
        config: by which the answer is.
        asked: the state it is for; "" where that is no matter.

    """
    from onionward import state
    from onionward.errors import JournalError

    try:
        text, journal = load(paths), state.load(paths)
    except (JournalError, PermissionError):
        return ""
    if journal is None:
        off = "onionward is not on, and nothing of this is in force before `onionward up`"
        return off if asked else ""
    if text is None:
        return ""
    if text == config.source.text:
        differs = asked not in ("", journal.state)
        return f"the machine is {journal.state}; this is for {asked}" if differs else ""
    name = config.source.name
    if journal.config == config.source.place:
        return f"{name} was changed since `onionward up`; this is by what it says now"
    return f"{journal.config} is in force; this is by {config.source.place}"


def remove(system: System, paths: Paths) -> None:
    """Forget it; nothing happens when there is none."""
    from onionward.system import temporary_name

    system.remove_file(paths.applied)
    system.remove_file(temporary_name(paths.applied))
