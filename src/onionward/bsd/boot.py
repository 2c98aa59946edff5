"""`enable` and `disable` on BSD: what runs `up` at every boot, noted in the activation's journal.

The block of the boot is in pf.conf as long as the activation lasts; so these steps end with it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onionward import state
from onionward.boot.program import Program
from onionward.boot.program import program as program_here
from onionward.bsd import files
from onionward.bsd.kind import Kind
from onionward.bsd.steps import Step
from onionward.config.values import Config, Source
from onionward.errors import RefusedError
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System

NAMES = ("boot", "boot_start")
"""In the journal: the script, and the line that has the system run it."""
EXAMPLE = Program(("/usr/local/bin/onionward", "up"), {})

_OURS = "# Written by onionward: routes at boot; until it has, pf.conf's own block is in force."
_WORDS = "`up` at every boot"
_SERVICE = "onionward"
_RC_OPENBSD = """\
#!/bin/ksh
{ours}
daemon={program}
rc_bg=NO
rc_reload=NO
. /etc/rc.d/rc.subr
up={up}
rc_start() {{ rc_exec "${{up}}"; }}
rc_check() {{ {status} | grep -q '"state": "routed"'; }}
# rules stay until `onionward down` takes them away
rc_stop() {{ return 0; }}
rc_cmd $1
"""
_RC_FREEBSD = """\
#!/bin/sh
# PROVIDE: onionward
# REQUIRE: pf NETWORKING FILESYSTEMS
# KEYWORD: nojail
{ours}
. /etc/rc.subr
name="onionward"
rcvar="onionward_enable"
start_cmd="onionward_start"
status_cmd="onionward_status"
# rules stay until `onionward down` takes them away
stop_cmd=":"
onionward_start() {{ {up}; }}
onionward_status() {{ {status}; }}
load_rc_config $name
run_rc_command "$1"
"""


def program_of(config: Config) -> Program:
    """How `up` is called again with this configuration."""
    name = config.source.name
    return program_here(None if name == Source().name else name)


def steps(kind: Kind, program: Program) -> tuple[Step, ...]:
    """The script and what starts it, in the order in which they are taken."""
    up, status = _command(program), _command(program, "status", "--json")
    if kind.dialect == "openbsd-4.6":
        # there is no rc.d yet
        return (Step("boot", _WORDS, kind.etc / "rc.local", f"{up}\n", at_boot=True),)
    if kind.name == "openbsd":
        path, template = kind.etc / "rc.d" / _SERVICE, _RC_OPENBSD
        start = kind.etc / "rc.conf.local"
        # the last line of a name is the one that counts (rc.conf(8)); it does not add
        others = scripts_of(files.read(start) or "")
        lines = f"pkg_scripts={' '.join((*others, _SERVICE))}\n"
    else:
        scripts = Path("/usr/local/etc/rc.d") if kind.etc == Path("/etc") else kind.etc / "rc.d"
        path, template = scripts / _SERVICE, _RC_FREEBSD
        start, lines = kind.etc / "rc.conf", 'onionward_enable="YES"\n'
    text = template.format(
        ours=_OURS,
        program=shlex.quote(program.argv[0]),
        # OpenBSD's rc_exec hands a text to a shell
        up=shlex.quote(up) if kind.name == "openbsd" else up,
        status=status,
    )
    return (
        Step("boot", _WORDS, path, text, whole=True, mode=0o755, at_boot=True),
        Step("boot_start", "has the system run that", start, lines, at_boot=True),
    )


def _command(program: Program, *instead: str) -> str:
    """A line for sh(1); `instead` of "up"."""
    variables = [f"{name}={value}" for name, value in program.environment.items()]
    argv = program.argv if not instead else (*program.argv[:-1], *instead)
    return shlex.join([*(["env", *variables] if variables else []), *argv])


def scripts_of(text: str) -> tuple[str, ...]:
    """The packages' scripts that rc.conf.local names, ours aside."""
    found = re.findall(r"(?m)^pkg_scripts=[\"']?([^\"'#\n]*)", text)
    return tuple(word for word in (found[-1].split() if found else ()) if word != _SERVICE)


def without_ours(text: str) -> str:
    """rc.conf.local that rcctl(8) has written again meanwhile, without our name in it."""
    lines = []
    for line in text.splitlines(keepends=True):
        if line.startswith("pkg_scripts=") and _SERVICE in re.split(r"[\s\"'=]+", line):
            others = " ".join(scripts_of(line))
            if others:
                lines.append(f"pkg_scripts={others}\n")
        else:
            lines.append(line)
    return "".join(lines)


def restore(system: System, entry: Mapping[str, Any]) -> str:
    """Take one of these steps back; from every point, and twice.

    Returns:
        What was left alone and why, or "".

    """
    saved = entry["file"]
    note = files.restore(system, saved)
    path = Path(saved["path"])
    now = files.read(path)
    if now is not None and path.name == "rc.conf.local" and now != saved["before"]:
        rest = without_ours(now)
        if rest != now:
            system.write_file(path, rest, mode=saved["mode"], owner=tuple(saved["owner"]))
    return note


def taken(journal: Journal | None) -> bool:
    """Whether a boot runs `up`."""
    return journal is not None and any(name in journal.undo for name in NAMES)


def recognised(kind: Kind) -> dict[str, Any]:
    """What undoes these steps where there is no journal: known by our words in the script."""
    found: dict[str, Any] = {}
    for step in steps(kind, EXAMPLE):
        now = files.read(step.path) if step.path else None
        if step.whole and _OURS not in (now or "").splitlines():
            return {}
        if step.path is None or now is None:
            continue
        saved = files.survey(step.path, now, lines="" if step.whole else step.lines)
        before = None if step.whole else files.without_lines(now, step.lines)
        found[step.name] = {"file": {**saved, "before": before}, "undo": []}
    return found


def take(system: System, paths: Paths, journal: Journal, kind: Kind, config: Config) -> Journal:
    """Have every boot run `up` with this configuration, as far as it does not yet.

    Returns:
        The journal with what undoes it; it is on disk before anything else is.

    Raises:
        RefusedError: a script of this name is somebody else's; nothing was touched.

    """
    for step in steps(kind, program_of(config)):
        if step.path is None:
            continue
        if step.whole and step.name not in journal.undo and files.read(step.path) is not None:
            raise RefusedError(
                f"{step.path} was not made by onionward; nothing was touched",
                "move it away, then repeat",
            )
        saved = files.renewed(
            journal.undo.get(step.name, {}).get("file"),
            step.path,
            step.lines,
            whole=step.whole,
            mode=step.mode,
        )
        entry = {"file": saved, "undo": []}
        if journal.undo.get(step.name) != entry:
            journal = replace(journal, undo={**journal.undo, step.name: entry})
            state.save(system, paths, journal)
        files.write(system, saved)
    return journal


def give_back(system: System, paths: Paths, journal: Journal) -> tuple[Journal, list[str]]:
    """Have no boot run `up` any longer; what is in force stays.

    Returns:
        The journal without these steps, and what was left alone and why.

    """
    notes = []
    for name in reversed(NAMES):
        if name in journal.undo:
            notes.append(restore(system, journal.undo[name]))
            rest = {key: entry for key, entry in journal.undo.items() if key != name}
            journal = replace(journal, undo=rest)
            state.save(system, paths, journal)
    return journal, [note for note in notes if note]
