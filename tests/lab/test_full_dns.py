"""All types of records through Tor: unbound between the host and resolvers that it asks by TCP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, exactly_back, open_machine, until
from tests.lab.lifecycle_wire import Wire

FULL = '[tor]\ndns = "full"\ndnssec = false\nresolvers = ["198.18.53.1"]\n'
TLS_SERVER = """
server:
    interface: 198.18.53.1@853
    access-control: 0.0.0.0/0 allow
    tls-service-key: "{key}"
    tls-service-pem: "{certificate}"
    username: ""
    chroot: ""
    pidfile: ""
    use-syslog: no
    module-config: "iterator"
    local-zone: "test." transparent
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 198.18.53.1
"""
# the kernel looks for routers until `up`
ROUTERS = "(icmp6 and ip6[40] == 133)"
RECORDS = {
    "MX": ("example.test", "10 www.example.test."),
    "TXT": ("example.test", '"onionward lab"'),
    "SRV": ("_http._tcp.example.test", "0 0 80 www.example.test."),
    "TYPE65": ("www.example.test", '1 . alpn="h2"'),
    "AAAA": ("www.example.test", "2001:db8:80::1"),
    "CNAME": ("alias.example.test", "www.example.test."),
}


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def asked(machine: Machine, *words: str, user: str | None = None) -> str:
    """The answer in short, or what dig says of the failure."""
    argv = ("dig", "+short", "+tries=3", "+timeout=20", *words)
    return machine.run(*argv, user=user, timeout=90).stdout.strip()


def failure(machine: Machine, *words: str, user: str | None = None) -> str:
    """The response code; "" when nobody answers."""
    done = machine.run("dig", "+tries=3", "+timeout=20", *words, user=user, timeout=90)
    return done.stdout.partition("status: ")[2].partition(",")[0]


def unbound_pids(machine: Machine) -> list[int]:
    return [int(pid) for pid in machine.run("pgrep", "-x", "unbound").stdout.split()]


def test_all_types_of_records_come_through_tor(machine: Machine) -> None:
    lab = machine.lab
    machine.configure()
    machine.up()
    # the control: tor alone has none of these
    assert failure(machine, "example.test", "MX") == "NOTIMP"
    machine.down()

    machine.configure(FULL)
    with exactly_back(machine), Wire(machine, ROUTERS) as wire:
        machine.up()
        for kind, (name, answer) in RECORDS.items():
            assert asked(machine, name, kind) == answer, kind
            # whatever resolver a program names, reachable or not
            assert asked(machine, f"@{lab.router4}", name, kind) == answer, kind
        assert asked(machine, "@2001:db8:53::1", "example.test", "MX") == RECORDS["MX"][1]
        assert asked(machine, "-x", lab.web4, "@127.0.0.53") == "www.example.test."
        # an answer that fits no datagram comes by TCP
        assert len(asked(machine, "long.example.test", "TXT")) > 6 * 800
        assert failure(machine, "nothing.here.test") == "NXDOMAIN"
        # names under .onion still go to tor, and to nobody else
        (service,) = lab.onions[:1]
        mapped = asked(machine, service)
        assert mapped.startswith("127."), mapped
        # on a busy machine a relay of the private network may not answer for a while
        visit = ("curl", "-sS", "-m", "30", f"http://{service}/")
        until("the service answers", lambda: machine.run(*visit).returncode == 0, 150)
        report = machine.status()
        assert (report["full_dns"], report["problems"]) == (True, [])
        told = machine.onionward("explain", "udp", "9.9.9.9", "53").stdout
        assert told.startswith("to unbound"), told
        machine.down()
        assert unbound_pids(machine) == []
        assert wire.packets() == []


def test_accounts_with_circuits_of_their_own_keep_tors_resolver(machine: Machine) -> None:
    """One memory of answers would tell them from each other."""
    machine.configure(FULL + '[host]\n[[user]]\nname = "alice"\n')
    machine.up()
    assert failure(machine, "example.test", "MX", user="alice") == "NOTIMP"
    assert asked(machine, "v4.example.test", user="alice") == machine.lab.web4
    assert asked(machine, "example.test", "MX", user="bob") == RECORDS["MX"][1]
    told = machine.onionward("explain", "--user", "alice", "udp", "9.9.9.9", "53").stdout
    assert told.startswith("to tor's resolver"), told
    machine.down()


def test_what_cannot_be_verified_is_refused(machine: Machine) -> None:
    """The lab's names are not signed, as the root's key asks for."""
    machine.configure(FULL.replace("dnssec = false\n", ""))
    machine.up()
    assert failure(machine, "example.test", "MX") == "SERVFAIL"
    # who verifies by itself gets what it asks for
    assert asked(machine, "+cd", "example.test", "MX") == RECORDS["MX"][1]
    machine.configure(FULL)
    machine.up()
    assert asked(machine, "example.test", "MX") == RECORDS["MX"][1]
    machine.down()


def test_without_unbound_or_tor_nothing_is_asked_in_clear(machine: Machine) -> None:
    machine.configure(FULL)
    with exactly_back(machine), Wire(machine, ROUTERS) as wire:
        machine.up()
        machine.pause_guard()
        for pid in unbound_pids(machine):
            machine.run("kill", "-KILL", str(pid))
        assert failure(machine, "+tries=1", "+timeout=2", "example.test", "MX") == ""
        problems = machine.status()["problems"]
        assert any("unbound has ended" in words for words in problems), problems
        machine.resume_guard()
        until("the guard has another one", lambda: bool(unbound_pids(machine)), 60)
        until("all is well", lambda: machine.status()["problems"] == [], 60)
        assert asked(machine, "example.test", "MX") == RECORDS["MX"][1]

        machine.kill_tor()
        time.sleep(1)
        # what is remembered may be answered; another name is not
        assert failure(machine, "+tries=1", "+timeout=3", "new.test", "TXT") in ("", "SERVFAIL")
        machine.down()
        assert wire.packets() == []


def test_a_change_on_the_way_has_no_gap(machine: Machine) -> None:
    machine.configure()
    with exactly_back(machine), Wire(machine, ROUTERS) as wire:
        machine.up()
        for text in (FULL, FULL.replace("198.18.53.1", "198.18.53.1@53"), "", FULL):
            machine.configure(text)
            machine.up()
            assert asked(machine, "v4.example.test") == machine.lab.web4
        before = unbound_pids(machine)
        machine.up()
        assert unbound_pids(machine) == before
        machine.configure('[[user]]\nname = "alice"\n')
        machine.up()
        assert unbound_pids(machine) == []
        machine.configure(FULL)
        machine.up()
        machine.path("/var/lib/onionward/journal.json").write_text("damaged")
        assert machine.onionward("down", "--force").returncode == 0
        assert unbound_pids(machine) == []
    del wire


def test_an_account_that_goes_around_is_not_unbounds(machine: Machine) -> None:
    machine.configure(FULL + '[host]\n[[user]]\nname = "unbound"\nroute = "direct"\n')
    with Wire(machine, ROUTERS) as wire:
        machine.up()
        assert asked(machine, "example.test", "MX") == RECORDS["MX"][1]
        (pid,) = unbound_pids(machine)
        owner = machine.output("stat", "-c", "%U", f"/proc/{pid}").strip()
        assert owner == "nobody"
        machine.down()
        assert wire.packets() == []


def test_over_tls_the_resolver_is_who_it_says(machine: Machine, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=dns.example.test", "-days", "2"),
            *("-addext", "subjectAltName=DNS:dns.example.test"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    config = tmp_path / "unbound.conf"
    config.write_text(TLS_SERVER.format(certificate=certificate, key=key))
    machine.spawn("unbound", "-d", "-c", str(config), on="internet")
    bundle = machine.path("/etc/ssl/certs/ca-certificates.crt")
    known = bundle.read_text()
    over_tls = FULL.replace("198.18.53.1", "198.18.53.1#dns.example.test")
    try:
        # who cannot show the certificate of a known authority is not asked
        machine.configure(over_tls)
        machine.up()
        assert failure(machine, "example.test", "MX") == "SERVFAIL"
        machine.down()
        bundle.write_text(certificate.read_text())
        with Wire(machine, ROUTERS) as wire:
            machine.up()
            assert asked(machine, "example.test", "MX") == RECORDS["MX"][1]
            machine.configure(over_tls.replace("#dns.", "#other."))
            machine.up()
            assert failure(machine, "example.test", "TXT") == "SERVFAIL"
            machine.down()
            assert wire.packets() == []
    finally:
        bundle.write_text(known)
