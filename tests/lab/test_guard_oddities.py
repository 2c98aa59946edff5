"""The guard lives through odd names, a full /run, and a resolv.conf that is a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.guard import process as guard
from onionward.lab import Lab
from onionward.paths import PATHS
from onionward.tor import process as tor_process
from tests.lab.lifecycle_machine import GUARD, Machine, difference, open_machine, until
from tests.lab.test_guard import events, switches, until_whole

FILL = "mount -o remount,size=1m /run; dd if=/dev/zero of=/run/fill bs=4k 2>/dev/null; true"
EMPTY = "rm -f /run/fill; mount -o remount,size=256m /run"


@pytest.fixture
def routed(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as machine:
        # a share of the memory is another size when the machine's memory has grown
        machine.output("sh", "-c", EMPTY)
        before = machine.snapshot()
        machine.up()
        yield machine
        machine.down()
        assert difference(before, machine.snapshot()) == ""


@pytest.mark.parametrize("name", ["x$(printf '\\377')y", "'a\"b'", "'end*'"])
def test_names_that_nft_cannot_be_told(routed: Machine, name: str) -> None:
    """Others that come later are covered all the same, and `status` goes on telling."""
    pids = routed.guard_pids()
    routed.output("sh", "-c", f"ip link add {name} type veth peer name far0")
    routed.output("ip", "link", "add", "later", "type", "bridge")
    try:

        def covered() -> bool:
            return "later" in routed.output("nft", "list", "table", "netdev", "onionward_lock_l2")

        until("the guard covers the later one", covered, 60)
        assert "appeared since" in routed.onionward("status").stdout
        assert "earlier interfaces" not in events(routed)
        assert routed.guard_pids() == pids
    finally:
        routed.run("ip", "link", "delete", "far0")
        routed.run("ip", "link", "delete", "later")
    until_whole(routed)


def test_a_name_that_steers_terminals(routed: Machine) -> None:
    """No command falls over it, `down` least of all, and none of it reaches a terminal."""
    make = "ip link add name \"$(printf 'q\\033[31m')\" type veth peer name far0"
    routed.output("sh", "-c", make)
    try:
        until("the guard has seen it", lambda: "far0" in str(routed.status()["problems"]), 60)
        known = [("status", 0), ("doctor", 1), ("check", 2), ("up", 2), ("verify", 0), ("down", 0)]
        shown = []
        for command, expected in known:
            done = routed.onionward(command, *(("--only", "dns") if command == "verify" else ()))
            assert done.returncode == expected, (command, done.stdout, done.stderr)
            shown.append(done)
        said = "".join(done.stdout + done.stderr for done in shown)
        assert "q?[31m" in said
        assert "\033" not in said
        assert "Traceback" not in said
        assert "Traceback" not in events(routed)
    finally:
        routed.run("ip", "link", "delete", "far0")
    routed.up()
    until_whole(routed)


def test_pipes_in_place_of_files_hold_nobody_up(routed: Machine) -> None:
    log = "/run/onionward/tor/log"
    routed.output("sh", "-c", f"mv {log} {log}.away; mkfifo {log}")
    (tor,) = routed.tor_pids()
    assert routed.run("timeout", "20", "onionward", "doctor").returncode in (0, 1)
    assert routed.status()["state"] == "routed"
    routed.output("kill", "-KILL", str(tor))
    until_whole(routed)
    assert routed.tor_pids() != [tor]
    assert routed.path(log).is_file()

    journal = routed.path("/var/lib/onionward/journal.json")
    aside = journal.with_name("aside")
    journal.rename(aside)
    try:
        routed.output("mkfifo", "/var/lib/onionward/journal.json")
        done = routed.onionward("status")
        assert done.returncode == 1
        assert "journal.json cannot be read: it is no regular file" in done.stderr
    finally:
        aside.rename(journal)


def test_what_runs_in_a_container_is_not_of_the_machine_around_it(routed: Machine) -> None:
    """It is called the same, and seen from here: `down` here must not end it there."""
    there = {entry.name for entry in Path("/proc").iterdir() if is_called_guard(entry)}
    assert there
    assert routed.guard_pids()
    assert guard.running(PATHS) == ()
    assert tor_process.running(PATHS) == ()


def is_called_guard(process: Path) -> bool:
    try:
        return GUARD in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_no_room_in_run(routed: Machine) -> None:
    pids = routed.guard_pids()
    try:
        routed.output("sh", "-c", FILL)
        routed.output("nft", "flush", "ruleset")
        until("the rules are back", lambda: "inet onionward\n" in routed.tables(), 60)
    finally:
        routed.output("sh", "-c", EMPTY)
    until_whole(routed)
    assert routed.guard_pids() == pids


def test_no_descriptor_to_be_had(routed: Machine) -> None:
    """The guard's own tables would end with it, and flushed rules would stay so."""
    (pid,) = routed.guard_pids()

    def limit(number: int) -> None:
        routed.output("prlimit", "--pid", str(pid), f"--nofile={number}:")

    limit(len(routed.output("ls", f"/proc/{pid}/fd").split()))
    try:
        before = switches(routed)
        routed.output("nft", "flush", "ruleset")
        until("it has tried and tries again", lambda: switches(routed) > before + 3, 20)
        report = routed.status()
        assert (report["state"], report["guard"]) == ("blocked", "running")
    finally:
        limit(1024)
    until_whole(routed)
    assert routed.guard_pids() == [pid]


def test_a_resolv_conf_that_never_ends(lab: Lab) -> None:
    with open_machine(lab) as machine:
        before = machine.snapshot()
        place = machine.path("/etc/resolv.conf")
        machine.up()
        try:
            machine.output("sh", "-c", "mkfifo /etc/pipe; mv /etc/pipe /etc/resolv.conf")
            machine.output("nft", "flush", "ruleset")
            # nobody waits at the pipe: rules are put back all the same
            until("rules are back", lambda: "table inet onionward\n" in machine.tables(), 20)
            assert machine.status()["resolver"] == "changed"
        finally:
            place.unlink()
        machine.down()
        assert difference(before, machine.snapshot()) == ""


def test_a_suspended_guard_is_named_and_replaced(routed: Machine) -> None:
    (pid,) = routed.guard_pids()
    routed.output("kill", "-STOP", str(pid))
    report = routed.status()
    assert report["guard"] == "suspended"
    assert any("the guard is suspended" in problem for problem in report["problems"])
    assert routed.onionward("doctor", "--repair").returncode == 0
    until_whole(routed)
    assert pid not in routed.guard_pids()


def test_only_the_guards_rules_are_left(routed: Machine) -> None:
    """What is said is so: blocked while they are owned, open when a copy stands in their place."""
    routed.pause_guard()
    routed.output("nft", "flush", "ruleset")
    report = routed.status()
    assert report["state"] == "blocked"
    assert any("only the guard's rules are left" in problem for problem in report["problems"])
    routed.end_guard()
    routed.output("nft", "add table inet onionward_lock; add table netdev onionward_lock_l2")
    report = routed.status()
    assert (report["state"], report["guard"]) == ("open", "ended")
    # and the copy is not in the way
    routed.up()
    until_whole(routed)
