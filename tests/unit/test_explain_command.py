"""`onionward explain`: questions as people put them, and answers for them."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from onionward import preview
from onionward.config import Config, parse
from tests.support import ETH0, FACTS
from tests.unit.test_cli import Outcome, Run, run

__all__ = ["run"]  # a fixture

CONFIG = parse("[bypass]\nnetworks = ['198.51.100.0/24']", "o.toml")
Ask = Callable[..., Outcome]


@pytest.fixture
def ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask on the example machine."""
    monkeypatch.setattr("onionward.config.load", lambda _path: CONFIG)
    monkeypatch.setattr(preview, "gather", lambda *_: FACTS)
    monkeypatch.setattr(os, "getuid", lambda: 1000)

    def lookup(name: str) -> pwd.struct_passwd:
        uid = {"www-data": 33, "root": 0, "onionward-tor": 947}[name]
        return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", lookup)
    return lambda words: run("explain", *words.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tcp 1.1.1.1 443", "through Tor: TCP goes through Tor (chain to_tor, rule"),
        ("TCP 1.1.1.1 443", "through Tor: "),
        ("Udp 9.9.9.9 53", "to tor's resolver: "),
        ("tcp 2606:4700::1111 443", "through Tor: "),
        ("udp 1.1.1.1 443", "refused at once: Tor carries TCP and names only"),
        ("icmp 1.1.1.1", "refused at once: Tor carries"),
        ("icmp 2606:4700::1111", "refused at once: Tor carries"),
        ("icmpv6 ::1", "stays on this machine: "),
        ("ICMP6 ::1", "stays on this machine: "),
        ("gre 1.1.1.1", "refused at once: "),
        ("tcp 198.51.100.7 443", "leaves directly: in clear, because 198.51.100.0/24 is bypassed"),
        ("tcp ::ffff:198.51.100.7 443", "leaves directly: in clear, because 198.51.100.0/24 is"),
        ("tcp 192.0.2.2 22", "stays on this machine: "),
        ("tcp 192.0.2.255 22", "refused at once: broadcast and multicast do not leave"),
        ("tcp 0.0.0.0 22", "stays on this machine: "),
        ("--user www-data tcp 1.1.1.1 443", "through Tor: "),
        ("--user 33 tcp 1.1.1.1 443", "through Tor: "),
        ("--user 947 tcp 1.1.1.1 443", "refused at once: the account is tor's, but the program is"),
        (
            "--user onionward-tor udp 1.1.1.1 53",
            "refused at once: tor's account may speak TCP only",
        ),
        ("tcp 1.1.1.1 443 --tor", "leaves directly: it is tor itself (chain tor, r"),
        (
            "--user root --source-port 68 udp 255.255.255.255 67",
            "in clear, because it is a DHCP cl",
        ),
        ("--user root udp 255.255.255.255 67", "refused at once: broadcast and multicast"),
        ("--user 101 --source-port 546 udp ff02::1:2 547", "in clear, because it is a DHCP client"),
        ("--state blocked tcp 1.1.1.1 443", "refused at once: nothing but tor leaves until tor is"),
        ("--state blocked --tor tcp 1.1.1.1 443", "leaves directly: it is tor itself"),
        ("--state routed tcp 1.1.1.1 443", "through Tor: "),
        ("udp 1.1.1.1 domain", "to tor's resolver"),
    ],
)
def test_answers(ask: Ask, words: str, expected: str) -> None:
    answer = ask(words)
    assert answer.status == 0, answer.err
    assert expected in answer.out
    assert answer.out.count("\n") == 1
    # nobody is to think that it is so now
    note = (
        "" if "--state" in words else "note: onionward is not on, and nothing of this is in force"
    )
    assert answer.err.startswith(note)
    assert bool(answer.err) == bool(note)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tcp 1.1.1.1", "tcp needs a port\n  for example: onionward explain tcp 1.1.1.1 443"),
        ("udp ::1", "udp needs a port"),
        ("icmp 1.1.1.1 8", "the rules ask for ports of tcp and udp only, not of icmp"),
        ("sctp 1.1.1.1 80", "not of sctp"),
        ("--source-port 5 gre 1.1.1.1", "not of gre"),
        ("tcp 1.1.1.1 0", "0 is not in the range 1<=x<=65535"),
        ("tcp 1.1.1.1 65536", "65536 is not in the range"),
        ("tcp 1.1.1.1 wwww", "'wwww' is not a port: give a number from 1 to 65535"),
        ("--source-port 0 udp 1.1.1.1 67", "0 is not in the range"),
        ("tcp example.com 80", "'example.com' is not an address\n  for example: 1.1.1.1"),
        ("tcp 1.1.1 80", "'1.1.1' is not an address"),
        ("tcp 1.1.1.0/24 80", "'1.1.1.0/24' is not an address"),
        ("tcp 01.1.1.1 80", "'01.1.1.1' is not an address"),
        ("tcp fe80::1%eth0 80", "names an interface, which the rules do not ask for\n  write fe80"),
        ("tcpp 1.1.1.1 80", "'tcpp' is not a protocol\n  for example: tcp, udp, icmp, gre"),
        ("ipv6-icmp 1.1.1.1", "ipv6-icmp does not go to 1.1.1.1\n  for IPv4 write icmp"),
        ("--user nobody2 tcp 1.1.1.1 80", "there is no account 'nobody2'"),
        ("--user -1 tcp 1.1.1.1 80", "there is no account '-1'"),
        ("--user 4294967295 tcp 1.1.1.1 80", "4294967295 is not an account"),
        ("--user ٣ tcp 1.1.1.1 80", "there is no account '٣'"),
        ("--tor --user root tcp 1.1.1.1 80", "give --tor or --user, not both"),
        ("--state off tcp 1.1.1.1 80", "'off' is not one of 'routed', 'blocked'"),
        ("tcp", "Missing argument 'ADDRESS'"),
        ("", "Missing argument 'PROTOCOL'"),
        ("tcp 1.1.1.1 80 90", "unexpected extra argument"),
    ],
)
def test_questions_that_make_no_sense(ask: Ask, words: str, expected: str) -> None:
    answer = ask(words)
    assert answer.status == 2
    assert answer.out == ""
    assert expected in answer.err


