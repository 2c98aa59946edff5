"""What is found out before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onionward.accounts import Uids, User
from onionward.config import Config, parse
from onionward.facts import Account, Facts, Link
from onionward.preflight import ancestor_environments, problems, ssh_peer, taken_ports, warnings
from tests.support import ETH0, FACTS, addr, net


def test_a_good_machine_has_no_problem() -> None:
    assert problems(Config(), FACTS) == ()
    assert warnings(Config(), FACTS) == ()


def test_a_kernel_that_tells_nobody_is_a_limit() -> None:
    (words,) = warnings(Config(), replace(FACTS, nflog=False))
    assert "no nfnetlink_log" in words


def account(name: str, uid: int) -> Account:
    return Account(name, uid, uid, Path("/"))


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        ({"effective_uid": 1000}, "", "this needs root"),
        ({}, '[log]\nattempts="/no/such/log"', "o.toml:2: log.attempts: /no/such is no directory"),
        ({}, '[log]\nattempts="/proc/self"', "log.attempts: /proc/self is no plain file"),
        ({"nft_version": None}, "", "nft is missing; install it: apt install nftables"),
        ({"nft_version": (1, 0, 5)}, "", "nft is version 1.0.5; 1.0.6 is the oldest that works"),
        ({"nft_version": (0, 9, 8)}, "", "nft is version 0.9.8"),
        ({"nft_version": ()}, "", "nft is version unknown"),
        ({"tor_path": None}, "", "tor is missing; install it: apt install tor"),
        ({"missing_tools": ("ss",)}, "", "ss is missing; install it: apt install iproute2"),
        ({"missing_tools": ("ip",)}, "", "apt install iproute2"),
        ({"missing_tools": ("conntrack",)}, "", "apt install conntrack"),
        ({"tor_account": account("root", 0)}, "[tor]\nuser='root'", "o.toml:2: tor.user: root is"),
        ({"tor_account": account("toor", 0)}, "[tor]\nuser='toor'", "toor is root"),
        ({"tor_account": None}, "[tor]\nuser='root'", "root is root"),
        (
            {"tor_account": account("debian-tor", 102)},
            "[tor]\nuser='debian-tor'",
            "o.toml:2: tor.user: debian-tor belongs to the system's own tor",
        ),
        ({"tor_account": None}, "[tor]\nuser='_tor'", "_tor belongs to the system's own tor"),
        ({"tor_account": None}, "\n[tor]\nuser='x'", "o.toml:3: tor.user: there is no account x"),
        (
            {"account_processes": (7, 8, 9, 10, 11, 12)},
            "",
            "account onionward-tor is in use (process 7, 8, 9, 10, 11)",
        ),
        (
            {"links": (ETH0, Link("wlan0", (addr("10.200.0.2"),), (net("10.200.0.0/16"),)))},
            "[tor]\nvirtual_networks = ['10.192.0.0/10']",
            "o.toml:2: tor.virtual_networks: 10.192.0.0/10 overlaps 10.200.0.0/16 "
            "(10.200.0.0 to 10.200.255.255) of interface wlan0",
        ),
        (
            {"links": (Link("wg0", (addr("fd5a:7011::2"),), (net("fd5a:7011::/64"),)),)},
            "",
            "tor.virtual_networks: fd5a:7011::/32 overlaps fd5a:7011::/64",
        ),
    ],
)
def test_a_problem(changes: dict[str, Any], config: str, expected: str) -> None:
    facts: Facts = replace(FACTS, **changes)
    found = problems(parse(config, "o.toml"), facts)
    assert len(found) == 1, found
    assert expected in found[0]


def test_an_account_that_will_be_created_is_no_problem() -> None:
    assert problems(Config(), replace(FACTS, tor_account=None)) == ()


@pytest.mark.parametrize("version", [(1, 0, 6), (1, 0, 6, 1), (1, 1), (2,)])
def test_nft_versions_that_work(version: tuple[int, ...]) -> None:
    assert problems(Config(), replace(FACTS, nft_version=version)) == ()


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        ({"tcp:9040": "(nginx)"}, ["o.toml:2: tor.trans_port: tcp port 9040 is taken already by"]),
        ({"udp:941": "(named)"}, ["o.toml:1: tor.dns_port: udp port 941 is taken already by"]),
        ({"udp:9040": "x", "tcp:941": "x"}, []),
        ({"tcp:9040": "x", "udp:941": "y"}, ["o.toml:2: tor.trans_port", "o.toml:1: tor.dns_port"]),
    ],
)
def test_taken_ports(listeners: Mapping[str, str], expected: list[str]) -> None:
    found = taken_ports(parse("[tor]\ntrans_port = 9040", "o.toml"), listeners)
    assert len(found) == len(expected)
    assert all(words.startswith(start) for words, start in zip(found, expected, strict=True))


def test_all_problems_at_once() -> None:
    broken = replace(
        FACTS, effective_uid=1, nft_version=None, tor_path=None, missing_tools=("ip", "ss")
    )
    assert len(problems(Config(), broken)) == 5


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        ({"cgroup_mount": None}, "", "no version 2 control groups"),
        ({"ipv6": False}, "", "IPv6 is off on loopback"),
        ({}, "[tor]\ntrans_port = 9040", "port 9040 can be opened by every account"),
        ({"privileged_ports_below": 0}, "", "port 940 and 941 can be opened by every account"),
        ({"privileged_ports_below": 941}, "", "port 941 can be opened"),
    ],
)
def test_a_warning(changes: dict[str, Any], config: str, expected: str) -> None:
    facts: Facts = replace(FACTS, **changes)
    found = warnings(parse(config, "o.toml"), facts)
    assert len(found) == 1, found
    assert expected in found[0]


class FakeProc:
    """A /proc with processes in a row, the nearest first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int, parent: int, environ: bytes | None, name: bytes = b"x") -> None:
        folder = self.path / str(pid)
        folder.mkdir()
        (folder / "stat").write_bytes(b"%d (%b) S %d 1 1 0" % (pid, name, parent))
        if environ is not None:
            (folder / "environ").write_bytes(environ)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def peer(proc: FakeProc, environment: Mapping[str, str] | None = None) -> str | None:
    return ssh_peer(environment or {}, ancestor_environments(proc.path, 40))


