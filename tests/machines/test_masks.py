"""Services that act for others, on a booted Debian: closed to bob, open to alice, put back.

bob ──✗──► /run/…/socket, system bus ──► resolved, nscd, avahi, cups ──► the network
alice ───►
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.machines.machine import Machine
from tests.machines.users_machine import SERVICES, furnished

HERE = Path(__file__).parent
SOCKETS = (
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/run/avahi-daemon/socket",
    "/run/cups/cups.sock",
)
PLACES = (*SOCKETS, *(str(Path(s).parent) for s in SOCKETS), "/var/spool/postfix")
CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
            print(path)
        except PermissionError:
            pass
"""
DENIED = "org.freedesktop.DBus.Error.AccessDenied"


def reached(machine: Machine, user: str) -> set[str]:
    """The sockets that an account gets connected to."""
    return set(machine.output("python3", "-c", CONNECT, *SOCKETS, user=user).split())


class OnTheBus:
    """A connection of an account to the system bus."""

    def __init__(self, machine: Machine, user: str) -> None:
        argv = machine.command(["python3", str(HERE / "bus_client.py")], user=user)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        assert self._line() == "answered"

    def ping(self, name: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        return self._line()

    def close(self) -> None:
        self._process.communicate(timeout=10)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def masks(machine: Machine, step: str) -> None:
    machine.output("python3", str(HERE / "mask_steps.py"), step)


def state(machine: Machine) -> str:
    """Owners, modes and lists of the places, and what is in the directory of policies."""
    lists = machine.output("getfacl", "--absolute-names", *PLACES)
    modes = machine.output("stat", "--format=%n %f %u %g", *PLACES)
    return lists + modes + machine.output("ls", "-A", "/etc/dbus-1/system.d")


def use_broker(machine: Machine) -> None:
    """Let dbus-broker be the bus from now on."""
    machine.output("systemctl", "enable", "dbus-broker.service")
    machine.output("systemctl", "stop", "dbus.socket", "dbus.service")
    machine.output("systemctl", "daemon-reload")
    machine.start("dbus.socket", "dbus-broker.service")
    machine.output("systemctl", "restart", *SERVICES)


@pytest.mark.parametrize("bus", ["dbus-daemon", "dbus-broker"])
def test_closed_to_one_account_and_put_back(lab: Lab, bus: str) -> None:
    with furnished(lab, *SERVICES) as machine:
        if bus == "dbus-broker":
            use_broker(machine)
        assert machine.run("pgrep", "-x", bus).returncode == 0
        before = state(machine)
        assert reached(machine, "bob") == set(SOCKETS)
        bob, alice = OnTheBus(machine, "bob"), OnTheBus(machine, "alice")
        names = ("org.freedesktop.resolve1", "org.freedesktop.Avahi")
        assert [bob.ping(name) for name in names] == ["answered"] * 2

        masks(machine, "apply")
        assert reached(machine, "bob") == set()
        assert reached(machine, "alice") == set(SOCKETS)
        # a connection from before, too
        assert [bob.ping(name) for name in names] == [DENIED] * 2
        assert [alice.ping(name) for name in names] == ["answered"] * 2
        assert bob.ping("org.freedesktop.systemd1") == "answered"

        machine.output("systemctl", "restart", *SERVICES)
        machine.output("systemctl", "stop", *SERVICES, "avahi-daemon.socket", "cups.socket")
        machine.start(*SERVICES)
        machine.output("systemd-tmpfiles", "--create")
        assert reached(machine, "bob") == set()
        assert reached(machine, "alice") == set(SOCKETS)
        assert [bob.ping(name) for name in names] == [DENIED] * 2

        masks(machine, "restore")
        assert state(machine) == before
        assert reached(machine, "bob") == set(SOCKETS)
        assert [bob.ping(name) for name in names] == ["answered"] * 2
        masks(machine, "restore")
        assert state(machine) == before
        bob.close()
        alice.close()