def test_the_usual_protocols_need_no_list(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/protocols belongs to a package that may not be there."""

    def missing(_name: str) -> int:
        raise OSError("protocol not found")

    monkeypatch.setattr(socket, "getprotobyname", missing)
    for words in ("tcp 1.1.1.1 80", "udp 1.1.1.1 53", "icmp 1.1.1.1", "icmp ::1", "gre 1.1.1.1"):
        assert ask(words).status == 0
    assert ask("udplite 1.1.1.1").status == 2


def test_tors_account_before_it_exists(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", nobody)
    monkeypatch.setattr(preview, "gather", lambda *_: replace(FACTS, tor_account=None))
    assert "the program is not tor" in ask("--user onionward-tor tcp 1.1.1.1 80").out
    assert "it is tor itself" in ask("--tor tcp 1.1.1.1 80").out


def test_a_machine_without_control_groups(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "gather", lambda *_: replace(FACTS, cgroup_mount=None))
    answer = ask("--user onionward-tor tcp 1.1.1.1 80")
    assert "without control groups all its programs count as tor" in answer.out


def test_adjacent_networks_have_their_own_broadcast_addresses(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ETH0._replace(name="eth1", addresses=(), networks=(CONFIG.bypass.networks[0],))
    facts = replace(FACTS, links=(ETH0, other))
    monkeypatch.setattr(preview, "gather", lambda *_: facts)
    monkeypatch.setattr("onionward.config.load", lambda _path: Config())
    assert "broadcast" in ask("tcp 198.51.100.255 80").out
    assert "broadcast" in ask("tcp 192.0.2.255 80").out
    assert "through Tor" in ask("tcp 198.51.100.254 80").out
