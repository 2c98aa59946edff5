"""Which resolver is told of .onion, as a table of machines as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onionward.dns.onion.facts import Environment, Server
from onionward.dns.onion.plan import Plan, choose, obstacles

EVERYWHERE = "0.0.0.0"  # noqa: S104
STUB = Server("127.0.0.53", "systemd-resolve", "systemd-resolved.service", "systemd")
DNSMASQ = Server(
    "127.0.0.1",
    "dnsmasq",
    "dnsmasq.service",
    "systemd",
    ("/usr/sbin/dnsmasq", "-7", "/etc/dnsmasq.d"),
    "/etc/dnsmasq.conf",
    ("/etc/dnsmasq.d",),
)
NM_DNSMASQ = replace(
    DNSMASQ,
    unit="NetworkManager.service",
    parent="NetworkManager",
    directories=("/etc/NetworkManager/dnsmasq.d",),
)
UNBOUND = Server(
    "127.0.0.1",
    "unbound",
    "unbound.service",
    "systemd",
    ("/usr/sbin/unbound", "-d"),
    "/etc/unbound/unbound.conf",
    ("/etc/unbound/unbound.conf.d",),
)
NAMED = Server("127.0.0.1", "named", "named.service", "systemd")
LOCAL = "nameserver 127.0.0.1\n"
ELSEWHERE = "nameserver 192.0.2.1\n"
STUB_FILE = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"

MACHINES: dict[str, tuple[Environment, str, bool, str]] = {
    # what it is: the machine, who is told, whether resolved gets a link, the file
    "a server elsewhere": (Environment(ELSEWHERE), "own", False, ""),
    "no resolv.conf at all": (Environment(""), "own", False, ""),
    "Ubuntu": (Environment(STUB_FILE, servers=(STUB,), resolved=True), "resolved", True, ""),
    "resolved, passed over": (
        Environment(ELSEWHERE, servers=(STUB,), resolved=True),
        "own",
        True,
        "",
    ),
    "the stub of a resolved that has ended": (Environment(STUB_FILE), "own", False, ""),
    "Debian's dnsmasq": (
        Environment(
            LOCAL, servers=(replace(DNSMASQ, address=EVERYWHERE), replace(DNSMASQ, address="::"))
        ),
        "dnsmasq",
        False,
        "/etc/dnsmasq.d/onionward.conf",
    ),
    "dnsmasq in front of resolved": (
        Environment(LOCAL, servers=(DNSMASQ, STUB), resolved=True),
        "dnsmasq",
        True,
        "/etc/dnsmasq.d/onionward.conf",
    ),
    "a dnsmasq by both its addresses": (
        Environment("nameserver ::1\n" + LOCAL, servers=(DNSMASQ, replace(DNSMASQ, address="::1"))),
        "dnsmasq",
        False,
        "/etc/dnsmasq.d/onionward.conf",
    ),
    "a dnsmasq without a directory": (
        Environment(LOCAL, servers=(replace(DNSMASQ, directories=()),)),
        "own",
        False,
        "",
    ),
    "a dnsmasq that nobody restarts": (
        Environment(LOCAL, servers=(replace(DNSMASQ, unit=""),)),
        "own",
        False,
        "",
    ),
    "libvirt's dnsmasq": (
        Environment(ELSEWHERE, servers=(replace(DNSMASQ, address="192.168.122.1"),)),
        "own",
        False,
        "",
    ),
    "NetworkManager": (
        Environment(LOCAL, servers=(NM_DNSMASQ,)),
        "networkmanager",
        False,
        "/etc/NetworkManager/dnsmasq.d/onionward.conf",
    ),
    "unbound": (
        Environment(LOCAL, servers=(UNBOUND, replace(UNBOUND, address="::1"))),
        "unbound",
        False,
        "/etc/unbound/unbound.conf.d/onionward.conf",
    ),
    "bind": (Environment(LOCAL, servers=(NAMED,)), "own", False, ""),
    "unbound, and a server elsewhere after it": (
        Environment(LOCAL + ELSEWHERE, servers=(UNBOUND,)),
        "own",
        False,
        "",
    ),
    "two resolvers of its own": (
        Environment(
            "nameserver 127.0.0.2\n" + LOCAL, servers=(UNBOUND, replace(NAMED, address="127.0.0.2"))
        ),
        "own",
        False,
        "",
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_machine(name: str) -> None:
    machine, manager, link, drop_in = MACHINES[name]
    plan = choose(machine)
    assert (plan.manager, plan.link, plan.drop_in) == (manager, link, drop_in)
    assert plan.reason
    assert bool(plan.reload) == bool(plan.check) == bool(drop_in)
    assert list(obstacles(machine)) == []


@pytest.mark.parametrize(
    ("machine", "command"),
    [
        ("Debian's dnsmasq", ("systemctl", "try-restart", "dnsmasq.service")),
        ("unbound", ("systemctl", "try-reload-or-restart", "unbound.service")),
        ("NetworkManager", ("nmcli", "general", "reload", "dns-full")),
    ],
)
def test_how_a_resolver_reads_its_configuration_again(
    machine: str, command: tuple[str, ...]
) -> None:
    assert choose(MACHINES[machine][0]).reload == command


def test_the_reason_is_in_words() -> None:
    assert choose(Environment(ELSEWHERE)) == Plan(
        "own", "resolv.conf names 192.0.2.1, which is not on this machine's loopback"
    )


UNUSABLE: dict[str, tuple[Environment, str]] = {
    "no dnsmasq": (Environment(ELSEWHERE, missing=("dnsmasq",)), "apt install dnsmasq-base"),
    "no account": (Environment(ELSEWHERE, account=None), "no account `nobody`"),
    "a directory": (Environment(ELSEWHERE, unusable=("a directory",)), "a directory"),
    "port 53 of every address is taken": (
        Environment(ELSEWHERE, servers=(replace(DNSMASQ, address=EVERYWHERE),)),
        "bind-interfaces",
    ),
    "our address is taken": (
        Environment(ELSEWHERE, servers=(replace(NAMED, address="127.0.0.94"),)),
        "named has port 53 of 127.0.0.94",
    ),
    "another's file": (
        Environment(LOCAL, servers=(DNSMASQ,), taken=("/etc/dnsmasq.d/onionward.conf",)),
        "/etc/dnsmasq.d/onionward.conf is not onionward's",
    ),
    "no resolvectl": (
        Environment(STUB_FILE, servers=(STUB,), resolved=True, missing=("resolvectl",)),
        "resolvectl is missing",
    ),
    "no networkctl": (
        Environment(
            STUB_FILE, servers=(STUB,), resolved=True, networkd=True, missing=("networkctl",)
        ),
        "networkctl is missing",
    ),
    "no nmcli": (Environment(LOCAL, servers=(NM_DNSMASQ,), missing=("nmcli",)), "nmcli is missing"),
    "resolved's stub and another": (
        Environment(STUB_FILE + ELSEWHERE, servers=(STUB,), resolved=True),
        "name only one kind",
    ),
    "resolved's own list": (
        Environment(ELSEWHERE, "/run/systemd/resolve/resolv.conf", followed=True, resolved=True),
        "stub-resolv.conf",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_done_is_said(name: str) -> None:
    machine, words = UNUSABLE[name]
    found = list(obstacles(machine))
    assert len(found) == 1
    assert words in found[0]


def test_what_is_not_needed_may_be_missing() -> None:
    machine = replace(MACHINES["unbound"][0], missing=("dnsmasq", "resolvectl", "nmcli"))
    assert list(obstacles(machine)) == []
