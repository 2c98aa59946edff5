"""Odd surroundings: a suspended tor, a resolv.conf that is no file, a umask, a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import (
    CONFIG,
    RESOLV_CONF,
    WAITING,
    Machine,
    exactly_back,
    open_machine,
    until,
)
from tests.lab.lifecycle_wire import Wire

BOB = '[[user]]\nname = "bob"\n'
ASIDE = "/etc/resolv.conf.aside"


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def assert_page(machine: Machine) -> None:
    url = f"http://{machine.lab.web4}/"
    machine.output("curl", "-sS", "--fail", "--noproxy", "*", "-m", "20", url)


def shell(machine: Machine, before: str, command: str, after: str = "") -> tuple[int, str]:
    """Exit status and standard error of a command of onionward, in a shell's words."""
    line = f"{before} onionward {command} --config {CONFIG} {after}"
    done = machine.run("sh", "-c", line)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@contextmanager
def directory_as_resolv_conf(machine: Machine) -> Iterator[None]:
    machine.output("mv", str(RESOLV_CONF), ASIDE)
    machine.output("mkdir", str(RESOLV_CONF))
    try:
        yield
    finally:
        machine.output("rmdir", str(RESOLV_CONF))
        machine.output("mv", ASIDE, str(RESOLV_CONF))


def test_suspended_tor_is_named_and_replaced(machine: Machine) -> None:
    with exactly_back(machine):
        machine.up()
        pids = machine.tor_pids()
        with Wire(machine) as wire:
            machine.output("kill", "-STOP", *map(str, pids))
            problems = machine.status()["problems"]
            assert [p for p in problems if "tor is suspended" in p]
            assert "tor is suspended" in machine.onionward("status").stdout
            machine.up()
            wire.assert_silent()
        assert not set(pids) & set(machine.tor_pids())
        assert machine.status()["problems"] == []
        assert_page(machine)
        machine.down()


@pytest.mark.parametrize("command", ["check", "up"])
def test_resolv_conf_that_is_a_directory(machine: Machine, command: str) -> None:
    with directory_as_resolv_conf(machine), exactly_back(machine):
        done = machine.onionward(command)
        assert done.returncode == 2
        assert f"{RESOLV_CONF} is neither a file nor a link" in done.stderr


def test_resolv_conf_that_becomes_a_directory(machine: Machine) -> None:
    with exactly_back(machine):
        machine.up()
        with Wire(machine) as wire:
            with directory_as_resolv_conf(machine):
                report = machine.status()
                assert report["state"] == "routed"
                assert report["resolver"] == "changed"
                assert [p for p in report["problems"] if f"{RESOLV_CONF} was changed" in p]
            wire.assert_silent()
        assert machine.status()["problems"] == []
        machine.down()


def test_the_original_waits_until_a_directory_in_its_place_is_gone(machine: Machine) -> None:
    with exactly_back(machine):
        machine.up()
        machine.output("rm", str(RESOLV_CONF))
        machine.output("mkdir", str(RESOLV_CONF))
        done = machine.onionward("down")
        assert done.returncode == 1
        assert f"{RESOLV_CONF} is neither a file nor a link" in done.stderr
        assert machine.path(RESOLV_CONF).is_dir()
        assert machine.path(WAITING).is_file()
        machine.output("rmdir", str(RESOLV_CONF))
        machine.down()


def test_down_that_cannot_restore_says_what_state_the_machine_is_in(machine: Machine) -> None:
    mounted = "/run/onionward-lab/mounted-resolv.conf"
    machine.output("cp", str(RESOLV_CONF), mounted)
    with exactly_back(machine):
        machine.output("mount", "--bind", mounted, str(RESOLV_CONF))
        machine.up()
        machine.output("umount", str(RESOLV_CONF))
        with directory_as_resolv_conf(machine):
            done = machine.onionward("down")
            assert done.returncode == 1, done.stdout + done.stderr
            assert f"restoring {RESOLV_CONF}" in done.stderr
            assert "The machine is open: the rules are gone" in done.stderr
            assert "Traceback" not in done.stderr
            report = machine.status()
            assert report["state"] == "open"
            assert [p for p in report["problems"] if "NOT PROTECTED" in p]
        machine.output("mount", "--bind", mounted, str(RESOLV_CONF))
        machine.down()
        machine.output("umount", str(RESOLV_CONF))
    machine.output("rm", mounted)


@pytest.mark.parametrize("mask", ["0777", "0000"])
def test_strange_umask(machine: Machine, mask: str) -> None:
    with exactly_back(machine):
        for _ in range(2):
            assert shell(machine, f"umask {mask};", "up") == (0, "")
            assert machine.status()["problems"] == []
            assert_page(machine)
            # what programs of every account read
            assert machine.path(RESOLV_CONF).stat().st_mode & 0o777 == 0o644
            assert shell(machine, f"umask {mask};", "down") == (0, "")


