"""`enable` and `disable` on BSD: steps of the same journal, exactly back, alive after a kill."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from onionward.boot.program import Program
from onionward.bsd import boot, lifecycle
from onionward.bsd.kind import KINDS
from onionward.bsd.status import status
from onionward.config import load
from onionward.errors import RefusedError, StepError
from onionward.status_text import to_text_on_bsd
from tests.pf.bsd import Bsd, DeathError
from tests.pf.conftest import Make
from tests.pf.test_lifecycle import LAN, SYSTEMS, Silent, down, everything

STARTED = {
    "openbsd": ("rc.conf.local", "pkg_scripts=dbus_daemon messagebus onionward\n"),
    "freebsd": ("rc.conf", 'onionward_enable="YES"\n'),
}
THEIRS = "ntpd_flags=-s\npkg_scripts='dbus_daemon messagebus'  # theirs\nsmtpd_flags="


def made(make: Make, system: str, text: str = LAN) -> Bsd:
    machine = make(system, text)
    write_config(machine, text)
    if system == "openbsd":
        (machine.kind.etc / "rc.conf.local").write_text(THEIRS)
    return machine


def write_config(machine: Bsd, text: str, name: str = "onionward.toml") -> Path:
    path = machine.kind.etc / name
    path.write_text(text)
    return path


def up(machine: Bsd, name: str = "onionward.toml") -> None:
    config = load(machine.kind.etc / name)
    lifecycle.up(machine, config, machine.kind, machine.paths, Silent())


def enable(machine: Bsd, name: str = "onionward.toml") -> None:
    config = load(machine.kind.etc / name)
    lifecycle.enable(machine, config, machine.kind, machine.paths, Silent())


def disable(machine: Bsd) -> bool:
    return lifecycle.disable(machine, machine.paths, Silent())


def script(machine: Bsd) -> Path:
    return machine.kind.etc / "rc.d" / "onionward"


@pytest.mark.parametrize("system", SYSTEMS)
def test_enable_and_disable(make: Make, system: str) -> None:
    machine = made(make, system)
    before = everything(machine)
    up(machine)
    routed = everything(machine)
    assert status(machine, machine.paths).at_boot == "disabled"
    machine.fates.clear()
    enable(machine)
    name, line = STARTED[system]
    assert (machine.kind.etc / name).read_text().endswith(line)
    assert f"--config {machine.kind.etc}/onionward.toml up" in script(machine).read_text()
    assert script(machine).stat().st_mode & 0o777 == 0o755
    found = status(machine, machine.paths)
    assert (found.state, found.problems, found.at_boot) == ("routed", (), "enabled")
    assert "  at boot   blocked by pf.conf, then routed" in to_text_on_bsd(found)
    enabled = everything(machine)
    enable(machine)
    assert everything(machine) == enabled, "twice"
    assert disable(machine)
    assert everything(machine) == routed
    assert not disable(machine), "twice"
    assert set(machine.fates) == {"trans-port"}
    enable(machine)
    down(machine)
    assert everything(machine) == before


VERBS: dict[str, Callable[[Bsd], object]] = {"enable": enable, "disable": disable, "down": down}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("verb", VERBS)
def test_killed_anywhere_it_goes_on(make: Make, system: str, verb: str) -> None:
    before = everything(made(make, system))
    routed = None
    for survives in itertools.count():
        machine = made(make, system)
        up(machine)
        routed = routed or everything(machine)
        if verb != "enable":
            enable(machine)
        machine.survives = len(machine.effects) + survives
        try:
            VERBS[verb](machine)
        except (DeathError, StepError):
            machine.survives = None
            if verb == "down":
                down(machine)
            else:
                (enable if survives % 2 else disable)(machine)
                disable(machine)
                assert everything(machine) == routed, survives
                down(machine)
            assert everything(machine) == before, survives
        else:
            break
    assert survives >= 4


@pytest.mark.parametrize("system", SYSTEMS)
def test_up_with_another_configuration_is_what_a_boot_repeats(make: Make, system: str) -> None:
    machine = made(make, system)
    before = everything(machine)
    up(machine)
    enable(machine)
    write_config(machine, LAN, "other.toml")
    up(machine, "other.toml")
    assert "other.toml up" in script(machine).read_text()
    assert "onionward.toml" not in script(machine).read_text()
    assert status(machine, machine.paths).problems == ()
    (machine.kind.etc / "other.toml").unlink()
    down(machine)
    assert everything(machine) == before


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_reload_that_is_killed_anywhere_leaves_nothing(make: Make, system: str) -> None:
    """Files that it writes anew may have the text of before when it dies."""
    both = made(make, system)
    write_config(both, "[host]\nroute = 'tor'\n", "other.toml")
    before = everything(both)
    for survives in itertools.count():
        machine = made(make, system)
        write_config(machine, "[host]\nroute = 'tor'\n", "other.toml")
        up(machine)
        enable(machine)
        machine.survives = len(machine.effects) + survives
        machine.fates.clear()
        try:
            up(machine, "other.toml")
        except (DeathError, StepError):
            assert "direct" not in machine.fates
            machine.survives = None
            down(machine)
            assert everything(machine) == before, survives
        else:
            break
    assert survives > 15
    machine.survives = None
    down(machine)
    assert everything(machine) == before


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_others_write_meanwhile_stays(make: Make, system: str) -> None:
    machine = made(make, system)
    up(machine)
    enable(machine)
    path = machine.kind.etc / STARTED[system][0]
    if system == "openbsd":
        # rcctl(8) sorts the file and writes the names anew
        path.write_text("ntpd_flags=-s\npkg_scripts=dbus_daemon onionward unbound\nsmtpd_flags=\n")
        left = "ntpd_flags=-s\npkg_scripts=dbus_daemon unbound\nsmtpd_flags=\n"
    else:
        path.write_text(f'{path.read_text()}ntpd_enable="YES"\n')
        left = 'hostname="gate"\nsshd_enable="YES"\nntpd_enable="YES"\n'
    up(machine)
    assert "onionward" in path.read_text()
    assert "unbound" in path.read_text() or "ntpd_enable" in path.read_text()
    disable(machine)
    assert "onionward" not in path.read_text()
    down(machine)
    assert path.read_text() == left


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_a_journal_force_takes_it_back(make: Make, system: str) -> None:
    machine = made(make, system)
    up(machine)
    enable(machine)
    machine.paths.journal.write_text("{")
    assert down(machine, force=True)
    assert not script(machine).exists()
    assert "onionward" not in (machine.kind.etc / STARTED[system][0]).read_text()


def test_what_cannot_be_is_refused_and_touches_nothing(make: Make) -> None:
    machine = made(make, "openbsd")
    passing = [f"mkdir {machine.paths.runtime}", f"rm -r {machine.paths.runtime}"]
    with pytest.raises(RefusedError, match=r"nothing is on.*`onionward up`"):
        enable(machine)
    assert machine.effects == passing
    up(machine)
    write_config(machine, LAN, "other.toml")
    script(machine).parent.mkdir()
    script(machine).write_text("#!/bin/ksh\n# of somebody else\n")
    state = everything(machine)
    with pytest.raises(RefusedError, match=r"onionward.toml is in force, not .*other.toml"):
        enable(machine, "other.toml")
    with pytest.raises(RefusedError, match=r"rc.d/onionward was not made by onionward"):
        enable(machine)
    assert everything(machine) == state
    assert status(machine, machine.paths).at_boot == "disabled"
    down(machine)
    assert script(machine).read_text().endswith("of somebody else\n")


_RC_SUBR = """\
rc_exec() { sh -c "$*"; }
rc_cmd() { case $1 in start) rc_start;; check) rc_check;; stop) rc_stop;; esac; }
load_rc_config() { :; }
run_rc_command() { case $1 in start) eval "$start_cmd";; check) eval "$status_cmd";; esac; }
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_script_calls_what_it_should(system: str, tmp_path: Path) -> None:
    """With a stand-in for the system's rc.subr, and a path that needs quotes."""
    called = tmp_path / "a b's $HOME/onionward"
    called.parent.mkdir()
    called.write_text('#!/bin/sh\nprintf "%s|" "$PYTHONPATH" "$@"\necho \'"state": "routed"\'\n')
    called.chmod(0o755)
    program = Program((str(called), "--config", '/etc/"x" $y.toml', "up"), {"PYTHONPATH": "/a b"})
    text = boot.steps(KINDS[system]._replace(etc=tmp_path), program)[0].lines
    (tmp_path / "rc.subr").write_text(_RC_SUBR)
    text = text.replace("/etc/rc.d/rc.subr", f"{tmp_path}/rc.subr")
    text = text.replace(". /etc/rc.subr", f". {tmp_path}/rc.subr")
    found = {
        verb: subprocess.run(
            ["sh", "-euc", text, "onionward", verb], capture_output=True, text=True, check=True
        ).stdout
        for verb in ("start", "check")
    }
    assert found["start"] == '/a b|--config|/etc/"x" $y.toml|up|"state": "routed"\n'
    status_line = '/a b|--config|/etc/"x" $y.toml|status|--json|"state": "routed"\n'
    # OpenBSD's answer is an exit status
    assert found["check"] == ("" if system == "openbsd" else status_line)
