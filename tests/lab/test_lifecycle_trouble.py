"""Bad luck: tor dies, does not start or finds no network; interrupted, twice at once, after reboot.

Whatever happens: nothing leaves in clear while rules are in force, `status` says what is so, what
fails in `up` is put back, and `down` restores.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import (
    CONFIG,
    JOURNAL,
    Done,
    Machine,
    difference,
    inside_pid,
    open_machine,
    run_in,
    until,
)
from tests.lab.lifecycle_wire import Wire

AT_ONCE = 0.5
UP = ("onionward", "up", "--config", str(CONFIG))
UNREACHABLE = "[tor]\nbootstrap_timeout = 5\n"


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def page(machine: Machine) -> Done:
    url = f"http://{machine.lab.web4}/"
    return machine.run("curl", "-sS", "--fail", "--noproxy", "*", "-m", "20", url)


def test_tor_killed_while_routed(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    assert page(machine).returncode == 0
    with Wire(machine) as wire:
        machine.kill_tor()
        started = time.monotonic()
        assert page(machine).returncode == 7  # curl: failed to connect
        assert time.monotonic() - started < AT_ONCE
        started = time.monotonic()
        asked = machine.run("dig", "+tries=1", "+time=5", "www.example.test")
        assert "connection refused" in asked.stdout
        assert time.monotonic() - started < AT_ONCE
        report = machine.status()
        assert (report["state"], report["tor"], report["tor_pid"]) == ("blocked", "stopped", None)
        assert any("tor is not running" in problem for problem in report["problems"])
        assert "tor is not running" in machine.onionward("status").stdout
        machine.up()
        assert machine.status()["problems"] == []
        assert page(machine).returncode == 0
        wire.assert_silent()
        machine.kill_tor()
        machine.down()
    assert difference(before, machine.snapshot()) == ""


@pytest.mark.parametrize(
    ("listener", "key"),
    [
        ("create_server(('127.0.0.1', 940))", "trans_port"),
        ("create_server(('::1', 940), family=s.AF_INET6)", "trans_port"),
        ("socket(type=s.SOCK_DGRAM); t.bind(('127.0.0.1', 941))", "dns_port"),
    ],
)
def test_port_that_is_taken_is_found_first(machine: Machine, listener: str, key: str) -> None:
    script = f"import socket as s; t = s.{listener}; print('taken', flush=True); input()"
    taken = machine.spawn("python", "-c", script)
    assert taken.stdout is not None
    assert taken.stdout.readline() == "taken\n"
    before = machine.snapshot()
    done = machine.onionward("up")
    assert done.returncode == 2
    assert key in done.stderr
    assert "python" in done.stderr
    assert difference(before, machine.snapshot()) == ""


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("echo 'Jan 01 [err] out of luck' >&2; exit 3", "tor did not start: out of luck"),
        ("exit 0", "tor ended while it was starting"),
    ],
)
def test_tor_that_does_not_start(machine: Machine, ending: str, words: str) -> None:
    tor, real, fake = "/usr/sbin/tor", "/run/onionward-lab/tor", "/run/onionward-lab/fake-tor"
    machine.path(fake).write_text(
        f'#!/bin/sh\nfor a; do [ "$a" != --verify-config ] || exec {real} "$@"; done\n{ending}\n'
    )
    machine.path(fake).chmod(0o755)
    machine.output("cp", tor, real)
    machine.output("mount", "--bind", fake, tor)
    before = machine.snapshot()
    try:
        done = machine.onionward("up")
        assert done.returncode == 1
        assert words in done.stderr
        assert "Everything was put back: the machine is off" in done.stderr
        assert difference(before, machine.snapshot()) == ""
    finally:
        machine.output("umount", tor)
        machine.output("rm", real, fake)


@contextmanager
def censored(machine: Machine, verdict: str = "drop") -> Iterator[None]:
    """The machine reaches no relay."""
    lab = machine.lab
    internet = lab.hosts["internet"]
    run_in(internet, ["nft", "add", "table", "inet", "censor"])
    chain = "{ type filter hook input priority 0; }"
    assert run_in(internet, ["nft", "add", "chain", "inet", "censor", "in", chain]).returncode == 0
    try:
        for family, address in (("ip", lab.host4), ("ip6", lab.host6)):
            rule = [*(family, "saddr", address, "tcp", "dport", "{ 9001, 9030 }"), *verdict.split()]
            run_in(internet, ["nft", "add", "rule", "inet", "censor", "in", *rule])
        yield
    finally:
        run_in(internet, ["nft", "delete", "table", "inet", "censor"])


@pytest.mark.parametrize(
    ("verdict", "words"), [("drop", ""), ("reject with tcp reset", "relays refuse")]
)
def test_relays_that_cannot_be_reached(machine: Machine, verdict: str, words: str) -> None:
    machine.configure(UNREACHABLE)
    before = machine.snapshot()
    with censored(machine, verdict):
        started = time.monotonic()
        done = machine.onionward("up")
        # the kernel is asked for four seconds whether another's rule stops tor
        assert time.monotonic() - started < 5 + 4 + 6
    assert done.returncode == 1
    assert "tor has no circuit after 5 s; it is at " in done.stderr
    assert words in done.stderr
    assert "Everything was put back: the machine is off" in done.stderr
    assert difference(before, machine.snapshot()) == ""


def start_up(machine: Machine) -> subprocess.Popen[str]:
    """An `up` that is waiting for tor's circuits."""
    process = subprocess.Popen(
        machine.host.command(UP),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until("tor bootstraps", lambda: machine.path("/run/onionward/tor/log").exists())
    until("tor bootstraps", lambda: bool(machine.tor_pids()))
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_tor_bootstraps(machine: Machine, number: signal.Signals) -> None:
    before = machine.snapshot()
    with censored(machine):
        process = start_up(machine)
        victim = inside_pid(process)
        subprocess.run(["kill", f"-{number.value}", str(victim)], check=True)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert "Everything was put back: the machine is off" in errors
    assert difference(before, machine.snapshot()) == ""


def test_interrupted_again_while_it_is_put_back(machine: Machine) -> None:
    before = machine.snapshot()
    with censored(machine):
        process = start_up(machine)
        victim = inside_pid(process)
        for _ in range(20):  # an impatient user
            subprocess.run(["kill", "-INT", str(victim)], check=False, capture_output=True)
            time.sleep(0.01)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "interrupted" in errors
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_interrupted_reload_stays_closed(machine: Machine) -> None:
    machine.up()
    machine.configure("[tor]\ntrans_port = 942\n")
    with Wire(machine) as wire:
        with censored(machine):
            process = subprocess.Popen(
                machine.host.command(UP),
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            pids = machine.tor_pids()
            until("the reload has blocked", lambda: machine.journal()["state"] == "blocked")
            until("another tor starts", lambda: bool(set(machine.tor_pids()) - set(pids)))
            subprocess.run(["kill", "-INT", str(inside_pid(process))], check=True)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "protected by the rules in force" in errors
        assert machine.status()["state"] == "blocked"
        assert page(machine).returncode == 7
        wire.assert_silent()
        machine.up()
        assert page(machine).returncode == 0
        wire.assert_silent()


def test_two_at_once(machine: Machine) -> None:
    before = machine.snapshot()
    both = [
        subprocess.Popen(machine.host.command(UP), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(machine.tor_pids()) == 1
    assert machine.status()["problems"] == []
    both = [
        subprocess.Popen(
            machine.host.command(["onionward", "down"]), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert ["already" in words for words in said] == [True, False]
    assert difference(before, machine.snapshot()) == ""


def reboot(machine: Machine) -> None:
    """What a reboot takes: processes, rules, routes, control groups and /run."""
    machine.kill_tor()
    group = machine.journal()["undo"]["tor"]["cgroup"]
    for family, name in (("inet", "onionward"), ("netdev", "onionward_l2")):
        machine.output("nft", "delete", "table", family, name)
    for network in machine.journal()["undo"]["routes"]["saved"]["networks"]:
        route = ("local", network, "dev", "lo", "table", "local")
        machine.output("ip", "-6", "route", "del", *route)
    machine.output("rm", "-r", "/run/onionward")
    until("the group is empty", lambda: machine.run("rmdir", group).returncode == 0)


def test_down_after_a_reboot(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    reboot(machine)
    report = machine.status()
    assert (report["state"], report["tor"], report["resolver"]) == ("open", "stopped", "tor")
    assert any("NOT PROTECTED" in problem for problem in report["problems"])
    client = machine.script("lifecycle_client.py", "hold", machine.lab.web4, "7")
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline().startswith("open")
    machine.down()
    client.stdin.write("still here\n")
    assert client.stdout.readline() == "got still here\n", "a connection in clear was cut"
    machine.close()
    assert difference(before, machine.snapshot()) == ""


def test_up_after_a_reboot(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    reboot(machine)
    machine.up()
    assert machine.status()["problems"] == []
    assert page(machine).returncode == 0
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_damaged_journal(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    with Wire(machine) as wire:
        for damage in ("{", '{"version": 1}', '{"version": 99}', "\\0\\0\\0", "[]", ""):
            machine.output("sh", "-c", f"printf '{damage}' > {JOURNAL}")
            for command in ("status", "up", "down"):
                done = machine.onionward(command)
                assert done.returncode == 1
                assert f"{JOURNAL} " in done.stderr
                assert "Traceback" not in done.stderr
            assert "onionward down" in done.stderr
        assert page(machine).returncode == 0  # it is left as it is, which is routed
        wire.assert_silent()
        machine.down("--force")
    assert difference(before, machine.snapshot()) == ""


def test_lost_journal(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    machine.path(JOURNAL).unlink()
    report = machine.status()
    assert report["state"] != "off"
    assert any("journal is missing" in problem for problem in report["problems"])
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_lost_journal_after_a_reboot(machine: Machine) -> None:
    machine.up()
    original = machine.journal()["undo"]["resolver"]["resolv_conf"]["kind"]
    assert original == "renamed"
    before = machine.path("/etc/.resolv.conf.before-onionward").read_text()
    reboot(machine)
    machine.path(JOURNAL).unlink()
    report = machine.status()
    assert (report["state"], report["resolver"]) == ("off", "tor")
    assert any("resolv.conf" in problem for problem in report["problems"])
    machine.down()
    assert machine.path("/etc/resolv.conf").read_text() == before
    assert machine.status()["problems"] == []


def test_interrupted_down_says_so_and_goes_on_later(machine: Machine) -> None:
    before = machine.snapshot()
    machine.up()
    pid = str(machine.tor_pids()[0])
    machine.output("kill", "-STOP", pid)  # so that there is something to wait for
    with Wire(machine) as wire:
        process = machine.spawn("onionward", "--verbose", "down")
        victim = inside_pid(process)
        lock = machine.path("/run/onionward/lock")
        mine = machine.path(f"/proc/{pid}/status")
        until("down asks tor to end", lambda: "ShdPnd:\t0000000000004000" in mine.read_text())
        assert lock.exists()
        subprocess.run(["kill", "-INT", str(victim)], check=True)
        assert process.wait(10) == 1
        wire.assert_silent()
    machine.down()
    assert difference(before, machine.snapshot()) == ""


def test_account_that_was_removed_is_made_again(machine: Machine) -> None:
    machine.up()
    machine.down()
    machine.output("userdel", "onionward-tor")
    machine.output("chown", "-R", "daemon:daemon", "/var/lib/onionward/tor")
    machine.up()
    assert page(machine).returncode == 0


def test_ssh_session_is_not_cut_unasked(machine: Machine) -> None:
    lab = machine.lab
    before = machine.snapshot()
    stranger = f"{lab.stranger4} 50000 {lab.host4} 22"
    command = f"onionward up --config {CONFIG}"
    as_sudo = ["sh", "-c", f"env --unset=SSH_CONNECTION {command}; exit $?"]
    for connection in (stranger, f"{lab.stranger6} 50000 {lab.host6} 22"):
        for argv in (command.split(), as_sudo):
            done = machine.run(*argv, env={"SSH_CONNECTION": connection})
            assert done.returncode == 2, done.stderr
            assert "would cut the SSH session" in done.stderr
            assert connection.split()[0] in done.stderr
            assert "--yes" in done.stderr
            assert difference(before, machine.snapshot()) == ""
    neighbour = f"{lab.neighbour4} 50000 {lab.host4} 22"
    assert machine.onionward("up", env={"SSH_CONNECTION": neighbour}).returncode == 0
    machine.down()
    assert machine.onionward("up", "--yes", env={"SSH_CONNECTION": stranger}).returncode == 0
    machine.down()
    assert difference(before, machine.snapshot()) == ""
