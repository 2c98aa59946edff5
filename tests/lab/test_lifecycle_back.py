"""`down` leaves the machine exactly as `up` found it, and touches nothing that is not its own.

Compared are: rules of nft and iptables, sysctls below net, addresses, routes and policy routing of
both families, processes, every file that changed below /run, /etc and /var (inode, links, mode,
owner, size, time, attributes, content), mounts, and the control groups that onionward made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.config.values import TorConfig
from onionward.lab import Lab
from tests.lab.lifecycle_effects import repeated
from tests.lab.lifecycle_machine import JOURNAL, Machine, difference, open_machine
from tests.lab.lifecycle_wire import Wire

FOREIGN = """
table inet theirs {
    comment "somebody's"
    set seen { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 203.0.113.7 } }
    counter asked { packets 41 bytes 4100 }
    quota allowed { over 25 mbytes used 7 mbytes }
    chain out { type filter hook output priority filter + 10; policy accept;
        ip daddr @seen counter packets 17 bytes 1700 accept
        udp dport 9 counter name "asked" drop
    }
}
table ip onionward {
    chain input { type filter hook input priority 5; policy accept; }
}
table netdev theirs {
    chain inside {
    }
}
table bridge theirs {
}
"""


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def made_groups(machine: Machine) -> Path:
    """The control group of the tor that runs now."""
    return Path(machine.journal()["undo"]["tor"]["cgroup"])


def test_many_times_up_and_down_leave_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    groups = set()
    times = repeated(6, 20)
    for _ in range(times):
        machine.up()
        groups.add(made_groups(machine))
        machine.down()
    assert difference(before, machine.snapshot()) == ""
    assert len(groups) == times
    assert [group for group in groups if group.exists()] == []
    assert not machine.path(JOURNAL).exists()


def test_the_snapshot_sees_a_routed_machine(machine: Machine) -> None:
    """The comparison of the other tests is able to find something."""
    before = machine.snapshot()
    machine.up()
    found = difference(before, machine.snapshot())
    for expected in (
        "command nft --stateless list ruleset",
        "command ip -6 -d route show table all",
        "file /etc/resolv.conf",
        "file /run/onionward/lock",
        "file /var/lib/onionward/journal.json",
        "process ",
    ):
        assert expected in found


def test_tables_of_others_are_untouched(machine: Machine) -> None:
    listing = ("nft", "--json", "list", "ruleset")
    path = machine.path("/run/onionward-lab/foreign.nft")
    path.write_text(FOREIGN)
    machine.output("nft", "-f", "/run/onionward-lab/foreign.nft")
    try:
        before = json.loads(machine.output(*listing))
        snapshot = machine.snapshot()
        machine.up()
        during = json.loads(machine.output(*listing))["nftables"]
        assert [entry for entry in before["nftables"] if entry not in during] == []
        machine.up()
        machine.down()
        assert json.loads(machine.output(*listing)) == before  # with handles and counters
        assert difference(snapshot, machine.snapshot()) == ""
    finally:
        for family, name in (("inet", "theirs"), ("ip", "onionward"), ("netdev", "theirs")):
            machine.output("nft", "delete", "table", family, name)
        machine.output("nft", "delete", "table", "bridge", "theirs")
        path.unlink()


def test_settings_that_others_changed_meanwhile_stay(machine: Machine) -> None:
    """Nothing is restored blindly."""
    name = "net.ipv4.conf.eth0.log_martians"
    machine.up()
    machine.output("sysctl", "-q", "-w", f"{name}=1")
    machine.output("ip", "-6", "route", "add", "blackhole", "2001:db8:dead::/48")
    machine.output("nft", "add", "table", "inet", "later")
    machine.down()
    assert machine.output("sysctl", "-n", name) == "1\n"
    assert "2001:db8:dead::/48" in machine.output("ip", "-6", "route", "show")
    assert machine.tables() == "table inet later\n"
    machine.output("nft", "delete", "table", "inet", "later")
    machine.output("ip", "-6", "route", "del", "blackhole", "2001:db8:dead::/48")
    machine.output("sysctl", "-q", "-w", f"{name}=0")


def test_refused_up_touches_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    for text, words in (
        ("[host]\nroute = 'nowhere'\n", "not known"),
        ("[bypass]\nnetworks = ['127.192.0.0/16']\n", "127.192.0.0"),
        ("[tor]\nuser = 'root'\n", "root"),
        ("[tor]\nvirtual_networks = ['198.18.0.0/16']\n", "198.18.0.0"),
        ("nonsense", "not TOML"),
    ):
        machine.configure(text)
        done = machine.onionward("up")
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr
        assert "lifecycle.toml:" in done.stderr
        assert difference(before, machine.snapshot()) == "", text


def test_down_twice_and_when_off(machine: Machine) -> None:
    before = machine.snapshot()
    done = machine.down()
    assert "off already" in done.stdout
    assert difference(before, machine.snapshot()) == ""
    machine.up()
    assert "off: everything is as it was" in machine.down().stdout
    assert "off already" in machine.down().stdout
    assert difference(before, machine.snapshot()) == ""


def test_check_and_show_when_off_touch_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    for argv in (["check"], ["show", "policy"], ["show", "nftables"], ["show", "torrc"]):
        assert machine.onionward(*argv).returncode == 0
    assert machine.status()["state"] == "off"
    assert difference(before, machine.snapshot()) == ""


FORGOTTEN = """
import socket, subprocess, sys
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[2])))
s.settimeout(20)
s.connect((sys.argv[1], 80))
if sys.argv[3:]:
    subprocess.run(["conntrack", "-F", "-f", "ipv6"], check=True, capture_output=True)
"""


def test_tors_end_of_a_forgotten_flow_is_gone_with_down(machine: Machine) -> None:
    """The kernel answers it with a reset to ::1, and puts that on the wire."""
    seen, unseen = "20440", "20441"
    flow = ("python3", "-c", FORGOTTEN, machine.lab.web6)
    with Wire(machine) as wire:
        machine.output(*flow, seen)
        assert f".{seen} > " in str(wire.packets())
        machine.up()
        since = time.time()
        machine.output(*flow, unseen, "forget")
        tors = f"[::1]:{TorConfig().trans_port}"
        ends = machine.output("ss", "-Htan", f"dport = :{unseen}")
        assert tors in ends, ends
        machine.down()
        assert machine.output("ss", "-Htan", f"( sport = :{unseen} or dport = :{unseen} )") == ""
        time.sleep(1)  # its first two tries would come in this time
        assert [p for p in wire.packets(since) if f".{unseen} > " in p.words] == []
