"""What is, against what should be: each deviation with the command that repairs it.

Repairing never opens the network: what only `down` can mend is named while rules are in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onionward import applied, routes, state, status
from onionward.backend import nftables as backend
from onionward.dns import file as resolver
from onionward.errors import JournalError
from onionward.lifecycle import Reporter, Request, down, leftovers, up
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System
from onionward.tor import process as tor_process

UP, DOWN, FORCE = "onionward up", "onionward down", "onionward down --force"
_COMMAND = re.compile(r"`(onionward [^`]+)`")
_PROC_SYS = Path("/proc/sys")


class Finding(NamedTuple):
    """A deviation.

    Attributes:
        words: what is not as it should be.
        repair: the command that mends it, or "" when none does.

    """

    words: str
    repair: str


def examine(system: System, paths: Paths) -> tuple[Finding, ...]:
    """Compare; changes nothing."""
    try:
        journal = state.load(paths)
    except JournalError as error:
        words = f"{error.message}; the machine stays as it is: {_in_force(system)}"
        return (Finding(words, FORCE),)
    if journal is None:
        return tuple(
            Finding(f"left by an activation that has no journal: {words}", DOWN)
            for words in leftovers.of_nobody(system, paths)
        )
    found = [
        Finding(problem, named[1] if (named := _COMMAND.search(problem)) else UP)
        for problem in status.gather(system, paths).problems
    ]
    return (*found, *_of_tor(journal, paths), *_of_settings(system, journal, paths))


def _in_force(system: System) -> str:
    held = backend.read(system)
    return "no rules" if held is None else backend.held_state(held) or "rules of no known state"


def _of_tor(journal: Journal, paths: Paths) -> Iterator[Finding]:
    noted = journal.undo.get("tor", {}).get("cgroup")
    if noted is not None and not Path(noted).is_dir():
        yield Finding(f"tor's control group {noted} is gone: tor may not leave", UP)
    for pid in tor_process.running(paths):
        if noted is not None and tor_process.own_group_of(pid) != noted:
            yield Finding(f"tor (process {pid}) is not in {noted}: it may not leave", UP)
        if not paths.control_socket.is_socket():
            yield Finding(f"{paths.control_socket} is gone: tor cannot be asked", UP)


def _of_settings(system: System, journal: Journal, paths: Paths) -> Iterator[Finding]:
    if journal.state == "routed" and applied.load(paths) is None:
        yield Finding(f"{paths.applied} is gone: what is in force is not known", UP)
    if (entry := journal.undo.get("routes")) is not None:
        for place in routes.missing(system, entry["saved"]):
            yield Finding(f"{place} is not local to this machine any more", UP)
    for name, value in journal.undo.get("sysctls", {}).get("saved", {}).get("ours", {}).items():
        path = _PROC_SYS / name
        if path.exists() and (now := path.read_text().strip()) != value:
            yield Finding(f"kernel setting {name} is {now} instead of {value}", UP)
    saved = journal.undo.get("resolver")
    if saved is not None and saved["kind"] == "renamed":
        waiting = resolver.waiting_name(paths.resolv_conf)
        if (
            resolver.is_ours(paths.resolv_conf, saved)
            and not waiting.is_symlink() | waiting.exists()
        ):
            yield Finding(
                f"{waiting} is gone: `onionward down` cannot put {paths.resolv_conf} back; "
                "write a new one there by hand",
                "",
            )


def repair(system: System, paths: Paths, report: Reporter) -> tuple[Finding, ...]:
    """Mend what `up` mends, and what `down` mends where nothing is protected anyway.

    Returns:
        What is left.

    Raises:
        OnionwardError: a command failed; it says what state the machine is in.

    """
    found = examine(system, paths)
    wanted = {finding.repair for finding in found}
    if UP in wanted and (text := applied.load(paths)) is not None:
        from onionward.config.parse import parse_with_network

        journal = state.load(paths)
        name = journal.config if journal is not None else str(paths.applied)
        # what was in force before cuts nobody who was not cut then
        up(system, Request(parse_with_network(text, name), accept_cut=True), paths, report)
    elif DOWN in wanted and not (backend.any_table(system) or backend.blocked_since_boot(system)):
        down(system, paths, report)
    else:
        return found
    return examine(system, paths)
