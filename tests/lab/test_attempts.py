"""Who was stopped: counted exactly, attributed where the kernel still knows, bounded in a flood.

internet ── host0 (witness) ── eth0 host: alice (routed with the host), bob (a scope of its own)
internet ── gateway0 (witness) ── eth0 gateway ── eth1 client1
                                          └────── br0  container
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onionward.attempts.owners import Owners
from onionward.attempts.packet import Packet
from onionward.lab import Lab
from onionward.lab.targets import targets
from tests import json_reference
from tests.lab.lifecycle_machine import HERE, Machine, open_machine, until
from tests.lab.lifecycle_scopes import BOB, LAN, forwarding
from tests.lab.lifecycle_wire import Wire
from tests.lab.test_guard import memory, page, switches
from tests.lab.test_leaks_flood import flooding

SENDER = str(HERE / "attempts_sender.py")
LOG = Path("/run/onionward-lab/attempts.log")
MEMORY = 30 << 10  # KiB
EXITS = "198.18.3."
SOME = 20  # packets that are told at once
QUIET_SECONDS = 3.0
ANSWERS = 2.0  # seconds; what else the machine does, and the flood, take most of it


@pytest.fixture(scope="module")
def bench(lab: Lab) -> Iterator[tuple[Machine, Wire]]:
    with open_machine(lab) as opened, Wire(opened) as wire:
        yield opened, wire


@contextmanager
def routed(machine: Machine, wire: Wire, config: str = "") -> Iterator[None]:
    """On, with a witness that the program is seen without."""
    with sending(machine, "udp", machine.lab.stranger4, "443", "1"):
        until("it is seen", lambda: "198.18.66.6.443" in str(wire.packets()))
    machine.configure(config)
    machine.up()
    since = time.time()
    yield
    wire.assert_silent(since)
    machine.down()


@contextmanager
def sending(machine: Machine, *words: str, on: str = "", user: str | None = None) -> Iterator[None]:
    """A program that is stopped, and still there."""
    python = "/usr/bin/python3" if user or words[0] != "nflog" else "python"
    process = machine.spawn(python, "-I", SENDER, *words, on=on, user=user)
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    yield
    # by itself: what stands between kills it only after seconds
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


def told(machine: Machine, **wanted: object) -> dict[str, Any]:
    """The attempt with these values, as soon as `status` has it."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        attempts = machine.status()["attempts"]
        found[:] = [a for a in attempts if all(a[key] == wanted[key] for key in wanted)]
        return bool(found)

    until(f"{wanted} is told", there)
    return found[-1]


def counted(machine: Machine, **wanted: object) -> int:
    stopped = machine.status()["stopped"]
    return sum(
        count["packets"] for count in stopped if all(count[key] == wanted[key] for key in wanted)
    )


def test_a_routed_host(bench: tuple[Machine, Wire]) -> None:
    machine, wire = bench
    address, address6 = machine.lab.web4, machine.lab.web6
    with routed(machine, wire, f'[host]\n[log]\nattempts = "{LOG}"\n'):
        with (
            sending(machine, "udp", address, "443", "40", user="alice"),
            sending(machine, "udp", address6, "123", "3"),
            sending(machine, "icmp", address, "0", "2"),
            sending(machine, "frame", "eth0", "0", "4"),
            sending(machine, "tcp", "192.168.77.1", "631", "1", user="bob"),
        ):
            alice = told(machine, account="alice", port=443, times=SOME)
            words = f"python3 (alice) tried UDP 443 → {address}, {SOME} times: QUIC, refused; "
            assert alice["words"] == f"{words}it falls back to TCP"
            assert (alice["scope"], alice["reason"]) == ("host", "refused")
            # rules tell of some, and count all
            assert counted(machine, account="alice", protocol="udp") == 40
            assert told(machine, account="root", port=123, address=address6)["times"] == 3
            assert told(machine, account="root", protocol="icmp", port=8)["program"] == "python3"
            assert told(machine, account="root", protocol="0x88cc")["reason"] == "escaped"
            assert counted(machine, account="root", protocol="0x88cc", reason="escaped") == 4
            assert "bypass the network" in told(machine, account="bob", port=631)["words"]
        _look_at_status(machine)
        logged = [json.loads(line) for line in machine.path(LOG).read_text().splitlines()]
        assert {("python3", 443), ("python3", 123)} <= {(e["program"], e["port"]) for e in logged}
        assert machine.path(LOG).stat().st_mode & 0o777 == 0o600
        machine.path(LOG).unlink()
    # who wanted what is nowhere any more
    assert not machine.path("/run/onionward/attempts.json").exists()
    assert machine.run("grep", "-rl", address, "/var/lib/onionward").stdout == ""


