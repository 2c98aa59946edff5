"""What one account can do in the network under another's name, on a booted Debian."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.machines.machine import Machine
from tests.machines.users_machine import furnished

HERE = Path(__file__).parent
BOB = "61002"
RANGE = "net.ipv4.ping_group_range"
# packets by the account of their socket, counted where they leave
COUNTERS = """
table inet onionward_test {
  counter bob { }
  counter root { }
  chain out {
    type filter hook output priority 0; policy accept;
    icmp type echo-request meta skuid 61002 counter name bob
    icmp type echo-request meta skuid 0 counter name root
  }
}
"""


class Witness:
    """The name server of a machine, which knows who asks."""

    def __init__(self, machine: Machine) -> None:
        argv = machine.command(["python3", str(HERE / "dns_witness.py")])
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def who_asked(self, name: str, patience: float = 5.0) -> str:
        """The account that asks for a name next."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            uid, _, asked = self._process.stdout.readline().strip().partition(" ")
            if asked == name:
                return uid
        raise AssertionError(f"nobody asked for {name}")

    def end(self) -> list[str]:
        """All that was asked for and not read."""
        self._process.terminate()
        return self._process.communicate(timeout=10)[0].splitlines()


@contextmanager
def witnessed(machine: Machine) -> Iterator[Witness]:
    witness = Witness(machine)
    try:
        yield witness
    finally:
        witness.end()


def resolve(machine: Machine, name: str, user: str) -> str:
    return machine.output("getent", "ahostsv4", name, user=user).split()[0]


def test_an_account_asks_for_names_itself(lab: Lab) -> None:
    with furnished(lab) as machine:
        machine.write("/etc/systemd/resolved.conf.d/x.conf", "[Resolve]\nDNS=127.0.0.1\n")
        machine.start("systemd-resolved", "nscd")
        machine.output("ln", "-sf", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
        resolved = machine.output("id", "-u", "systemd-resolve").strip()
        with witnessed(machine) as witness:
            assert resolve(machine, "one.example.test", "bob") == "198.18.80.1"
            assert witness.who_asked("one.example.test") == resolved
            machine.output("python3", str(HERE / "mask_steps.py"), "apply")
            assert resolve(machine, "two.example.test", "bob") == "198.18.80.1"
            assert witness.who_asked("two.example.test") == BOB
            assert resolve(machine, "three.example.test", "alice") == "198.18.80.1"
            assert witness.who_asked("three.example.test") == resolved
            machine.output("python3", str(HERE / "mask_steps.py"), "restore")
            assert resolve(machine, "four.example.test", "bob") == "198.18.80.1"
            assert witness.who_asked("four.example.test") == resolved


def ways_around(machine: Machine) -> list[str]:
    return machine.output("python3", str(HERE / "ways_around.py")).split()


def test_sudo_asks_for_names_that_anybody_gives_it(lab: Lab) -> None:
    leak = "leak.example.test"
    argv = ("sudo", "-n", "-h", leak, "-l")
    with furnished(lab) as machine:
        machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        machine.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        assert ways_around(machine) == ["setuid:/usr/bin/sudo"]
        witness = Witness(machine)
        machine.run(*argv, user="bob")
        assert witness.who_asked(leak) == "0"
        witness.end()

        machine.write("/etc/sudoers.d/no-lookups", "Defaults !fqdn\n", mode=0o440)
        assert ways_around(machine) == []
        witness = Witness(machine)
        machine.run(*argv, user="bob")
        machine.run("getent", "ahostsv4", "control.example.test", user="bob")
        asked = witness.end()
        assert f"{BOB} control.example.test" in asked
        assert [line for line in asked if leak in line] == []


@contextmanager
def counting(machine: Machine) -> Iterator[None]:
    """Counters in the network of the lab's host, and unprivileged ping as the test wants it."""
    before = machine.output("sysctl", "-n", RANGE).strip()
    machine.output("nft", "-f", "-", stdin=COUNTERS)
    try:
        yield
    finally:
        machine.output("nft", "delete", "table", "inet", "onionward_test")
        machine.output("sysctl", "-qw", f"{RANGE}={before}")


# an echo request by the kind of socket named, RAW or DGRAM
PING = """
import socket, sys
kind = getattr(socket, "SOCK_" + sys.argv[1])
with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as ping:
    ping.sendto(bytes([8, 0, 0xF7, 0xFF, 0, 0, 0, 0]), ("127.0.0.1", 0))
"""


def pinged_as(machine: Machine, program: str, kind: str) -> list[str]:
    """Whose packets a ping of bob's sends."""
    machine.output("nft", "reset", "counters", "table", "inet", "onionward_test")
    machine.output(program, "-c", PING, kind, user="bob")
    return [
        name
        for name in ("bob", "root")
        if "packets 0"
        not in machine.output("nft", "list", "counter", "inet", "onionward_test", name)
    ]


def test_packets_of_capable_programs_are_the_account_s(lab: Lab) -> None:
    plain, capable, setuid = (f"/usr/local/bin/{n}" for n in ("plain", "capable", "setuid"))
    with furnished(lab) as machine, counting(machine):
        for program in (plain, capable, setuid):
            machine.output("cp", "/usr/bin/python3", program)
        machine.output("setcap", "cap_net_raw=ep", capable)
        machine.output("chmod", "u+s", setuid)

        machine.output("sysctl", "-qw", f"{RANGE}=0 2147483647")
        assert pinged_as(machine, plain, "DGRAM") == ["bob"]
        assert machine.run(plain, "-c", PING, "RAW", user="bob").returncode != 0
        assert pinged_as(machine, capable, "RAW") == ["bob"]
        assert pinged_as(machine, setuid, "RAW") == ["root"]
        assert pinged_as(machine, setuid, "DGRAM") == ["root"]
        found = ways_around(machine)
        assert f"setuid:{setuid}" in found
        assert f"setuid:{capable}" not in found


CREATE = """
import sys
from onionward import accounts
from onionward.system import System
made = accounts.create(System(), sys.argv[1])
again = accounts.create(System(), sys.argv[1])
assert made == again
print(made.account.uid, made.account.home, *made.subordinate)
"""


@pytest.mark.parametrize("name", ["dave", "_x-1.y"])
def test_an_account_is_made(lab: Lab, name: str) -> None:
    with furnished(lab) as machine:
        uid, home, *subordinate = machine.output("python3", "-c", CREATE, name).split()
        assert machine.output("id", "-un", uid) == f"{name}\n"
        assert home == f"/home/{name}"
        assert machine.output("stat", "--format=%u", home).strip() == uid
        # as getsubids(1) counts them
        ranges = machine.output("getsubids", name).split()
        first, count = int(ranges[-2]), int(ranges[-1])
        assert subordinate == [f"{first}-{first + count - 1}"]
        assert machine.output("passwd", "--status", name).split()[1] == "L"
        assert machine.output("id", "-u", user=name).strip() == uid
