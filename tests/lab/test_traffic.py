"""What programs of a routed host get: Tor for TCP and names, a quick refusal for the rest.

host ── tor: guard ── middle ── exit ── web server (says who asked), DNS server, echo
witness: tcpdump on the far end of the host's cable, during every test of this file
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from onionward.lab import Lab
from onionward.lab.services import checksum
from onionward.paths import PATHS
from tests.lab.lifecycle_machine import HERE, Machine, difference, open_machine
from tests.lab.lifecycle_scopes import without_senders
from tests.lab.lifecycle_wire import Wire

AT_ONCE = 0.5
CLIENT = ("python", "-I", str(HERE / "lifecycle_client.py"))


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened, Wire(opened) as wire:
        fetch(opened, f"http://{lab.web4}/")
        assert wire.packets(), "the witness does not see what leaves in clear"
        opened.up()
        started = time.time()
        yield opened
        wire.assert_silent(since=started)


def fetch(machine: Machine, url: str) -> dict[str, Any]:
    text = machine.output("curl", "-sS", "--fail", "--noproxy", "*", "-m", "20", url)
    page: dict[str, Any] = json.loads(text)
    return page


def ask(machine: Machine, *words: str) -> tuple[str, list[str]]:
    """Status and answers of a DNS query."""
    argv = ["dig", "+time=10", "+tries=1", "+noall", "+comments", "+answer", *words]
    lines = machine.run(*argv).stdout.splitlines()
    heads = [line for line in lines if "status: " in line]
    status = heads[0].split("status: ")[1].split(",")[0] if heads else "no answer"
    return status, [line.split()[-1] for line in lines if line and not line.startswith(";")]


def send(machine: Machine, kind: str, address: str, port: int) -> tuple[str, float]:
    """The name of the error that a program gets, and after how many seconds."""
    result = json.loads(machine.output(*CLIENT, "send", kind, address, str(port)))
    return result["error"], result["seconds"]


def test_server_sees_an_exit(machine: Machine) -> None:
    lab = machine.lab
    for url in (
        f"http://{lab.web4}/",
        f"http://[{lab.web6}]/",
        "http://v4.example.test/",
        "http://v6.example.test/",
        "http://www.example.test/",
    ):
        page = fetch(machine, url)
        assert page["client"] in lab.exits, url
        assert page["server"] in (lab.web4, lab.web6), url


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_onion_service_answers(machine: Machine, family: str) -> None:
    url = f"http://{machine.lab.onion}/"
    argv = ("curl", "-sS", family, "--noproxy", "*", "-m", "25", url)
    done = machine.run(*argv)
    for _ in range(3):
        if not done.returncode:
            break
        # a rendezvous that hangs is the network's misfortune, and is waited for by its circuit
        machine.output("onionward", "new-identity")
        done = machine.run(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    page = json.loads(done.stdout)
    assert page["client"] == "127.0.0.1"  # the service's own tor asked
    assert page["host"] == machine.lab.onion


def test_names_are_resolved_wherever_the_query_is_addressed(machine: Machine) -> None:
    lab = machine.lab
    resolvers = ("127.0.0.1", "127.0.0.53", "::1", lab.neighbour4, lab.neighbour6, lab.dns4)
    for resolver in (*resolvers, lab.dns6, "203.0.113.1"):
        answer = ask(machine, f"@{resolver}", "www.example.test", "A")
        assert answer == ("NOERROR", [lab.web4]), resolver
    assert ask(machine, "v6.example.test", "AAAA") == ("NOERROR", [lab.web6])
    for address in (lab.web4, lab.web6):
        assert ask(machine, "-x", address) == ("NOERROR", ["www.example.test."])
    assert ask(machine, "nothing.example.test", "A") == ("NXDOMAIN", [])
    assert ask(machine, "example.test", "MX") == ("NOTIMP", [])
    resolved = machine.output("getent", "ahosts", "www.example.test").split()
    assert {lab.web4, lab.web6} <= set(resolved)


def test_tcp_queries_go_to_a_public_resolver_through_tor(machine: Machine) -> None:
    lab = machine.lab
    for resolver in (lab.dns4, lab.dns6):
        answer = ask(machine, "+tcp", f"@{resolver}", "example.test", "MX")
        assert answer == ("NOERROR", ["www.example.test."]), resolver


@pytest.mark.parametrize("resolver", ["127.0.0.1", "127.0.0.53", "::1", "192.168.1.1"])
def test_tcp_queries_to_local_resolvers_are_refused_at_once(
    machine: Machine, resolver: str
) -> None:
    error, seconds = send(machine, "tcp", resolver, 53)
    assert error == "ECONNREFUSED"
    assert seconds < AT_ONCE


def test_two_hundred_requests_at_once(machine: Machine) -> None:
    lab = machine.lab
    for address in ("www.example.test", lab.web4):
        answers = json.loads(machine.output(*CLIENT, "many", "200", address))
        assert len(answers) == 200
        for path, page in answers.items():
            assert page["path"] == path
            assert page["host"] == address
            assert page["client"] in lab.exits


def test_fifty_megabytes_arrive_intact(machine: Machine) -> None:
    size = 50_000_000
    url = f"http://{machine.lab.web4}/bytes/{size}"
    digest, received = hashlib.sha256(), 0
    with machine.stream("curl", "-sS", "--fail", "--noproxy", "*", "-m", "60", url) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            digest.update(piece)
            received += len(piece)
    assert process.returncode == 0
    assert received == size
    assert digest.hexdigest() == checksum(size)


@pytest.mark.parametrize("kind", ["udp", "udplite", "icmp", "gre", "raw"])
def test_other_protocols_are_refused_at_once(machine: Machine, kind: str) -> None:
    lab = machine.lab
    targets = [(lab.web4, kind), (lab.neighbour4, kind)]
    other = "icmp6" if kind == "icmp" else kind
    targets += [(lab.web6, other), (lab.neighbour6, other)]
    for address, variant in targets:
        error, seconds = send(machine, variant, address, 443)
        assert error in ("EPERM", "EACCES", "EHOSTUNREACH"), (address, variant)
        assert seconds < AT_ONCE, (address, variant)


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.7.7", "169.254.1.1", "fd00::1"])
def test_addresses_that_tor_cannot_reach_are_refused_at_once(
    machine: Machine, address: str
) -> None:
    error, seconds = send(machine, "tcp", address, 80)
    assert error == "ECONNREFUSED"
    assert seconds < AT_ONCE


def test_loopback_is_left_alone(machine: Machine) -> None:
    script = (
        "import socket;s=socket.create_server(('127.0.0.1', 8053));"
        "c=socket.create_connection(('127.0.0.1', 8053));a,_=s.accept();a.sendall(b'local');"
        "print(c.recv(9).decode())"
    )
    assert machine.output("python", "-c", script) == "local\n"


def test_status_and_check_and_show_touch_nothing(machine: Machine) -> None:
    before = quiet(machine)
    report = machine.status()
    assert (report["state"], report["tor"], report["resolver"]) == ("routed", "running", "tor")
    assert report["problems"] == []
    assert report["interfaces"] == ["eth0"]
    assert abs(report["since"] - time.time()) < 300
    assert "routed" in machine.output("onionward", "status")
    assert machine.onionward("check").returncode == 0
    for what, expected in (
        ("policy", "host: everything"),
        ("nftables", "table inet onionward"),
        ("torrc", "TransPort 127.0.0.1:940"),
        ("resolver", "nameserver 127.0.0.1"),
    ):
        shown = machine.onionward("show", what)
        assert shown.returncode == 0, shown.stderr
        assert expected in shown.stdout
    stamp = f"{machine.journal()['stamp']:#010x}"
    assert stamp in machine.output("nft", "list", "ruleset")
    assert stamp not in machine.onionward("show", "nftables").stdout
    assert difference(before, quiet(machine)) == ""


def quiet(machine: Machine) -> dict[str, Any]:
    """What the machine is, without what the guard is told of, and that tor notes who asks it."""
    found = machine.snapshot()
    for path in (PATHS.attempts, PATHS.tor_log):
        found["file"].pop(str(path), None)
    found["command"] = {name: without_senders(text) for name, text in found["command"].items()}
    return found