def _look_at_status(machine: Machine) -> None:
    report = machine.status()
    assert [*json_reference.mismatches(report)] == []
    assert (report["tor_bootstrap"], report["problems"]) == (100, [])
    assert report["tor_circuits"] > 0
    assert report["tor_guards"]
    assert all(name.startswith("exit") for name in report["tor_exits"])
    text = machine.onionward("status").stdout
    assert "  by        alice: 40 UDP refused\n" in text
    assert len(text.splitlines()) <= 24


def test_the_address_that_a_server_sees(bench: tuple[Machine, Wire]) -> None:
    machine, wire = bench
    with routed(machine, wire):
        page_of_lab = f"--exit-address=http://{machine.lab.web4}/"
        report = json.loads(machine.output("onionward", "status", "--json", page_of_lab))
        assert report["exit_address"] in machine.lab.exits
        assert f"  seen as   {EXITS}" in machine.output("onionward", "status", page_of_lab)
        # nobody listens there
        other = f"--exit-address=http://{machine.lab.web4}:81/"
        report = json.loads(machine.output("onionward", "status", "--json", other))
        assert report["exit_address"] is None
        assert "the exit's address is not known: no exit reaches" in report["problems"][0]
        assert machine.run("onionward", "status", "--exit-address=elsewhere").returncode == 2


def test_an_account_of_its_own(bench: tuple[Machine, Wire]) -> None:
    machine, _ = bench
    machine.configure(BOB)
    machine.up()
    with sending(machine, "udp", machine.lab.web4, "3478", "5", user="bob"):
        found = told(machine, account="bob")
        assert (found["scope"], found["port"]) == ("user", 3478)
        assert "STUN of WebRTC, refused" in found["words"]
    assert counted(machine, account="bob", scope="user") == 5
    machine.down()


def test_clients_and_containers(lab: Lab) -> None:
    with open_machine(lab, "gateway") as machine, forwarding(machine):
        machine.configure(f"{LAN}[host]\n")
        machine.up()
        with (
            sending(machine, "udp", lab.web4, "443", "6", on="client1"),
            sending(machine, "udp", lab.web4, "51820", "7", on="container"),
        ):
            client = told(machine, interface="eth1", port=443)
            assert (client["scope"], client["account"]) == ("lan", None)
            assert client["words"].startswith(f"{client['client']} behind eth1 tried UDP 443")
            container = told(machine, interface="br0", port=51820)
            assert (container["scope"], container["client"]) == ("forwarded", "198.18.9.2")
        assert counted(machine, interface="eth1", protocol="udp", reason="forwarded") == 6
        assert counted(machine, interface="br0", protocol="udp") == 7
        assert [*json_reference.mismatches(machine.status())] == []
        machine.down()


def test_a_flood(bench: tuple[Machine, Wire]) -> None:
    """It opens nothing, fills no memory, and others are served meanwhile."""
    machine, wire = bench
    with routed(machine, wire):
        with flooding(machine.host, targets(machine.lab)):
            began = time.monotonic()
            while time.monotonic() - began < 4:
                started = time.monotonic()
                assert page(machine).returncode == 0
                assert time.monotonic() - started < ANSWERS
            report = machine.status()
            assert memory(machine) < MEMORY
        assert (report["state"], report["problems"]) == ("routed", [])
        assert sum(count["packets"] for count in report["stopped"]) > 5000
        assert 0 < len(report["attempts"]) <= 512
        assert machine.path("/run/onionward/attempts.json").stat().st_size < 200_000
        # and then it sleeps again
        time.sleep(1.5)
        before = switches(machine)
        time.sleep(QUIET_SECONDS)
        assert switches(machine) - before <= 2


def test_another_program_has_the_group(bench: tuple[Machine, Wire]) -> None:
    machine, wire = bench
    with sending(machine, "nflog", "", "0", "0"), routed(machine, wire):
        assert page(machine).returncode == 0
        with sending(machine, "udp", machine.lab.web4, "443", "9", user="alice"):
            until("it is counted", lambda: counted(machine, account="alice") == 9)
        report = machine.status()
        assert report["attempts"] == []
        assert any("who tries what is not told" in e["words"] for e in report["guard_events"])


class TestOwners:
    """Sockets of this process, whose namespace is this one's."""

    def test_a_datagram(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            packet = Packet("refused", os.getuid(), "", False, "udp", "127.0.0.1", port)
            found = Owners().find(packet._replace(destination="192.0.2.1", port=443))
        assert found is not None
        assert found.pid == os.getpid()

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_a_connection(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            socket.create_server((address, 0), family=family) as server,
            socket.create_connection(server.getsockname()[:2]) as client,
        ):
            source, port = client.getsockname()[:2]
            packet = Packet("refused", os.getuid(), "", False, "tcp", source, port, address)
            found = Owners().find(packet._replace(port=server.getsockname()[1]))
        assert found is not None
        assert found.pid == os.getpid()
