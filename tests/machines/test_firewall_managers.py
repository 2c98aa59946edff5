"""Real firewalld, ufw and nftables.service beside onionward, in booted machines.

What is theirs stays theirs, whatever the order, and nothing leaves in clear meanwhile, nor from
power-on to power-off. Collected only when ONIONWARD_SWEEP is set (conftest.py): it takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.machines.boot_machine import Witness, furnish, without_power, witness
from tests.machines.firewalls import MANAGERS, NFTABLES, RULES, onionward, theirs
from tests.machines.machine import Machine, boot
from tests.machines.network import left_as_found
from tests.machines.test_boot import CONFIG, Disk, fetched, status, until_routed

RELEASES = ["", "trixie"]


@contextmanager
def talking(
    lab: Lab, place: Path, packages: tuple[str, ...], release: str = ""
) -> Iterator[tuple[Machine, Witness]]:
    """A machine that never stops talking, with a witness on its cable."""
    host = lab.hosts["host"]
    with (
        left_as_found(host),
        without_power(host),
        witness(lab, place) as wire,
        boot(host, packages, release=release) as machine,
    ):
        furnish(machine, lab, CONFIG)
        # ufw would change the kernel's settings, which are the lab's host's
        machine.run("sed", "-i", "s/^IPT_SYSCTL=.*//", "/etc/default/ufw")
        machine.write(RULES, NFTABLES, mode=0o755)
        machine.output("ip", "-batch", "/etc/cable.batch")
        machine.start("talker.service")
        yield machine, wire


def until_heard(wire: Witness) -> None:
    deadline = time.monotonic() + 10
    while not wire.leaks():
        assert time.monotonic() < deadline, "the control has seen nothing"


# it has its name on the bus before it has its rules
IS_RUNNING = "until firewall-cmd --quiet --state; do sleep 0.1; done"
# what starts it; what its user does while onionward is on; what ends it
MANAGED = {
    "ufw": (
        "ufw --force enable",
        ("ufw allow 80/tcp", "ufw reload", "systemctl restart ufw", "ufw --force disable",
         "ufw --force enable"),
        "ufw --force disable",
    ),
    "firewalld": (
        f"systemctl start firewalld && {IS_RUNNING}",
        ("firewall-cmd --add-port=80/tcp", "firewall-cmd --reload",
         "firewall-cmd --complete-reload", f"systemctl restart firewalld && {IS_RUNNING}"),
        "systemctl stop firewalld",
    ),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("started", ["before", "while on"])
def test_managers_beside_us(lab: Lab, tmp_path: Path, release: str, started: str) -> None:
    for number, (first, middle, last) in enumerate(MANAGED.values()):
        place = tmp_path / f"{number}"
        place.mkdir()
        with talking(lab, place, MANAGERS, release) as (machine, wire):
            until_heard(wire)
            if started == "before":
                machine.output("sh", "-c", first)
            before = theirs(machine)
            onionward(machine, "up")
            seen = len(wire.leaks())
            assert theirs(machine) == before
            if started == "while on":
                machine.output("sh", "-c", first)
            for command in middle:
                machine.output("sh", "-c", command)
                assert status(machine)["state"] == "routed", command
                assert status(machine)["problems"] == [], command
                assert wire.leaks()[seen:] == [], command
            assert fetched(machine, lab) in lab.exits
            there = theirs(machine)
            assert there != []
            machine.output("sh", "-c", last)
            assert status(machine)["problems"] == []
            assert fetched(machine, lab) in lab.exits
            machine.output("sh", "-c", first)
            there = theirs(machine)
            assert wire.leaks()[seen:] == []
            onionward(machine, "down")
            assert theirs(machine) == there
            # as a machine without onionward has it
            machine.output("sh", "-c", f"{last}; {first}")
            assert theirs(machine) == there


def test_ufw_that_denies_outgoing_is_named(lab: Lab, tmp_path: Path) -> None:
    with talking(lab, tmp_path, MANAGERS) as (machine, wire):
        machine.write("/etc/onionward/onionward.toml", CONFIG + "bootstrap_timeout = 5\n")
        for command in ("ufw default deny outgoing", "ufw --force enable"):
            machine.output("sh", "-c", command)
        there = theirs(machine)
        named = "table ip filter, chain OUTPUT (iptables-nft), its policy: drop"
        words = onionward(machine, "check")
        assert f"what tor sends is stopped by another program's firewall: {named}" in words
        assert "what programs send and our rules turn to tor is stopped" in words
        done = machine.onionward("up")
        assert done.returncode == 1
        words = " ".join(done.stderr.split())
        assert (
            "its packets are stopped by another program's firewall: table ip filter, chain OUTPUT, "
            "its policy: drop" in words
        )
        assert theirs(machine) == there
        # as the documentation has it
        accept = (
            "-A ufw-before-output -m owner --uid-owner onionward-tor -p tcp -j ACCEPT\\n"
            "-A ufw-before-output -d 127.0.0.1 -p tcp --dport 940 -j ACCEPT\\n"
        )
        accept6 = (
            "-A ufw6-before-output -m owner --uid-owner onionward-tor -p tcp -j ACCEPT\\n"
            "-A ufw6-before-output -d ::1 -p tcp --dport 940 -j ACCEPT\\n"
        )
        for name, lines in (("before", accept), ("before6", accept6)):
            machine.output("sed", "-i", f"s/^COMMIT/{lines}COMMIT/", f"/etc/ufw/{name}.rules")
        machine.output("ufw", "reload")
        assert "another program" not in onionward(machine, "check")
        onionward(machine, "up")
        seen = len(wire.leaks())
        assert fetched(machine, lab) in lab.exits
        assert wire.leaks()[seen:] == []
        onionward(machine, "down")


@pytest.mark.parametrize("release", RELEASES)
def test_from_power_on_beside_managers(lab: Lab, tmp_path: Path, release: str) -> None:
    disk = Disk(lab, tmp_path, release, MANAGERS)
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        machine.write(RULES, NFTABLES, mode=0o755)
        machine.output("sed", "-i", "s/^IPT_SYSCTL=.*//", "/etc/default/ufw")
        machine.output("ufw", "--force", "enable")
        machine.output("systemctl", "enable", "ufw.service", "nftables.service")
        onionward(machine, "enable")
        machine.power_off()
    for services in (("ufw", "nftables"), ("firewalld",)):
        with disk.on() as (machine, wire):
            until_routed(machine)
            deadline = time.monotonic() + 20
            for service in services:
                while machine.run("systemctl", "is-active", service).stdout != "active\n":
                    assert time.monotonic() < deadline, service
                    time.sleep(0.2)
            assert fetched(machine, lab) in lab.exits
            assert status(machine)["problems"] == []
            assert theirs(machine) != []
            journal = machine.output("journalctl", "--boot", "--no-pager")
            assert "ordering cycle" not in journal
            assert machine.output("systemctl", "is-active", "talker") == "active\n"
            if "ufw" in services:
                machine.output("ufw", "--force", "disable")
                machine.output("systemctl", "disable", "ufw.service", "nftables.service")
                machine.output("systemctl", "enable", "firewalld.service")
            assert wire.leaks() == [], services
            machine.power_off()
        assert wire.leaks() == [], services
