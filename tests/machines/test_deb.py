"""The Debian package from its installation to its purge, on machines that never stop talking.

install ─► up ─► enable ─► off │ on ─► routed ─► upgrade ─► removal refused ─► down ─► purge
           └──────── tcpdump on the far end of the cable ─────────┘
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.machines import deb, tree
from tests.machines.boot_machine import furnish
from tests.machines.deb import Installed
from tests.machines.machine import PROJECT, Machine
from tests.machines.test_boot import Disk, fetched
from tests.report import SWEEP, Faults

RELEASES = ("bookworm", *(("trixie",) if SWEEP in os.environ else ()))
CONFIG = "/etc/onionward/onionward.toml"
JOURNAL = "/var/lib/onionward/journal.json"
MANY = 500
NETWORK = "/etc/network.torrc"
ACCOUNT = "onionward-tor"


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Debian's, by its code name."""
    return str(request.param)


@pytest.fixture(scope="module")
def package(lab: Lab, release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built on that release."""
    place = tmp_path_factory.mktemp("package")
    if release == tree.own_release():
        return deb.build(place)
    return deb.build_in_machine(lab, release, place)


@contextmanager
def flood(machine: Machine, lab: Lab) -> Iterator[None]:
    """Thousands of datagrams and connections a second to somebody who is not a relay."""
    program = str(PROJECT / "tests/lab/leak_flood.py")
    floods = [
        subprocess.Popen(
            machine.command(["python3", program, kind, lab.web4]), stdin=subprocess.PIPE
        )
        for kind in ("udp", "tcp")
    ]
    try:
        yield
        assert [one.poll() for one in floods] == [None, None]
    finally:
        for one in floods:
            assert one.stdin is not None
            one.stdin.close()
            one.wait(30)


def test_from_install_to_purge(
    lab: Lab, package: Path, tmp_path: Path, release: str, faults: Faults
) -> None:
    packages = ("systemd-sysv", "dbus", *deb.depends(package))
    disk = Disk(lab, tmp_path, release, packages)
    with disk.on() as (machine, wire):
        installed = Installed(machine)
        furnish(machine, lab)
        machine.output("rm", "-r", "/etc/onionward")
        machine.write(NETWORK, lab.network_torrc.read_text())
        # man pages and the like are to be there, and to go
        machine.output("rm", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap")
        machine.output("ip", "-batch", "/etc/cable.batch")
        machine.output("systemctl", "start", "talker.service")
        files, accounts, services = installed.files(), installed.accounts(), installed.services()
        installed.put(package)
        assert installed.services() == services
        assert installed.status()["state"] == "off"
        assert machine.output("nft", "list", "ruleset") == ""
        assert_account_is_that_of_up(installed, accounts)
        assert machine.path("/usr/share/man/man8/onionward-up.8.gz").exists()
        assert "nft and tor accept it" in installed.output("onionward", "check")
        with flood(machine, lab):
            until(lambda: any(".4433: UDP" in line for line in wire.leaks()), "the control")
        machine.write(CONFIG, f'[tor]\nnetwork = "{NETWORK}"\n')
        installed.output("onionward", "up")
        opened = len(wire.leaks())
        assert fetched(machine, lab) in lab.exits
        installed.output("onionward", "enable")
        unit = machine.path("/etc/systemd/system/onionward.service").read_text()
        assert "ExecStart=/usr/bin/onionward up\n" in unit
        machine.power_off()
        assert len(wire.leaks()) == opened

    with disk.on() as (machine, wire):
        installed = Installed(machine)
        installed.until_routed()
        before = [installed.guard(), installed.status()["tor_pid"]]
        next_package = deb.newer(package, tmp_path)
        with flood(machine, lab):
            # counted since the rules were loaded, which the new version does
            until(lambda: installed.refused() > MANY, "no flood before the upgrade")
            said = installed.put(next_package)
            clear = wire.leaks()
            faults.record("upgrades of the package under a flood", clear=len(clear))
            assert clear[:5] == []
            until(lambda: installed.refused() > MANY, "no flood after the upgrade")
        assert "doctor" not in said
        assert installed.output("onionward", "--version").strip().endswith("+newer")
        after = [installed.guard(), installed.status()["tor_pid"]]
        assert after[0] not in ("0", before[0])
        assert after[1] == before[1]
        assert installed.status()["problems"] == []
        assert machine.path(CONFIG).read_text().startswith("[tor]")
        assert fetched(machine, lab) in lab.exits

        for verb in ("--remove", "--purge"):
            assert_refused(installed, verb, "Run `onionward down`, then repeat")
        assert installed.status()["state"] == "routed"
        assert installed.status()["problems"] == []
        assert wire.leaks() == []

        installed.output("onionward", "down")
        machine.output("nft", "add", "table", "inet", "onionward_boot")
        assert_refused(installed, "--remove", "Run `onionward down`, then repeat")
        machine.output("nft", "delete", "table", "inet", "onionward_boot")
        with application(installed):
            assert_refused(installed, "--remove", "applications are running")
        installed.output("dpkg", "--remove", "onionward")
        # as if another installation were on
        machine.write(JOURNAL, "{}")
        done = installed.run("dpkg", "--purge", "onionward")
        assert done.returncode != 0
        assert "it is on" in done.stderr
        assert machine.path(JOURNAL).exists()
        machine.path(JOURNAL).unlink()
        installed.output("dpkg", "--purge", "onionward")
        assert_nothing_is_left(installed)
        assert installed.services() == services
        assert installed.accounts() - accounts == {account_line(installed)}
        assert installed.files() == files


def assert_account_is_that_of_up(installed: Installed, before: set[str]) -> None:
    """What `up` would make is what is there, made by sysusers.d(5)."""
    made = account_line(installed)
    assert installed.accounts() - before == {made}
    installed.output("userdel", ACCOUNT)
    ensure = (
        "from onionward.tor.account import ensure; from onionward.system import System; "
        f"from onionward.paths import PATHS; ensure(System(), '{ACCOUNT}', PATHS)"
    )
    installed.output("python3", "-I", "-c", ensure)
    assert account_line(installed).split(":")[4:] == made.split(":")[4:]
    # neither has a password that could be typed
    (shadow,) = (x for x in machine_file(installed, "/etc/shadow") if x.startswith(ACCOUNT))
    assert shadow.split(":")[1].startswith("!")
    assert installed.output("id", "-gn", ACCOUNT).strip() == ACCOUNT


def account_line(installed: Installed) -> str:
    return installed.output("getent", "passwd", ACCOUNT).strip()


def machine_file(installed: Installed, name: str) -> list[str]:
    return installed.machine.path(name).read_text().splitlines()


def assert_refused(installed: Installed, verb: str, words: str) -> None:
    done = installed.run("dpkg", verb, "onionward")
    assert done.returncode != 0
    assert words in done.stderr
    assert "nothing was removed" in done.stderr
    shown = installed.output(
        "dpkg-query", "--show", "--showformat=${db:Status-Status}", "onionward"
    )
    assert shown == "installed"
    assert installed.run("onionward", "--version").returncode == 0


@contextmanager
def application(installed: Installed) -> Iterator[None]:
    """An application that runs by `onionward run`; the tor of it stays for a while."""
    words = ["onionward", "run", "--", "sh", "-c", "echo running; cat"]
    with subprocess.Popen(
        installed.machine.command(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "running\n"
        yield
        running.stdin.close()
        assert running.wait(30) == 0


def assert_nothing_is_left(installed: Installed) -> None:
    for gone in ("/etc/onionward", "/var/lib/onionward", "/run/onionward", "/run/onionward-runs"):
        assert not installed.machine.path(gone).exists(), gone
    assert installed.machine.output("nft", "list", "ruleset") == ""
    processes = installed.output("ps", "-eo", "args")
    assert "/tor " not in processes
    assert "onionward." not in processes
    # dpkg has forgotten it
    assert installed.run("dpkg-query", "--status", "onionward").returncode != 0


def until(reached: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline, words
        time.sleep(0.1)
