"""The filtered control port of an account, as `up` sets it up, against a real tor."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from onionward.tor.control_filter import socket_of
from tests.lab.lifecycle_machine import Done, Machine, until

CONFIG = """
[host]
route = "direct"

[[user]]
name = "bob"
control = true

[[user]]
name = "carol"
"""
SOCKET = str(socket_of("bob"))
# the Python of whoever runs the tests may be in a home that nobody else enters
PYTHON = "/usr/bin/python3"
LIBRARIES = f"PYTHONPATH={sysconfig.get_path('purelib')}"
FILTERED = "510 Command filtered\r\n"
# sends its arguments, one a line, and writes all that comes until the other end closes
TALK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect(sys.argv[1])
    client.sendall("".join(f"{line}\\r\\n" for line in sys.argv[2:]).encode())
    while data := client.recv(4096):
        sys.stdout.buffer.write(data)
"""
STEM = """
import stem, stem.control, sys
with stem.control.Controller.from_socket_file(sys.argv[1]) as controller:
    controller.authenticate()
    print(controller.get_info("version"), controller.get_info("status/bootstrap-phase"))
    controller.signal(stem.Signal.NEWNYM)
    for forbidden in ("circuit-status", "entry-guards", "address", "config-text"):
        try:
            print(forbidden, controller.get_info(forbidden))
        except stem.ControllerError as error:
            print(forbidden, "refused")
"""


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    machine = Machine(lab)
    machine.configure(CONFIG)
    machine.up()
    yield machine
    machine.close()
    machine.down()


def by(machine: Machine, user: str, *argv: str) -> Done:
    return machine.run("runuser", "-u", user, "--", *argv)


def talk(machine: Machine, *lines: str, user: str = "bob") -> str:
    done = by(machine, user, PYTHON, "-I", "-c", TALK, SOCKET, *lines)
    assert done.returncode == 0, done.stderr
    # text mode has taken the \r away
    return done.stdout.replace("\r\n", "\n").replace("\n", "\r\n")


def filters(machine: Machine) -> list[Path]:
    """Processes of the filter, by their directory in the host's /proc."""
    found = []
    for entry in machine.path("/proc").iterdir():
        try:
            if b"onionward.tor.control_filter" in (entry / "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue  # no process, or it ended meanwhile
    return found


def test_what_an_account_may_and_may_not(machine: Machine) -> None:
    version = talk(machine, "GETINFO version", "QUIT")
    assert version.startswith("250-version=0.")
    assert talk(machine, "SIGNAL NEWNYM", "QUIT").startswith("250 OK\r\n")
    forbidden = (
        "GETINFO circuit-status",
        "GETINFO stream-status",
        "GETINFO address",
        "GETCONF ControlSocket",
        "SETCONF SocksPort=9050",
        "SIGNAL HALT",
        "SIGNAL SHUTDOWN",
        "ADD_ONION NEW:BEST Port=80",
        "SETEVENTS STREAM",
        "MAPADDRESS 0.0.0.0=www.example.test",
    )
    answers = talk(machine, "AUTHENTICATE", *forbidden, "QUIT")
    assert answers == f"250 OK\r\n{FILTERED * len(forbidden)}250 closing connection\r\n"
    assert machine.tor_pids()


def test_nobody_else_connects(machine: Machine) -> None:
    for user in ("alice", "carol"):
        done = by(machine, user, PYTHON, "-I", "-c", TALK, SOCKET, "GETINFO version")
        assert "PermissionError" in done.stderr
        assert by(machine, user, "ls", str(Path(SOCKET).parent)).returncode != 0
    assert by(machine, "bob", "ls", str(Path(SOCKET).parent)).returncode != 0
    status = machine.output("stat", "--format=%U %a %F", SOCKET)
    assert status == "bob 600 socket\n"
    # and the real one stays closed
    control = "/run/onionward/tor/control"
    done = by(machine, "bob", PYTHON, "-I", "-c", TALK, control, "GETINFO version")
    assert "PermissionError" in done.stderr


def test_programs_that_know_tor_get_along(machine: Machine) -> None:
    done = by(machine, "bob", "env", LIBRARIES, PYTHON, "-c", STEM, SOCKET)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("0.")
    assert "PROGRESS=100" in first
    assert [line.split()[1] for line in rest] == ["refused"] * 4


def test_events_of_one_s_own_tor(machine: Machine) -> None:
    listener = machine.spawn(
        *("runuser", "-u", "bob", "--", PYTHON, "-I", "-u", "-c", TALK, SOCKET),
        *("SETEVENTS BW STATUS_CLIENT",),
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "250 OK\n"
    assert listener.stdout.readline().startswith("650 BW ")


def test_the_process_is_small_and_has_no_rights(machine: Machine) -> None:
    (process,) = filters(machine)
    talk(machine, "GETINFO version", "QUIT")
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if ":\t" in line
    )
    tor_uid = machine.output("id", "-u", "onionward-tor").strip()
    assert status["Uid"].split() == [tor_uid] * 4
    assert status["Groups"].split() == []
    assert int(status["CapEff"], 16) == 0
    assert int(status["VmRSS"].split()[0]) < 25_000
    assert (process / "stat").read_text().rpartition(")")[2].split()[3] == process.name


def test_it_outlives_tor_and_ends_with_down(machine: Machine) -> None:
    (process,) = filters(machine)
    machine.kill_tor()
    assert talk(machine, "GETINFO version") == "551 Tor does not answer\r\n"
    machine.up()
    assert talk(machine, "GETINFO version", "QUIT").startswith("250-version=0.")
    assert process in filters(machine)
    machine.down()
    assert filters(machine) == []
    assert not machine.path("/run/onionward").exists()


def test_one_that_was_killed_comes_back_with_up(machine: Machine) -> None:
    (process,) = filters(machine)
    machine.output("kill", "-KILL", process.name)
    until("the filter is gone", lambda: not filters(machine))
    machine.up()
    assert talk(machine, "GETINFO version", "QUIT").startswith("250-version=0.")