def test_the_environment_of_this_process_comes_first(proc: FakeProc) -> None:
    proc.add(40, 1, b"SSH_CONNECTION=192.0.2.8 1 192.0.2.2 22\0")
    assert peer(proc, {"SSH_CONNECTION": "192.0.2.9 5 192.0.2.2 22"}) == "192.0.2.9"


def test_behind_sudo_an_ancestor_knows(proc: FakeProc) -> None:
    proc.add(40, 30, b"PATH=/bin\0SUDO_USER=a\0", name=b"python3")
    proc.add(30, 20, None, name=b"su) S 99 (do")
    proc.add(20, 1, b"A=b\0SSH_CONNECTION=fe80::7%eth0 5 fe80::2%eth0 22\0Z=\0")
    assert peer(proc) == "fe80::7%eth0"


def test_without_ssh_nobody_knows(proc: FakeProc) -> None:
    proc.add(40, 20, b"XSSH_CONNECTION=192.0.2.9 5 192.0.2.2 22\0")
    proc.add(20, 1, b"")
    assert peer(proc) is None


def test_the_first_process_is_not_asked(proc: FakeProc) -> None:
    proc.add(40, 1, b"")
    proc.add(1, 0, b"SSH_CONNECTION=192.0.2.9 5 192.0.2.2 22\0")
    assert peer(proc) is None


def test_an_ancestor_that_has_ended(proc: FakeProc) -> None:
    proc.add(40, 30, b"")
    assert peer(proc) is None


@pytest.mark.parametrize("value", [b"", b"  ", b"\xff\xfe 5", b"nonsense"])
def test_a_value_that_is_no_address_is_passed_over(proc: FakeProc, value: bytes) -> None:
    proc.add(40, 20, b"SSH_CONNECTION=" + value + b"\0")
    proc.add(20, 1, b"SSH_CONNECTION=192.0.2.9 5 192.0.2.2 22\0")
    assert peer(proc) == "192.0.2.9"
    assert peer(proc, {"SSH_CONNECTION": value.decode(errors="surrogateescape")}) == "192.0.2.9"


