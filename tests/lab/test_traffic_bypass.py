"""Bypassed networks are reached directly, never for names; a changed configuration is a reload.

host ── link ── neighbour: echo on TCP and UDP 8080 and on every port of name resolution
witness: tcpdump on the host's cable; only traffic with the neighbour's other ports may pass
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.lab.services import checksum
from tests.lab.lifecycle_machine import HERE, Machine, open_machine
from tests.lab.lifecycle_wire import Wire

BYPASS = '[bypass]\nnetworks = ["198.18.0.0/24", "2001:db8::/64"]\n'
NAME_PORTS = {"tcp": (53, 137, 853, 5353, 5355), "udp": (137, 138, 853, 1900, 5353, 5355)}
CLIENT = ("python", "-I", str(HERE / "lifecycle_client.py"))
AT_ONCE = 0.5


@pytest.fixture(scope="module")
def neighbour(lab: Lab) -> Iterator[Machine]:
    """The host, off, and servers on the neighbour."""
    with open_machine(lab) as opened:
        ports = [f"{kind}={port}" for kind in NAME_PORTS for port in NAME_PORTS[kind]]
        server = opened.script(
            "lifecycle_server.py", "tcp=8080", "udp=8080", "udp=53", *ports, on="neighbour"
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield opened


@pytest.fixture(scope="module")
def machine(neighbour: Machine) -> Machine:
    neighbour.configure(BYPASS)
    neighbour.up()
    return neighbour


def send(machine: Machine, kind: str, address: str, port: int) -> tuple[str, float]:
    """The name of the error that a program gets, and after how many seconds."""
    result = json.loads(machine.output(*CLIENT, "send", kind, address, str(port)))
    return result["error"], result["seconds"]


def ports_of_names(lab: Lab) -> list[tuple[str, str, int]]:
    return [
        (kind, address, port)
        for kind, ports in NAME_PORTS.items()
        for address in (lab.neighbour4, lab.neighbour6)
        for port in ports
    ]


def test_every_port_answers_when_off(neighbour: Machine) -> None:
    for kind, address, port in ports_of_names(neighbour.lab):
        assert send(neighbour, kind, address, port)[0] == "", (kind, address, port)


@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_neighbour_is_reached_directly(machine: Machine, kind: str, family: str) -> None:
    address = getattr(machine.lab, f"neighbour{family}")
    variant = "icmp6" if kind == "icmp" and family == "6" else kind
    with Wire(machine) as wire:
        assert send(machine, variant, address, 8080)[0] == ""
        assert any(address in packet.words for packet in wire.packets())


def test_names_are_never_asked_of_a_bypassed_network(machine: Machine) -> None:
    with Wire(machine) as wire:
        for kind, address, port in ports_of_names(machine.lab):
            error, seconds = send(machine, kind, address, port)
            expected = ("ECONNREFUSED",) if kind == "tcp" else ("EPERM", "EACCES")
            assert error in expected, (kind, address, port)
            assert seconds < AT_ONCE, (kind, address, port)
        for address in (machine.lab.neighbour4, machine.lab.neighbour6):
            answer = machine.output("dig", "+short", f"@{address}", "v4.example.test")
            assert answer.split() == [machine.lab.web4]  # by tor, not by the neighbour's echo
        wire.assert_silent()


def test_everything_else_goes_through_tor(machine: Machine) -> None:
    lab = machine.lab
    with Wire(machine) as wire:
        for url in (f"http://{lab.web4}/", f"http://[{lab.web6}]/", "http://www.example.test/"):
            page = json.loads(machine.output("curl", "-sS", "--noproxy", "*", url))
            assert page["client"] in lab.exits
        assert send(machine, "udp", lab.web4, 7)[0] == "EPERM"
        wire.assert_silent()


def test_changed_configuration_is_a_reload(machine: Machine) -> None:
    """Tor lives on, a download too, and nothing leaves in clear while the rules change."""
    lab = machine.lab
    pids, size = machine.tor_pids(), 6_000_000
    url = f"http://{lab.web4}/bytes/{size}"
    curl = ("curl", "-sS", "--fail", "--noproxy", "*", "-m", "60", "--limit-rate", "3M", url)
    digest = hashlib.sha256()
    held = machine.script("lifecycle_client.py", "hold", lab.neighbour4, "8080")
    assert held.stdout is not None
    assert held.stdout.readline().startswith("open")
    with Wire(machine, f"dst host {lab.neighbour4}") as wire, machine.stream(*curl) as download:
        assert download.stdout is not None
        digest.update(download.stdout.read(100_000))
        machine.configure("")
        reload_quietly(machine)
        assert send(machine, "udp", lab.neighbour4, 8080)[0] == "EPERM"
        machine.configure('[host]\ninbound = "none"\n' + BYPASS)
        reload_quietly(machine)
        assert send(machine, "udp", lab.neighbour4, 8080)[0] == ""
        assert download.poll() is None, "the download was over before the rules changed"
        while piece := download.stdout.read(1 << 16):
            digest.update(piece)
        wire.assert_silent()
    assert download.returncode == 0
    assert digest.hexdigest() == checksum(size)
    assert machine.tor_pids() == pids
    assert machine.status()["problems"] == []


def reload_quietly(machine: Machine) -> None:
    done = machine.up()
    assert "blocked" not in done.stdout
    assert "bootstrap" not in done.stdout
