"""`onionward run` as root: how applications end and what they leave, and what befalls their keeper.

The machine is off all the time but where a test says otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.app.root.places import INTERFACE, TOR4, TOR6
from onionward.lab import Lab
from onionward.paths import PATHS
from tests.lab.app_bench import KEEPER, processes
from tests.lab.app_machine import (
    PATIENCE,
    assert_gone,
    devices,
    launcher,
    launchers,
    machine_with_runs,
    run,
    started,
)
from tests.lab.lifecycle_machine import Machine, inside_pid, until


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with machine_with_runs(lab) as opened:
        yield opened


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_however_it_ends(machine: Machine, number: signal.Signals) -> None:
    process, word = started(machine)
    assert len(devices(machine)) == 1
    machine.output("kill", f"-{number}", str(launcher(machine, process)))
    assert_gone(machine, word)
    assert process.wait(PATIENCE) != 0


def test_what_is_left_running_ends_with_the_command(machine: Machine) -> None:
    done = run(machine, "--", "sh", "-c", "setsid sleep 5432123 & exit 4")
    assert done.returncode == 4
    assert_gone(machine, "5432123")


def test_a_killed_keeper_is_replaced_and_the_run_goes_on(machine: Machine, lab: Lab) -> None:
    url = f"http://{lab.web4}/"
    fetch = f"curl -sS -m 60 --retry 20 --retry-all-errors --retry-delay 1 {url}"
    script = f"read x; {fetch}; read x"
    process = machine.spawn("onionward", "run", "--", "sh", "-c", f"echo ready; {script}")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    (keeper,) = processes(machine.path("/"), KEEPER)
    machine.output("kill", "-KILL", str(keeper))
    until(
        "another keeper",
        lambda: processes(machine.path("/"), KEEPER) not in ([], [keeper]),
        patience=PATIENCE,
    )
    process.stdin.write("go\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["client"] in lab.exits
    until("its rules", lambda: "onionward_run_lock" in machine.tables(), patience=PATIENCE)
    # it is none of the run's processes, and does not end with them
    (keeper,) = processes(machine.path("/"), KEEPER)
    namespaces = [f"/proc/{pid}/ns/pid" for pid in (1, keeper)]
    assert len(set(machine.output("readlink", *namespaces).split())) == 1
    process.communicate("", timeout=PATIENCE)
    until("its device is gone", lambda: devices(machine) == [], patience=PATIENCE)
    assert processes(machine.path("/"), KEEPER) == [keeper]


def test_a_keeper_that_is_killed_while_a_run_begins_is_replaced(machine: Machine) -> None:
    run(machine, "true")
    (keeper,) = processes(machine.path("/"), KEEPER)
    process = machine.spawn("onionward", "run", "--", "sh", "-c", "read x; exit 7")
    pid = inside_pid(process)
    known = Path(f"/proc/{machine.host.pid}/net/dev")
    deadline = time.monotonic() + PATIENCE
    while INTERFACE not in known.read_text():
        assert time.monotonic() < deadline
    # it has its place, and does not watch yet
    os.kill(pid, signal.SIGSTOP)
    machine.output("kill", "-KILL", str(keeper))
    # nsenter has stopped with it
    process.send_signal(signal.SIGCONT)
    until(
        "another keeper",
        lambda: processes(machine.path("/"), KEEPER) not in ([], [keeper]),
        patience=PATIENCE,
    )
    process.communicate("go\n", timeout=PATIENCE)
    assert process.returncode == 7
    until("its device is gone", lambda: devices(machine) == [], patience=PATIENCE)


def test_signals_reach_the_command_while_another_keeper_is_called(machine: Machine) -> None:
    run(machine, "true")
    process, word = started(machine)
    pid = launcher(machine, process)
    lock = "/run/onionward-runs/keeper.lock"
    machine.output("kill", "-STOP", str(pid))
    machine.output("kill", "-KILL", *map(str, processes(machine.path("/"), KEEPER)))
    # as long as somebody has the lock there is no other one, and it is waited for
    holder = machine.spawn("flock", lock, "sh", "-c", "echo locked; read x")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    process.send_signal(signal.SIGCONT)  # nsenter has stopped with it
    # besides the first process of the run and its command
    children = machine.path(f"/proc/{pid}/task/{pid}/children")
    until("it calls", lambda: len(children.read_text().split()) == 3, patience=PATIENCE)
    begun = time.monotonic()
    machine.output("kill", "-TERM", str(pid))
    process.wait(PATIENCE)
    assert time.monotonic() - begun < 20  # it would be waited for for half a minute
    assert_gone(machine, word)
    holder.communicate("", timeout=PATIENCE)


def test_a_run_that_gets_no_other_keeper_has_no_network(machine: Machine) -> None:
    script = "while read x; do ip -o link show tor0; done"
    process = machine.spawn("onionward", "run", "--", "sh", "-c", script)

    def is_up() -> bool:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        return "NOARP,UP" in process.stdout.readline()

    assert is_up()
    starters = [str(pid) for pid in launchers(machine, "run")]
    lock = "/run/onionward-runs/keeper.lock"
    machine.output("kill", "-STOP", *starters)
    machine.output("kill", "-KILL", *map(str, processes(machine.path("/"), KEEPER)))
    # where there is a directory no keeper can lock a file
    machine.output("sh", "-c", f"rm {lock}; mkdir {lock}")
    machine.output("kill", "-CONT", *starters)
    try:
        until("its network is gone", lambda: not is_up(), patience=PATIENCE)
    finally:
        machine.output("rmdir", lock)
        machine.close()
    until("its device is gone", lambda: devices(machine) == [], patience=PATIENCE)
    run(machine, "true")


def test_a_run_waits_at_another_keeper_for_a_tor(machine: Machine, lab: Lab) -> None:
    url = f"http://{lab.web4}/"
    script = f"read x; curl -sS -m 60 --retry 20 --retry-all-errors --retry-delay 1 {url}"
    process = machine.spawn("onionward", "run", "--", "sh", "-c", f"echo ready; {script}")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    starters = [str(pid) for pid in launchers(machine, "run")]
    machine.output("kill", "-STOP", *starters)
    machine.output("kill", "-KILL", *map(str, processes(machine.path("/"), KEEPER)))
    # nobody knows what the machine is in, so there is no tor for anybody
    machine.path(PATHS.journal).write_text("damaged")
    machine.output("kill", "-CONT", *starters)
    until("its rules", lambda: "onionward_run_lock" in machine.tables(), patience=PATIENCE)

    def worked() -> int:
        stats = [machine.path(f"/proc/{pid}/stat").read_text().split()[13:15] for pid in starters]
        return sum(int(ticks) for pair in stats for ticks in pair)

    begun, before = time.monotonic(), worked()
    until("it has waited", lambda: time.monotonic() > begun + 3, patience=PATIENCE)
    # hundredths of a second: it does not call over and over
    assert worked() - before < 50
    machine.path(PATHS.journal).unlink()
    process.stdin.write("go\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["client"] in lab.exits
    machine.close()


def test_flushed_rules_come_back_and_meanwhile_hold(machine: Machine, lab: Lab) -> None:
    process, word = started(machine)
    machine.output("nft", "flush", "ruleset")
    # nobody else can flush the keeper's own
    assert "onionward_run_lock" in machine.tables()
    until("the others are back", lambda: "onionward_run\n" in machine.tables(), patience=PATIENCE)
    done = run(machine, "--", "curl", "-sS", "-m", "60", f"http://{lab.web4}/")
    assert json.loads(done.stdout)["client"] in lab.exits, done.stderr
    process.kill()
    assert_gone(machine, word)


def test_a_keeper_without_runs_ends_and_takes_all_of_its_own(machine: Machine) -> None:
    machine.down()
    start = (
        "import subprocess; from onionward.app.root import keeper;"
        "subprocess.run([*keeper.command(), '2'], check=True)"
    )
    machine.output("python", "-c", start)
    process = machine.spawn("onionward", "run", "--", "sh", "-c", "echo begun; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    until("longer than it may be idle", lambda: time.monotonic() > begun + 3, patience=PATIENCE)
    assert len(processes(machine.path("/"), KEEPER)) == len(machine.tor_pids()) == 1
    process.communicate("", timeout=PATIENCE)
    until("it ends", lambda: not processes(machine.path("/"), KEEPER), patience=PATIENCE)
    assert machine.tor_pids() == []
    assert "onionward_run" not in machine.tables()
    assert not machine.path("/run/onionward-runs").exists()


def test_nobody_outside_speaks_to_tors_address_even_without_rules_of_runs(
    machine: Machine, lab: Lab
) -> None:
    places = ((TOR4, TOR4, lab.host4), (TOR6, f"[{TOR6}]", lab.host6))
    for place, _, host in places:
        machine.output("ip", "route", "add", place, "via", host, on="neighbour")

    def asked() -> list[int]:
        urls = (f"http://{name}:940/" for _, name, _ in places)
        return [
            machine.run("curl", "-s", "-m", "2", url, on="neighbour").returncode for url in urls
        ]

    try:
        run(machine, "true")
        machine.output("kill", "-KILL", *map(str, processes(machine.path("/"), KEEPER)))
        until("its rules go", lambda: "run_lock" not in machine.tables(), patience=PATIENCE)
        assert asked() == [28, 28]
        machine.output("nft", "delete", "table", "inet", "onionward_run")
        # somebody answers, if only to refuse
        assert 28 not in asked()
        machine.configure('[[user]]\nname = "alice"\n')
        machine.up()
        machine.end_guard()
        assert asked() == [28, 28]
    finally:
        machine.configure()
        machine.down()
        for place, _, _ in places:
            machine.output("ip", "route", "del", place, on="neighbour")


def test_a_killed_tor_is_started_again(machine: Machine, lab: Lab) -> None:
    process, word = started(machine)
    (before,) = machine.tor_pids()
    machine.output("kill", "-KILL", str(before))
    until("another tor", lambda: machine.tor_pids() not in ([], [before]), patience=PATIENCE)
    done = run(machine, "--", "curl", "-sS", "-m", "60", f"http://{lab.web4}/")
    assert json.loads(done.stdout)["client"] in lab.exits, done.stderr
    process.kill()
    assert_gone(machine, word)