def test_an_ancestor_may_have_any_name(proc: FakeProc) -> None:
    proc.add(40, 20, b"", name=b"\xff\xfe")
    proc.add(20, 1, b"SSH_CONNECTION=192.0.2.9 5 192.0.2.2 22\0")
    assert peer(proc) == "192.0.2.9"


ETH1 = Link("eth1", (addr("10.0.1.1"),), (net("10.0.1.0/24"), net("fe80::/64")))
UPLINK = ETH0._replace(is_uplink=True)
BOB = User(
    Account("bob", 1001, 1001, Path("/home/bob")), frozenset({1001}), (Uids(100000, 165535),)
)


@pytest.mark.parametrize(
    ("config", "links", "words"),
    [
        (
            "[[lan]]\ninterface = 'eth9'",
            (UPLINK, ETH1),
            "o.toml:2: lan[0].interface: there is no interface eth9 (there is: eth0, eth1); if it "
            "appears later, add hotplug = true",
        ),
        (
            "[[lan]]\ninterface = 'eth0'",
            (UPLINK, ETH1),
            "o.toml:2: lan[0].interface: eth0 is the uplink (a default route leads through it); "
            "clients must be behind another interface",
        ),
        (
            "[[lan]]\ninterface = 'eth1'",
            (UPLINK, ETH1, ETH1._replace(name="eth2", networks=(net("10.0.0.0/16"),))),
            "o.toml:2: lan[0].interface: its network 10.0.1.0/24 overlaps 10.0.0.0/16 of interface "
            "eth2: who is a client could not be told",
        ),
    ],
)
def test_lans_that_cannot_be_served(config: str, links: tuple[Link, ...], words: str) -> None:
    assert problems(parse(config, "o.toml"), replace(FACTS, links=links)) == (words,)


def test_lans_that_can() -> None:
    facts = replace(FACTS, links=(UPLINK, ETH1))
    two = "[[lan]]\ninterface = 'eth1'\n[[lan]]\ninterface = 'usb0'\nhotplug = true"
    assert problems(parse(two, "o.toml"), facts) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"users": ()},
            "o.toml:2: user[0].name: there is no account bob; create it, or let "
            "`onionward up --create-users` do it",
        ),
        (
            {"users": (replace(BOB, account=BOB.account._replace(uid=0)),)},
            "o.toml:2: user[0].name: bob is root, which rules cannot hold; route another account",
        ),
        (
            {"users": (replace(BOB, subordinate=(Uids(900, 1000),)),)},
            "o.toml:2: user[0].name: bob has the user id of tor's account onionward-tor",
        ),
        (
            {"users": (BOB,), "dhcp_uids": (0, 1001)},
            "o.toml:2: user[0].name: bob is the account of a DHCP client, which must reach the "
            "link",
        ),
    ],
)
def test_accounts_that_cannot_be_routed(changes: dict[str, Any], words: str) -> None:
    config = parse("[[user]]\nname = 'bob'", "o.toml")
    assert problems(config, replace(FACTS, **changes)) == (words,)


def test_accounts_that_share_an_id() -> None:
    twin = replace(BOB, account=BOB.account._replace(name="bobby"))
    config = parse("[[user]]\nname = 'bob'\n[[user]]\nname = 'bobby'", "o.toml")
    found = problems(config, replace(FACTS, users=(BOB, twin)))
    assert found == ("o.toml:4: user[1].name: bobby and bob share the user id 1001",)


def test_accounts_that_are_to_be_created() -> None:
    config = parse("[[user]]\nname = 'bob'", "o.toml")
    assert problems(config, FACTS, create_users=True) == ()


def test_a_bypassed_account_is_said_loudly() -> None:
    config = parse("[host]\n[[user]]\nname = 'bob'\nroute = 'direct'", "o.toml")
    assert any(
        words.startswith("IN CLEAR: what bob sends, because it is bypassed; only")
        for words in warnings(config, FACTS)
    )
