"""What is, against what should be: each deviation with the command that repairs it.

Repairing never opens the network: what only `down` can mend is named while rules are in force.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onionward import applied, backend, routes, saved_rulesets, state, status
from onionward.config.values import DEFAULT_PATH
from onionward.dns import file
from onionward.dns import host as resolver
from onionward.errors import JournalError
from onionward.lifecycle import Reporter, Request, down, leftovers, up
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System
from onionward.tor import clock
from onionward.tor import process as tor_process

UP, DOWN, FORCE = "onionward up", "onionward down", "onionward down --force"
REPAIR = "onionward doctor --repair"
_COMMAND = re.compile(r"`((?:onionward|umount) [^`]+)`")
_PROC_SYS = Path("/proc/sys")


class Finding(NamedTuple):
    """A deviation.

    Attributes:
        words: what is not as it should be.
        repair: the command that mends it, or "" when none does.
        by_up: whether it is `up` with the configuration in force that mends it.

    """

    words: str
    repair: str
    by_up: bool = False


def examine(system: System, paths: Paths) -> tuple[Finding, ...]:
    """Compare; changes nothing."""
    try:
        journal = state.load(paths)
    except JournalError as error:
        words = f"{error.message}; the machine stays as it is: {_in_force(system)}"
        return (Finding(words, FORCE),)
    if journal is None:
        left = leftovers.of_nobody(system, paths)
        return (
            *(
                Finding(f"left by an activation that has no journal: {words}", DOWN)
                for words in left
            ),
            *_of_orphan(paths),
            *(Finding(words, REPAIR) for words in saved_rulesets.problems()),
        )
    seen = status.gather(system, paths)
    found = [
        Finding(problem, named[1] if (named := _COMMAND.search(problem)) else UP)
        for problem in seen.problems
    ]
    if seen.clock_skew is not None:
        skew = clock.Skew(seen.clock_skew, seen.clock_source)
        found.append(Finding(f"the clock of this machine is {skew.words()}", ""))
    found += [*_of_tor(journal, paths), *_of_settings(system, journal, paths), *_of_tools(paths)]
    up_again = _up_again(journal, paths)
    return tuple(f._replace(repair=up_again, by_up=True) if f.repair == UP else f for f in found)


def _up_again(journal: Journal, paths: Paths) -> str:
    """The `up` that leaves in force what is: without arguments it reads the default place."""
    in_force = applied.load(paths)
    if in_force is None:
        elsewhere = Path(journal.config).is_file() and journal.config != str(DEFAULT_PATH)
        return f"{UP} --config {shlex.quote(journal.config)}" if elsewhere else UP
    try:
        default = DEFAULT_PATH.read_text()
    except (OSError, UnicodeDecodeError):
        default = ""
    return UP if default == in_force else REPAIR


def _in_force(system: System) -> str:
    for one in backend.present(system):
        if (held := one.read(system)) is not None:
            return one.held_state(held) or "rules of no known state"
    return "no rules"


def _of_tor(journal: Journal, paths: Paths) -> Iterator[Finding]:
    noted = journal.undo.get("tor", {}).get("cgroup")
    if noted is not None and not Path(noted).is_dir():
        yield Finding(f"tor's control group {noted} is gone: tor may not leave", UP)
    for pid in tor_process.running(paths):
        if noted is not None and tor_process.own_group_of(pid) != noted:
            yield Finding(f"tor (process {pid}) is not in {noted}: it may not leave", UP)
        if not paths.control_socket.is_socket():
            yield Finding(f"{paths.control_socket} is gone: tor cannot be asked", UP)


def _of_orphan(paths: Paths) -> Iterator[Finding]:
    if lost := resolver.lost_original(paths):
        yield Finding(lost, "")


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
    if saved is not None and resolver.original_is_lost(saved, paths):
        yield Finding(
            f"{file.waiting_name(paths.resolv_conf)} is gone: `onionward down` cannot put "
            f"{paths.resolv_conf} back; write a new one there by hand",
            "",
        )


def _of_tools(paths: Paths) -> Iterator[Finding]:
    """Without these `down` could not cut what went through tor."""
    from onionward.config import parse
    from onionward.facts import missing_tools
    from onionward.preflight import installing, missing

    if (text := applied.load(paths)) is not None:
        for tool in missing_tools(parse(text, str(paths.applied))):
            yield Finding(missing(tool), installing(tool))


def repair(system: System, paths: Paths, report: Reporter) -> tuple[Finding, ...]:
    """Mend what `up` mends, and what `down` mends where nothing is protected anyway.

    Returns:
        What is left.

    Raises:
        OnionwardError: a command failed; it says what state the machine is in.

    """
    for words, done in saved_rulesets.take_out(system):
        (report.step if done else report.warn)(words)
    found = examine(system, paths)
    wanted = {finding.repair for finding in found}
    if any(finding.by_up for finding in found) and (text := applied.load(paths)) is not None:
        from onionward.config.parse import parse_with_network

        journal = state.load(paths)
        name = journal.config if journal is not None else str(paths.applied)
        # what was in force before cuts nobody who was not cut then
        up(system, Request(parse_with_network(text, name), accept_cut=True), paths, report)
    elif DOWN in wanted and not (backend.present(system) or backend.blocked_since_boot(system)):
        down(system, paths, report)
    else:
        return found
    return examine(system, paths)
