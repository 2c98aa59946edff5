"""Configurations that cannot be: `up` says which line is wrong and why, and touches nothing.

What all the reasons are is tested with the configuration and with what is found out before; here
a real gateway refuses them, by the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import CONFIG, Machine, difference
from tests.lab.lifecycle_scopes import furnished_gateway

LAN = '[[lan]]\ninterface = "eth1"\n'
BRIDGE = '[[lan]]\ninterface = "br0"\n'
DHCP = f"{LAN}dhcp = true\n"
ALICE = '[[user]]\nname = "alice"\n'

# text, line, the beginning of what is said of it
WRONG = {
    "unknown interface": (LAN.replace("eth1", "eth9"), 2, "there is no interface eth9 (there is: "),
    "a port of a bridge": (LAN.replace("eth1", "container0"), 2, "container0 is a port of br0"),
    "the uplink": (LAN.replace("eth1", "eth0"), 2, "eth0 is the uplink (a default route leads"),
    "loopback": (LAN.replace("eth1", "lo"), 2, "lo is loopback; no client is behind it"),
    "the same LAN twice": (LAN + LAN, 4, "eth1 is that of [[lan]] number 1 already"),
    "unknown service": (LAN + 'services = ["gopher"]\n', 3, "'gopher' is not known; known: "),
    "a service that resolves": (LAN + 'services = ["udp/53"]\n', 3, "udp/53 resolves names"),
    "a service that is tor's": (LAN + 'services = ["tcp/940"]\n', 3, "tcp/940 is a port of tor"),
    "DHCP and no service": (DHCP + "services = []\n", 3, 'is true, but "dhcp" is not among'),
    "range elsewhere": (
        DHCP + 'dhcp_range = ["198.18.7.10", "198.18.7.20"]\n',
        4,
        "198.18.7.10 is not in 198.18.8.0/24",
    ),
    "range half elsewhere": (
        DHCP + 'dhcp_range = ["198.18.8.250", "198.18.9.3"]\n',
        4,
        "198.18.9.3 is not in 198.18.8.0/24",
    ),
    "range backwards": (
        DHCP + 'dhcp_range = ["198.18.8.9", "198.18.8.8"]\n',
        4,
        "198.18.8.9 comes af",
    ),
    "range without DHCP": (
        LAN + 'dhcp_range = ["198.18.8.8", "198.18.8.9"]\n',
        3,
        "has no meaning without dhcp = true",
    ),
    "unknown account": ('[[user]]\nname = "nobody-here"\n', 2, "there is no account nobody-here;"),
    "root": ('[[user]]\nname = "root"\n', 2, "root is never held by rules that it can remove"),
    "tor's own account": ('[[user]]\nname = "onionward-tor"\n', 2, "onionward-tor is tor's own"),
    "the same account twice": (ALICE + ALICE, 4, "alice is [[user]] number 1 already"),
    "direct where nobody is routed": (
        ALICE + 'route = "direct"\n',
        3,
        '"direct" is for accounts of a routed host',
    ),
    "direct, and ways around accepted": (
        f'[host]\n{ALICE}route = "direct"\naccept = ["avahi"]\n',
        5,
        'has no meaning with route = "direct"',
    ),
    "onion names and a direct host": (
        f'onion = true\n[host]\nroute = "direct"\n{LAN}',
        1,
        'contradicts host.route = "direct"',
    ),
    "nothing at all": ('[host]\nroute = "direct"\n', 2, 'with "direct" alone nothing goes through'),
    "a bypass of nobody": (
        LAN + '[bypass]\nnetworks = ["198.18.0.0/24"]\n',
        4,
        "nothing is bypassed where this host is not routed",
    ),
    "virtual addresses on a LAN": (
        LAN + '[tor]\nvirtual_networks = ["127.192.0.0/10"]\n',
        4,
        "127.192.0.0/10 is loopback, where clients of a [[lan]]",
    ),
    "the system's tor": (
        LAN + '[tor]\nuser = "debian-tor"\n',
        4,
        "debian-tor belongs to the system",
    ),
    "an unknown table": (LAN + "[[wan]]\n", 3, "unknown key"),
    "not TOML": (LAN + "dhcp = yes\n", 3, "not TOML: "),
}


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with furnished_gateway(lab) as opened:
        yield opened


@pytest.fixture(scope="module")
def untouched(machine: Machine) -> dict[str, Any]:
    return machine.snapshot()


def refused(machine: Machine, text: str) -> list[str]:
    """The lines of what `up` says to a configuration, with the lab's Tor network at its end."""
    if "[tor]" not in text:
        text += "[tor]\n"
    machine.path(CONFIG).write_text(text + 'network = "/run/onionward-lab/network.torrc"\n')
    done = machine.onionward("up")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()


def known(machine: Machine) -> dict[str, Any]:
    """Everything, but for the lock that every command takes where something is up."""
    found = machine.snapshot()
    found["file"].pop("/run/onionward/lock", None)
    return found


@pytest.mark.parametrize("name", WRONG)
def test_up_refuses_it(machine: Machine, untouched: dict[str, Any], name: str) -> None:
    text, line, words = WRONG[name]
    said = refused(machine, text)
    place = f"{CONFIG}:{line}: "
    assert len([each for each in said if str(CONFIG) in each]) == 1, said
    assert any(place in each and words in each for each in said), said
    assert difference(untouched, machine.snapshot()) == ""


def test_networks_that_overlap(machine: Machine, untouched: dict[str, Any]) -> None:
    address = ("198.18.8.129/25", "dev", "br0")
    machine.output("ip", "address", "add", *address)
    try:
        before = machine.snapshot()
        said = refused(machine, LAN + BRIDGE)
        after = machine.snapshot()
    finally:
        machine.output("ip", "address", "del", *address)
    assert difference(before, after) == ""
    words = [each for each in said if str(CONFIG) in each]
    assert len(words) == 1
    assert f"{CONFIG}:4: lan[1].interface: its network 198.18.8.128/25 overlaps" in words[0]
    assert "198.18.8.0/24 of interface eth1: who is a client could not be told" in words[0]
    assert difference(untouched, machine.snapshot()) == ""


def test_a_routed_machine_stays_routed(machine: Machine) -> None:
    machine.configure(LAN + ALICE)
    machine.up()
    try:
        before = known(machine)
        for name in ("unknown interface", "unknown account", "range elsewhere"):
            refused(machine, WRONG[name][0])
            assert difference(before, known(machine)) == ""
        assert machine.status()["state"] == "routed"
    finally:
        machine.down()
