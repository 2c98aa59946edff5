"""The guard as a service of systemd: restricted, started again, ended by `down`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.machines.boot_machine import PACKAGES
from tests.machines.machine import Machine, boot

UNIT = "onionward-guard.service"
CONFIG = '[tor]\nnetwork = "/etc/onionward/network.torrc"\n'
WORST_SCORE = 4.0  # of systemd-analyze(1), security


@contextmanager
def machine_of(lab: Lab, release: str) -> Iterator[Machine]:
    with boot(lab.hosts["host"], PACKAGES, release=release) as machine:
        machine.write("/etc/resolv.conf", f"nameserver {lab.dns4}\n")
        machine.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
        machine.write("/etc/onionward/onionward.toml", CONFIG)
        yield machine


def until(what: str, reached: Callable[[], bool], patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while not reached():
        assert time.monotonic() < deadline, f"not in {patience:g} s: {what}"
        time.sleep(0.1)


def is_whole(machine: Machine) -> bool:
    report = json.loads(machine.onionward("status", "--json").stdout)
    return (report["state"], report["guard"], report["problems"]) == ("routed", "running", [])


def main_pid(machine: Machine) -> int:
    shown = machine.run("systemctl", "show", "--property=MainPID", UNIT).stdout
    return int(shown.partition("=")[2])


@pytest.mark.parametrize("release", ["", "trixie"])
def test_service(lab: Lab, release: str) -> None:
    with machine_of(lab, release) as machine:
        done = machine.onionward("up")
        assert done.returncode == 0, done.stderr
        assert is_whole(machine)
        score = re.search(
            r"exposure level for \S+: ([\d.]+)",
            machine.run("systemd-analyze", "security", "--no-pager", UNIT).stdout,
        )
        assert score
        assert float(score[1]) <= WORST_SCORE

        # what it does needs no more than it is allowed
        machine.output("nft", "flush", "ruleset")
        until("rules are put back", lambda: is_whole(machine))
        machine.write("/etc/resolv.conf", "nameserver 198.18.53.1\n")
        until("resolv.conf is put back", lambda: is_whole(machine))
        machine.output("pkill", "-KILL", "-x", "tor")
        time.sleep(0.5)
        until("tor is started again", lambda: is_whole(machine))

        first = main_pid(machine)
        machine.output("kill", "-KILL", str(first))
        until("another guard is there", lambda: main_pid(machine) not in (0, first))
        until("it holds its tables", lambda: is_whole(machine))
        machine.output("pkill", "-KILL", "-x", "tor")
        time.sleep(0.5)
        until("that one starts tor", lambda: is_whole(machine))

        # what flushes all rules when it is stopped is stopped then, and nearly everything else
        machine.output("systemctl", "start", "nftables.service")
        until("rules are put back after its start", lambda: is_whole(machine))
        second = main_pid(machine)
        machine.output("systemctl", "isolate", "emergency.target")
        until(
            "nftables.service is stopped",
            lambda: machine.run("systemctl", "is-active", "nftables").stdout == "inactive\n",
        )
        until("rules are put back after its end", lambda: is_whole(machine))
        assert main_pid(machine) == second

        done = machine.onionward("down")
        assert done.returncode == 0, done.stderr
        assert machine.run("systemctl", "is-active", UNIT).stdout.strip() == "inactive"
        assert machine.output("nft", "list", "tables") == ""
        assert "onionward" not in machine.output("systemctl", "list-units", "--all", "onionward*")
        log = machine.output("journalctl", "--no-pager", "-t", "onionward")
        assert "packet rules were gone by another's doing: put back" in log
