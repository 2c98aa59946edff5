"""Protection from the boot on, of booted Debian machines that talk from their first moment.

power on ─► talker ─► block ─► network-pre ─► cable plugged in ─► up ─► routed ─► power off
└─────────────────────── tcpdump on the far end of the cable ──────────────────────┘
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import strided
from tests.machines.boot_machine import PACKAGES, Witness, furnish, without_power, witness
from tests.machines.machine import PROJECT, Machine, boot
from tests.machines.network import left_as_found

CONFIG = '[tor]\nnetwork = "/etc/onionward/network.torrc"\n'
FETCH = "import urllib.request as u; print(u.urlopen('http://{}/', timeout=20).read().decode())"
# accounts stay, and their tools keep copies
STAYS = "passwd|group|shadow|gshadow|subuid|subgid"
RULES = "/etc/onionward/boot.nft"


class Disk:
    """A machine that can be switched off and on again.

    Args:
        lab: whose host's network it is in.
        place: for what it writes.
        release: of Debian.
        packages: what its tree has.

    """

    def __init__(
        self,
        lab: Lab,
        place: Path,
        release: str = "",
        packages: tuple[str, ...] = PACKAGES,
    ) -> None:
        self.lab = lab
        self._packages = packages
        self._place = place
        self._release = release

    def file(self, inside: str) -> Path:
        """A file that the machine has written, while it is off."""
        path = self._place / "upper" / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def on(self, *relays: str, reached: str = "running") -> Iterator[tuple[Machine, Witness]]:
        """Power on, with a witness from before that until after the end."""
        host = self.lab.hosts["host"]
        with (
            left_as_found(host),
            without_power(host),
            witness(self.lab, self._place, *relays) as wire,
            boot(
                host,
                self._packages,
                release=self._release,
                disk=self._place,
                reached=(reached, "degraded", "starting"),
            ) as machine,
        ):
            yield machine, wire


def status(machine: Machine) -> dict[str, object]:
    found: dict[str, object] = json.loads(machine.onionward("status", "--json").stdout)
    return found


def until_routed(machine: Machine) -> None:
    deadline = time.monotonic() + 60
    while status(machine)["state"] != "routed":
        assert time.monotonic() < deadline, machine.console + machine.output(
            "journalctl", "--no-pager", "-n", "60"
        )
        time.sleep(0.3)


def etc(machine: Machine) -> str:
    """Everything in /etc: names, kinds, modes, link targets, contents."""
    listing = (
        f"cd /etc && find . -regextype posix-extended ! -regex '\\./({STAYS})-?' "
        "-printf '%P %y %m %l\\n' | sort; "
        f"find . -regextype posix-extended -type f ! -regex '\\./({STAYS})-?' "
        "! -name machine-id -exec sha256sum {} + | sort"
    )
    return machine.output("sh", "-c", listing)


def fetched(machine: Machine, lab: Lab) -> str:
    """The address from which the web server sees the machine."""
    page = json.loads(machine.output("python3", "-c", FETCH.format(lab.web4)))
    return str(page["client"])


@pytest.mark.parametrize("release", ["", "trixie"])
def test_nothing_leaves_from_power_on_to_power_off(lab: Lab, tmp_path: Path, release: str) -> None:
    disk = Disk(lab, tmp_path, release)
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        # it flushes all rules when it is started, and at shutdown when it is stopped
        machine.output("systemctl", "enable", "nftables.service")
        done = machine.onionward("check")
        assert done.returncode == 0, done.stderr
    with disk.on() as (machine, wire):
        time.sleep(1)
        seen = "\n".join(wire.leaks())
        for trace in ("UDP", f"> {lab.dns4}.53:", "ICMP echo", "Flags [S]", "IP6"):
            assert trace in seen, f"the control has no {trace}"
        before = etc(machine)
        done = machine.onionward("enable")
        assert done.returncode == 0, done.stderr
        enabled = etc(machine)
        assert machine.onionward("enable").returncode == 0
        assert etc(machine) == enabled
        machine.power_off()

    for _ in range(2):
        with disk.on() as (machine, wire):
            until_routed(machine)
            assert status(machine)["problems"] == []
            assert fetched(machine, lab) in lab.exits
            assert machine.output("systemctl", "is-active", "talker") == "active\n"
            for verb in ("restart", "stop"):
                assert machine.run("systemctl", verb, "onionward-block.service").returncode != 0
            assert status(machine)["state"] == "routed"
            machine.output("systemctl", "stop", "onionward.service")
            assert fetched(machine, lab) in lab.exits
            machine.power_off()
        assert wire.leaks() == []

    with disk.on() as (machine, wire):
        until_routed(machine)
        assert wire.leaks() == []
        done = machine.onionward("down")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "next boot is blocked" in done.stdout
        time.sleep(0.5)
        assert wire.leaks() != []
        assert machine.onionward("disable").returncode == 0
        assert etc(machine) == before
        assert "disabled already" in machine.onionward("disable").stdout


def damages(text: str) -> dict[str, str | None]:
    """What may have become of the stored rules; None: no file."""
    lines = text.splitlines(keepends=True)
    return {
        "missing": None,
        "empty": "",
        "garbage": "\x00\xff garbage {",
        "cut in a rule": text[: len(text) // 2],
        "cut before the end": "".join(lines[:-1]),
        "cut in the last line": text[:-6],
    }


def test_whatever_fails_the_machine_stays_blocked(lab: Lab, tmp_path: Path) -> None:
    disk = Disk(lab, tmp_path)
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        assert machine.onionward("enable").returncode == 0
        machine.power_off()
    rules, network = disk.file(RULES), disk.file("/etc/onionward/network.torrc")
    stored, torrc = rules.read_text(), network.read_text()

    # Tor's network cannot be read: `up` refuses
    network.unlink()
    with disk.on() as (machine, wire):
        time.sleep(2)
        found = status(machine)
        assert (found["state"], found["since_boot"], found["at_boot"]) == (
            "blocked",
            True,
            "enabled",
        )
        console = machine.console
        assert "network.torrc" in console
        assert "`onionward down` opens it" in console
        machine.power_off()
    assert wire.leaks() == []

    damaged = list(damages(stored).items())
    for turn in strided("damaged boot", len(damaged), 3):
        words, text = damaged[turn - 1]
        rules.unlink(missing_ok=True)
        if text is not None:
            rules.write_bytes(text.encode("latin-1", "replace"))
        with disk.on() as (machine, wire):
            time.sleep(1)
            assert status(machine)["since_boot"] is True, words
        assert wire.leaks() == [], words

    # relays that do not answer: `up` blocks by its own rules, and goes on trying
    rules.unlink(missing_ok=True)
    network.write_text(torrc.replace("198.18.", "198.19."))
    disk.file("/etc/onionward/onionward.toml").write_text(CONFIG + "bootstrap_timeout = 5\n")
    with disk.on("198.19.0.0/16") as (machine, wire):
        deadline = time.monotonic() + 30
        while "was blocked since its boot" not in machine.console:
            assert time.monotonic() < deadline, machine.console
            time.sleep(0.2)
        found = status(machine)
        assert (found["state"], found["since_boot"]) == ("blocked", False)
        assert "way out" in machine.console
        network_now = machine.path("/etc/onionward/network.torrc")
        network_now.write_text(torrc)
        until_routed(machine)
        assert fetched(machine, lab) in lab.exits
        machine.power_off()
    assert wire.leaks() == []


def test_without_nft_there_is_no_network(lab: Lab, tmp_path: Path) -> None:
    disk = Disk(lab, tmp_path)
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        assert machine.onionward("enable").returncode == 0
        machine.power_off()
    disk.file("/usr/sbin/nft").write_text("")
    with disk.on(reached="maintenance") as (machine, wire):
        time.sleep(2)
        assert machine.run("systemctl", "is-active", "emergency.target").stdout == "active\n"
        assert "state UP" not in machine.output("ip", "link", "show", "eth0")
    assert wire.leaks() == []


def test_a_soft_reboot_is_blocked_again(lab: Lab, tmp_path: Path) -> None:
    """It leaves interfaces up and rules in place, but nftables.service flushes those."""
    disk = Disk(lab, tmp_path, "trixie")
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        # what is mounted into the machine is not there any more afterwards
        machine.write("/opt/chatter.py", (PROJECT / "tests/lab/lifecycle_chatter.py").read_text())
        talker = "/etc/systemd/system/talker.service"
        argument = f"s,{PROJECT}/tests/lab/lifecycle_chatter.py,/opt/chatter.py,"
        machine.output("sed", "-i", argument, talker)
        machine.output("systemctl", "enable", "nftables.service")
        assert machine.onionward("enable").returncode == 0
        machine.power_off()
    with disk.on() as (machine, wire):
        until_routed(machine)
        assert wire.leaks() == []
        machine.output("systemctl", "soft-reboot")
        deadline = time.monotonic() + 30
        count = ("systemctl", "show", "--value", "--property=SoftRebootsCount")
        while machine.run(*count).stdout != "1\n":
            assert time.monotonic() < deadline, machine.console
            time.sleep(0.3)
        talking = ("systemctl", "is-active", "talker.service", "onionward-block.service")
        while machine.run(*talking).stdout != "active\nactive\n":
            assert time.monotonic() < deadline, machine.console
            time.sleep(0.3)
        before = wire.leaks()
        time.sleep(2)
        assert wire.leaks() == before
        assert "onionward_boot" in machine.output("nft", "list", "tables")