def test_output_that_nobody_can_take(machine: Machine) -> None:
    with exactly_back(machine):
        assert shell(machine, "", "up", "> /dev/full")[0] == 0
        assert machine.status()["state"] == "routed"
        assert machine.status()["problems"] == []
        assert_page(machine)
        status, words = shell(machine, "", "status", "> /dev/full")
        assert status == 1
        assert "No space left" in words
        status, words = shell(machine, "", "status --json", "> /dev/full")
        assert status == 1
        assert "No space left" in words
        assert shell(machine, "", "down", "> /dev/full")[0] == 0
        assert machine.status()["state"] == "off"


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-"])
def test_standard_streams_that_are_closed(machine: Machine, closed: str) -> None:
    """As of some that start daemons: what is opened next would have their numbers."""
    with exactly_back(machine):
        assert shell(machine, "", "up", closed)[0] == 0
        assert machine.status()["problems"] == []
        assert_page(machine)
        assert shell(machine, "", "down", closed)[0] == 0
        assert machine.status()["state"] == "off"


def test_file_systems_and_programs_that_fail_meanwhile(machine: Machine) -> None:
    """As after an error of a disk: what protects goes on, and it is said what does not."""
    with exactly_back(machine):
        machine.up()
        with read_only(machine, "/etc"):
            machine.kill_tor()
            machine.up()
            assert machine.status()["problems"] == []
            assert_page(machine)
        with without(machine, "conntrack"):
            assert "conntrack is missing; install it" in machine.onionward("doctor").stdout
        with without(machine, "nft"):
            done = machine.onionward("status")
            assert done.returncode == 1
            assert "Packet rules that are loaded stay in force" in done.stderr
        with read_only(machine, "/var/lib/onionward"):
            done = machine.onionward("down")
            assert done.returncode == 1
            assert "removing the journal" in done.stderr
            assert "The machine is open" in done.stderr
        machine.down()


def test_down_that_fails_before_it_opens_leaves_a_guard(machine: Machine) -> None:
    with exactly_back(machine):
        with Wire(machine) as wire:
            machine.say(machine.lab.web4)
            assert wire.packets()
        machine.up()
        with without(machine, "ss"):
            done = machine.onionward("down")
            assert done.returncode == 1
            assert "still protected by the rules in force" in done.stderr
        with Wire(machine) as wire:
            machine.output("nft", "flush", "ruleset")
            machine.say(machine.lab.web4)
            until("rules are back", lambda: "onionward\n" in machine.tables(), 20)
            machine.say(machine.lab.web4)
            assert wire.packets() == []
        assert machine.guard_pids()
        machine.down()


def test_another_configuration_is_named_with_what_it_gives_up(machine: Machine) -> None:
    machine.configure(f'[[user]]\nname = "alice"\n{BOB}')
    machine.up()
    other = CONFIG.with_name("other.toml")
    machine.path(other).write_text(machine.path(CONFIG).read_text().replace(BOB, ""))
    told = machine.run("onionward", "--config", str(other), "check")
    assert f"{CONFIG} is in force; this is by {other}" in told.stderr
    done = machine.run("onionward", "--config", str(other), "up")
    assert f"{CONFIG} was in force; {other} takes its place" in done.stdout
    assert "no longer so: user: bob" in done.stdout
    machine.down()
    told = machine.onionward("explain", "tcp", "192.0.2.1", "443")
    assert told.stderr.startswith("note: onionward is not on")


def test_what_is_made_in_the_lab_stays_there(machine: Machine) -> None:
    name = "lab-maiden"
    machine.configure(f'[[user]]\nname = "{name}"\n')
    machine.up("--create-users")
    try:
        home = machine.output("sh", "-c", f"echo ~{name}").strip()
        assert home.startswith("/run/")
        assert machine.path(home).is_dir()
        assert not Path("/home", name).exists()
    finally:
        machine.down()
        machine.output("userdel", "--remove", name)
    done = machine.run("onionward", "lab", "up", "--name", "inner")
    assert done.returncode == 2
    assert "this is a machine of a lab already" in done.stderr


@contextmanager
def without(machine: Machine, name: str) -> Iterator[None]:
    """A program that cannot be executed."""
    tool = machine.output("sh", "-c", 'readlink -f "$(command -v "$1")"', "sh", name).strip()
    machine.output("mount", "--bind", "/dev/null", tool)
    try:
        yield
    finally:
        machine.output("umount", tool)


@contextmanager
def read_only(machine: Machine, place: str) -> Iterator[None]:
    machine.output("mount", "--bind", place, place)
    machine.output("mount", "-o", "remount,bind,ro", place)
    try:
        yield
    finally:
        machine.output("umount", place)
