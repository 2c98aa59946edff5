"""An application on a booted Debian: what resolves names for whoever asks is out of its reach.

getent ──► nscd ──► nss-resolve ──► systemd-resolved ──► 198.18.53.1   (the control)
onionward run getent ──► tor
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from onionward.lab.targets import targets
from onionward.leaks.wire import Capture, Witness
from tests.lab.lifecycle_machine import until
from tests.machines.machine import PROJECT, Machine, boot

INSIDE = PROJECT / "tests/lab/app_inside.py"
NAMESERVICE = "/run/systemd/resolve/io.systemd.Resolve"
BUS = "/run/dbus/system_bus_socket"
SOCKETS = (
    *(NAMESERVICE, "/run/systemd/resolve/io.systemd.Resolve.Monitor", "/run/nscd/socket", BUS),
    *("/run/systemd/private", "/run/systemd/userdb/io.systemd.DynamicUser"),
    "/run/systemd/journal/socket",
)
NAMES = "port 53"


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with boot(lab.hosts["host"]) as booted:
        booted.output("useradd", "--create-home", "--uid", "61001", "alice")
        booted.write("/etc/systemd/resolved.conf", f"[Resolve]\nDNS={lab.dns4}\n")
        booted.write("/etc/nsswitch.conf", "passwd: files systemd\nhosts: files resolve dns\n")
        booted.output("ln", "-sfn", "/run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
        booted.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
        booted.write(
            "/etc/onionward/onionward.toml", '[tor]\nnetwork = "/etc/onionward/network.torrc"\n'
        )
        # as udev has it where there is one
        unmanaged = "[keyfile]\nunmanaged-devices=type:veth\n"
        booted.write("/etc/NetworkManager/conf.d/veth.conf", unmanaged)
        booted.start("systemd-resolved", "nscd", "NetworkManager")
        yield booted
        assert booted.onionward("down").returncode == 0


@pytest.fixture(scope="module")
def witness(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Witness:
    directory: Path = tmp_path_factory.mktemp("wire")
    device = targets(lab).far_device
    return Witness(device, directory, namespace=lab.hosts["internet"].pid)


def run(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    return machine.onionward("run", *argv, timeout=180)


def asked(capture: Capture, name: str) -> list[str]:
    return [str(packet) for packet in capture.packets(NAMES) if name in packet.words]


def tried(machine: Machine, *options: str) -> dict[str, str]:
    argv = ("--as", "alice", *options, "--", "python3", "-I", str(INSIDE), *SOCKETS)
    done = run(machine, *argv)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)["sockets"]
    return found


def test_names_are_asked_of_tor_and_of_no_service(
    machine: Machine, lab: Lab, witness: Witness
) -> None:
    ways = (
        ("getent", "ahosts", "{}.example.test"),
        ("dig", "+tries=1", "+time=10", "{}.example.test"),
        ("dig", "+tries=1", "+time=10", "{}.example.test", "@127.0.0.53"),
        ("resolvectl", "--no-pager", "query", "{}.example.test"),
    )
    with witness.watch("clear") as clear:
        for number, way in enumerate(ways):
            machine.run(*(word.format(f"open{number}") for word in way), user="alice")
    for number, way in enumerate(ways):
        assert asked(clear, f"open{number}"), way
    with witness.watch("run") as capture:
        for number, way in enumerate(ways):
            words = [word.format(f"closed{number}") for word in way]
            run(machine, "--as", "alice", "--", *words)
        done = run(machine, "--as", "alice", "getent", "ahosts", "www.example.test")
        assert lab.web4 in done.stdout, done.stderr
        done = run(machine, "--as", "alice", "id", "-un")
        assert done.stdout == "alice\n"
    # all that the services themselves ask is theirs, and none of it is of a run
    assert asked(capture, "closed") == []
    assert asked(capture, "www.example.test") == []


def test_sockets_of_services_are_out_of_reach(machine: Machine) -> None:
    argv = ("python3", "-I", str(INSIDE), *SOCKETS)
    reached = json.loads(machine.output(*argv, user="alice"))["sockets"]
    assert {NAMESERVICE, "/run/nscd/socket", BUS} <= {
        path for path, outcome in reached.items() if outcome == "connected"
    }
    assert set(tried(machine).values()) == {"ENOENT"}


def test_the_system_bus_is_there_when_it_is_allowed_and_nothing_else(machine: Machine) -> None:
    found = tried(machine, "--allow", "system-bus")
    assert {path for path, outcome in found.items() if outcome != "ENOENT"} == {BUS}
    assert found[BUS] == "connected"


def test_the_keeper_is_a_service_and_ends_with_down(machine: Machine) -> None:
    unit = "onionward-runs.service"
    assert run(machine, "true").returncode == 0
    assert machine.output("systemctl", "is-active", unit) == "active\n"
    assert machine.onionward("down").returncode == 0
    until("it has ended", lambda: machine.run("systemctl", "is-active", unit).returncode != 0)
    assert "onionward" not in machine.output("nft", "list", "tables")
