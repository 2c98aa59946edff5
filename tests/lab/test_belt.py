"""What holds when the rules of iptables are flushed: the routing belt, and tables of nft.

The belt is tried without nft, so that nothing else stops anything; the guard is killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, difference, empty_tables, open_machine, until
from tests.lab.lifecycle_wire import Wire, now

NFT = "/usr/sbin/nft"
ALL_RP_FILTER = "net.ipv4.conf.all.rp_filter"
CONFIG = '[host]\ninbound = "link"\n[bypass]\nnetworks = ["198.18.81.0/24"]\n'
BELT = 94

# ways out that need nothing special: datagrams, a connection, a ping, over both families
TRIES = """
import socket, sys
for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    for kind, port in ((socket.SOCK_DGRAM, 443), (socket.SOCK_DGRAM, 53), (socket.SOCK_STREAM, 80)):
        with socket.socket(family, kind) as s:
            s.settimeout(0.4)
            try:
                s.connect((address, port))
                s.send(b"in clear")
            except OSError:
                pass
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
    try:
        s.sendto(bytes.fromhex("0800f7ff00000000"), (sys.argv[1], 0))
    except OSError:
        pass
"""


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        opened.output("mount", "--bind", "/dev/null", NFT)
        try:
            yield opened
        finally:
            opened.onionward("down", "--force")
            opened.output("umount", NFT)
            opened.output("sysctl", "-qw", f"{ALL_RP_FILTER}=0")
            empty_tables(opened.host, "nft")


def flush_everything(machine: Machine) -> None:
    for family in ("iptables", "ip6tables"):
        for table in ("raw", "mangle", "nat", "filter"):
            machine.output(family, "-t", table, "-F")


def kill_guard(machine: Machine) -> None:
    for pid in machine.guard_pids():
        # one that has just begun something of its own may be gone already
        machine.run("kill", "-KILL", str(pid))
    until("no guard is left", lambda: machine.guard_pids() == [])


def attempt(machine: Machine, wire: Wire) -> list[str]:
    """Packets in clear of a try at everything."""
    since = now()
    machine.output("python3", "-I", "-c", TRIES, machine.lab.web4, machine.lab.web6)
    servers = (machine.lab.web4, machine.lab.web6)
    seen = [packet.words for packet in wire.packets(since)]
    # multicast has routes of its own, whatever the belt says
    return [words for words in seen if any(server in words for server in servers)]


def belt_rules(machine: Machine) -> str:
    shown = [machine.output("ip", f"-{n}", "rule", "show", "protocol", str(BELT)) for n in (4, 6)]
    return "".join(line for text in shown for line in text.splitlines(True) if "proto 94" in line)


def test_without_rules_nothing_finds_a_way(machine: Machine) -> None:
    machine.configure(CONFIG)
    machine.up()
    kill_guard(machine)
    flush_everything(machine)
    with Wire(machine) as wire:
        assert attempt(machine, wire) == []
        # the control: without the belt of a family all of it leaves
        machine.output("ip", "-4", "rule", "flush", "protocol", str(BELT))
        seen = " ".join(attempt(machine, wire))
        for words in (f"> {machine.lab.web4}.443", f"> {machine.lab.web4}.53", "echo request"):
            assert words in seen
        assert machine.lab.web6 not in seen
        # without the journal what is left of it is known by its mark
        machine.path("/var/lib/onionward/journal.json").write_text("{")
        machine.down("--force")
        assert belt_rules(machine) == ""
        routes = machine.output("ip", "route", "show", "table", "all", "proto", str(BELT))
        assert str(BELT) not in routes
        assert f"> {machine.lab.web6}.443" in " ".join(attempt(machine, wire))


def test_exactly_back(machine: Machine) -> None:
    """Also where answers had to come in the way that requests go out, and twice."""
    machine.configure(CONFIG)
    machine.output("sysctl", "-qw", f"{ALL_RP_FILTER}=1")
    before = machine.snapshot()
    machine.up()
    machine.up()
    assert machine.status()["problems"] == []
    assert machine.output("sysctl", "-n", ALL_RP_FILTER) == "2\n"
    page = json.loads(machine.output("curl", "-sS", "-m", "30", f"http://{machine.lab.web4}/"))
    assert page["client"] in machine.lab.exits
    a_gateway_is_on_its_link(machine)
    when_it_is_gone(machine)
    # a bypassed network has its own way still
    machine.configure(CONFIG.replace("198.18.81.0/24", "198.18.82.0/24"))
    machine.up()
    assert machine.status()["problems"] == []
    routes = machine.output("ip", "route", "show", "table", "all", "type", "throw")
    assert "198.18.82.0/24" in routes
    assert "198.18.81.0/24" not in routes
    machine.down()
    machine.down()
    assert belt_rules(machine) == ""
    left = difference(before, machine.snapshot())
    # the kernel keeps tables of iptables that were used once, empty, where no nft removes them
    assert "rule" not in left, left
    assert "route" not in left, left
    assert "rp_filter" not in left, left


def a_gateway_is_on_its_link(machine: Machine) -> None:
    """A route that somebody adds by its gateway alone leads there, and not to loopback."""
    gateway = machine.lab.router4
    machine.output("ip", "route", "del", "default")
    machine.output("ip", "route", "add", "default", "via", gateway)
    assert f"default via {gateway} dev eth0" in machine.output("ip", "route")


def when_it_is_gone(machine: Machine) -> None:
    """It is named, and the next `up` puts it back."""
    kill_guard(machine)
    machine.output("ip", "-6", "rule", "flush", "protocol", str(BELT))
    problems = " ".join(machine.status()["problems"])
    assert "routing belt (ip -6 rule) is gone" in problems
    assert "ip -4 rule" not in problems
    doctor = machine.onionward("doctor")
    assert doctor.returncode == 1
    assert "routing belt" in doctor.stdout


def test_with_nft_its_tables_hold(lab: Lab) -> None:
    """The guard's own, which nobody can flush, and those that watch frames; without the belt."""
    with open_machine(lab) as machine, Wire(machine) as wire:
        machine.configure('[firewall]\nbackend = "iptables-nft"\n')
        machine.up()
        pids = machine.guard_pids()
        for pid in pids:
            machine.output("kill", "-STOP", str(pid))  # it would put the rules back at once
        flush_everything(machine)
        for family in ("-4", "-6"):
            machine.output("ip", family, "rule", "flush", "protocol", str(BELT))
        # what judges frames would do alone
        machine.output("nft", "delete", "table", "netdev", "onionward_l2")
        assert attempt(machine, wire) == []
        machine.output("kill", "-KILL", *map(str, pids))
        until("its tables have gone", lambda: "onionward_lock" not in machine.tables())
        assert f"> {machine.lab.web4}.443" in " ".join(attempt(machine, wire))
        machine.down()
        empty_tables(machine.host, "nft")
