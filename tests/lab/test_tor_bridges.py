"""Where a censor stops public relays: through a bridge, which is all that tor's account reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab import tor_bridge
from tests.lab.lifecycle_machine import HERE, Machine, exactly_back, open_machine
from tests.lab.lifecycle_wire import Wire
from tests.lab.tor_bridge import (
    ADDRESS,
    ADDRESS6,
    OBFS4_PORT,
    PLAIN_PORT,
    Bridge,
    censored,
    seeing_relays,
)

PLUGIN = "/usr/bin/obfs4proxy"


@pytest.fixture(scope="module")
def bridge(lab: Lab) -> Iterator[Bridge]:
    with tor_bridge.running(lab) as found:
        yield found


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def fetch(machine: Machine) -> str:
    url = f"http://{machine.lab.web4}/"
    return machine.output("curl", "-sS", "--fail", "--noproxy", "*", "-m", "30", url)


def to_elsewhere(wire: Wire) -> list[str]:
    """But for the kernel's answers to relays that go on with connections of an earlier tor."""
    return [packet.words for packet in wire.packets() if "Flags [R]," not in packet.words]


def test_the_witness_sees_relays(machine: Machine) -> None:
    with Wire(seeing_relays(machine, (ADDRESS, OBFS4_PORT))) as wire:
        machine.up()
        assert [words for words in to_elsewhere(wire) if ".9001: Flags [S]" in words]


def test_without_a_bridge_it_fails_and_says_why(machine: Machine) -> None:
    machine.configure("[tor]\nbootstrap_timeout = 5\n")
    with censored(machine, "reject with tcp reset"), exactly_back(machine):
        done = machine.onionward("up")
    assert done.returncode == 1
    assert "relays refuse the connection" in done.stderr
    assert "bridges" in done.stderr


def test_through_obfs4(machine: Machine, bridge: Bridge) -> None:
    machine.configure(f'[tor]\nbootstrap_timeout = 30\nbridges = ["{bridge.obfs4}"]\n')
    with (
        censored(machine),
        Wire(seeing_relays(machine, (ADDRESS, OBFS4_PORT))) as wire,
        exactly_back(machine),
    ):
        machine.up()
        assert '"client": "198.18.3.' in fetch(machine)
        # which bridges these are is nobody else's business
        torrc = "/run/onionward/torrc"
        assert bridge.obfs4 in machine.output("cat", torrc)
        assert machine.run("cat", torrc, user="alice").returncode != 0
        _plugin_is_tors(machine)
        _plugin_takes_nobody_elsewhere(machine, bridge)
        machine.up()  # a reload
        assert '"client": "198.18.3.' in fetch(machine)
        machine.down()
        assert to_elsewhere(wire) == []


def _plugin(machine: Machine) -> tuple[int, int]:
    """Its process, and the port of loopback where it takes SOCKS."""
    shown = machine.output("ss", "-Hltnp")
    found = re.search(r'127\.0\.0\.1:(\d+) .*"obfs4proxy",pid=(\d+)', shown)
    assert found, shown
    return int(found[2]), int(found[1])


def _plugin_is_tors(machine: Machine) -> None:
    """It is held by the same rules: the account's, in the control group."""
    pid, _ = _plugin(machine)
    (tor,) = machine.tor_pids()
    for name, line in (("status", r"^Uid:.*"), ("cgroup", r"^0::/onionward-.*")):
        of_both = [machine.path(f"/proc/{one}/{name}").read_text() for one in (pid, tor)]
        found = [re.findall(line, text, re.MULTILINE) for text in of_both]
        assert found[0] == found[1] != []


def _plugin_takes_nobody_elsewhere(machine: Machine, bridge: Bridge) -> None:
    _, port = _plugin(machine)
    arguments = ";".join(bridge.obfs4.split()[3:])
    script = ("python3", "-I", str(HERE / "tor_through_plugin.py"), str(port), arguments)
    # the control: it serves every account
    answer = machine.run(*script, ADDRESS, str(OBFS4_PORT), user="alice")
    assert answer.stdout == "0\n", answer
    answer = machine.run(*script, machine.lab.web4, "443", user="alice")
    assert answer.stdout != "0\n", answer


@pytest.mark.parametrize("scope", ["", '[[user]]\nname = "alice"\n'])
def test_through_plain_bridges(machine: Machine, bridge: Bridge, scope: str) -> None:
    lines = f'"{bridge.plain}", "{bridge.plain6}"'
    machine.configure(f"{scope}[tor]\nbootstrap_timeout = 30\nbridges = [{lines}]\n")
    places = ((ADDRESS, PLAIN_PORT), (ADDRESS6, PLAIN_PORT))
    with censored(machine), Wire(seeing_relays(machine, *places)) as wire:
        machine.up()
        (tor,) = machine.tor_pids()
        uid = machine.path(f"/proc/{tor}/status").read_text().split("Uid:")[1].split()[0]
        # another process of the account has no other way, either
        url = f"http://{machine.lab.web4}/"
        asked = ("setpriv", "--reuid", uid, "--clear-groups", "curl", "-sS", "-m", "2", url)
        assert machine.run(*asked).returncode != 0
        assert to_elsewhere(wire) == []


def test_a_program_that_is_missing_is_named(machine: Machine, bridge: Bridge) -> None:
    machine.configure(f'[tor]\nbridges = ["{bridge.obfs4}"]\n')
    machine.output("mount", "--bind", "/dev/null", PLUGIN)
    try:
        with exactly_back(machine):
            done = machine.onionward("check")
    finally:
        machine.output("umount", PLUGIN)
    assert done.returncode == 2
    assert "apt install obfs4proxy" in done.stderr
