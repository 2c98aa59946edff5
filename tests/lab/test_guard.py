"""The guard: what others do to rules, resolver and interfaces opens no gap and is put right.

internet ── host0 (witness) ── eth0 host (six processes that send without pause; guard)
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from onionward.lab import Lab
from onionward.lab.targets import targets
from tests.lab.leak_flood import KINDS
from tests.lab.lifecycle_machine import Machine, difference, end, open_machine, until
from tests.lab.lifecycle_wire import Wire
from tests.lab.test_leaks_flood import flooding
from tests.lab.test_lifecycle_trouble import UNREACHABLE, censored

MEMORY = 30 << 10  # KiB
QUIET_SECONDS = 3.0
ROUNDS = 3
PATIENCE = 8.0  # seconds; a busy machine
DOCKER = """
table ip filter {
    chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
    chain DOCKER-USER { return; }
}
table ip nat {
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local accept; }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 masquerade;
    }
    chain OUTPUT { type nat hook output priority -100; ip daddr != 127.0.0.0/8 accept; }
}
"""
# what other programs do to rules, each with a command that a host of the lab has
REWRITES = {
    "flush ruleset": "nft flush ruleset",
    "flush and load, as Docker's": f"nft 'flush ruleset\n{DOCKER}'",
    "delete our tables": "nft delete table inet onionward; nft delete table netdev onionward_l2",
    "flush a chain": "nft flush chain inet onionward wire; nft flush chain inet onionward output",
    "let everything leave": "nft insert rule inet onionward wire accept",
    "iptables -F": "iptables -P OUTPUT ACCEPT; iptables -F; iptables -X; iptables -t nat -F",
}


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


@pytest.fixture
def routed(machine: Machine) -> Iterator[Machine]:
    before = machine.snapshot()
    machine.up()
    yield machine
    machine.down()
    machine.run("nft", "flush", "ruleset")
    assert difference(before, machine.snapshot()) == ""


def page(machine: Machine) -> subprocess.CompletedProcess[str]:
    url = f"http://{machine.lab.web4}/"
    return machine.run("curl", "-sS", "--fail", "--noproxy", "*", "-m", "20", url)


def process_status(machine: Machine, field: str) -> int:
    (pid,) = machine.guard_pids()
    for line in machine.path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(field)


def switches(machine: Machine) -> int:
    return process_status(machine, "voluntary_ctxt_switches")


def memory(machine: Machine) -> int:
    return process_status(machine, "VmRSS")


@contextmanager
def sniffing(machine: Machine, command: str) -> Iterator[None]:
    process = machine.spawn("sh", "-c", f"cd /run/onionward-lab; exec {command}")
    lines = machine.path("/run/onionward-lab/new-link")
    until("tcpdump listens", lambda: lines.exists() and "listening on" in lines.read_text())
    yield
    end(process)


def send_frames(machine: Machine, device: str) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        f"s.bind(({device!r}, 0))\n"
        "for _ in range(50):\n"
        " try: s.send(b'\\xff' * 6 + b'\\2' * 6 + b'\\x88\\xb5' + b'frame' * 20)\n"
        " except OSError: pass\n"
    )
    machine.output("python", "-c", script)
    time.sleep(0.3)


def events(machine: Machine) -> str:
    return "\n".join(event["words"] for event in machine.status()["guard_events"])


def is_whole(machine: Machine) -> bool:
    report = machine.status()
    return (report["state"], report["guard"], report["problems"]) == ("routed", "running", [])


def until_whole(machine: Machine) -> None:
    last: dict[str, Any] = {}

    def reached() -> bool:
        last.update(machine.status())
        return is_whole(machine)

    try:
        until("everything is put right", reached, 60)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error


def test_rewritten_rules_open_no_gap(lab: Lab, routed: Machine) -> None:
    tor = routed.tor_pids()
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        for what, command in REWRITES.items():
            since = time.time()
            for _ in range(ROUNDS):
                routed.run("sh", "-c", command)
                time.sleep(0.1)
            until_whole(routed)
            wire.assert_silent(since, where=what)
    assert page(routed).returncode == 0
    assert routed.tor_pids() == tor, "connections through tor live on"


def test_the_witness_sees_a_gap_without_a_guard(lab: Lab, routed: Machine) -> None:
    """The control: the same with only the tables that everybody can flush."""
    routed.end_guard()
    assert routed.status()["guard"] == "ended"
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        routed.output("nft", "flush", "ruleset")
        until("the flood leaves", lambda: len(wire.packets()) > 10 * len(KINDS))
    assert routed.status()["state"] == "open"


def test_each_ruleset_alone_blocks(lab: Lab, routed: Machine) -> None:
    """The guard's tables while the others are gone, and those while the guard is."""
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        routed.pause_guard()
        routed.output("nft", "flush", "ruleset")
        time.sleep(1)
        assert routed.tables() == "table inet onionward_lock\ntable netdev onionward_lock_l2\n"
        routed.resume_guard()
        until("the rules are back", lambda: is_whole(routed), 20)
        routed.end_guard()
        time.sleep(1)
        assert "onionward_lock" not in routed.tables()
        wire.assert_silent()
    assert any("the guard has ended" in problem for problem in routed.status()["problems"])
    routed.up()
    assert is_whole(routed)


def test_nobody_else_changes_the_tables_of_the_guard(routed: Machine) -> None:
    for change in (
        "delete table inet onionward_lock",
        "flush chain inet onionward_lock wire",
        "insert rule inet onionward_lock wire accept",
        "flush table netdev onionward_lock_l2",
        "delete table netdev onionward_lock_l2",
    ):
        done = routed.run("nft", *change.split())
        assert "Operation not permitted" in done.stderr, change


def test_tor_is_started_again_each_time(routed: Machine) -> None:
    with Wire(routed) as wire:
        for _ in range(2):
            before = routed.tor_pids()
            routed.kill_tor(guarded=True)

            def another(before: list[int] = before) -> bool:
                return bool(set(routed.tor_pids()) - set(before))

            until("another tor runs", another, 20)
            until_whole(routed)
            assert page(routed).returncode == 0
        wire.assert_silent()
    assert "tor has ended" in events(routed)


def test_tor_that_cannot_be_started_leaves_the_machine_blocked(routed: Machine) -> None:
    routed.configure(UNREACHABLE)
    routed.up()
    with Wire(routed) as wire, flooding(routed.host, targets(routed.lab)):
        with censored(routed):
            routed.kill_tor(guarded=True)
            until("it is said", lambda: "failed: " in events(routed), 40)
            assert routed.status()["state"] == "blocked"
            assert routed.guard_pids()
        # and again and again, until it can
        until_whole(routed)
        wire.assert_silent()


@pytest.mark.parametrize("command", ["down", "up"])
def test_nobody_waits_for_what_the_guard_waits_for(machine: Machine, command: str) -> None:
    """Tor that it has started finds no relay for minutes: others have the lock all the same."""
    before = machine.snapshot()
    machine.up()
    with censored(machine):
        machine.kill_tor(guarded=True)
        until("the guard has begun", lambda: machine.journal()["state"] == "blocked", 20)
        until("it waits for tor", lambda: bool(machine.tor_pids()), 20)
        started = time.monotonic()
        if command == "down":
            machine.down()
            assert time.monotonic() - started < PATIENCE
            assert difference(before, machine.snapshot()) == ""
            return
        machine.configure(UNREACHABLE)
        done = machine.onionward("up")
        assert "another onionward" not in done.stdout + done.stderr
        assert done.returncode == 1
    machine.up()
    assert is_whole(machine)
    machine.down()


def test_resolv_conf_of_others_is_replaced(machine: Machine) -> None:
    machine.up()
    ours = machine.path("/etc/resolv.conf").read_text()
    machine.path("/etc/resolv.conf").write_text("nameserver 198.18.53.1\n")
    until_whole(machine)
    assert machine.path("/etc/resolv.conf").read_text() == ours
    machine.output("sh", "-c", "echo nameserver 198.18.53.2 > /etc/r; mv /etc/r /etc/resolv.conf")
    until_whole(machine)
    assert machine.path("/etc/resolv.conf").read_text() == ours
    machine.down()
    # it is theirs that comes back
    assert machine.path("/etc/resolv.conf").read_text() == "nameserver 198.18.53.2\n"
    machine.path("/etc/resolv.conf").write_text("nameserver 198.18.53.1\n")


def test_interfaces_are_covered_as_they_come_and_go(routed: Machine) -> None:
    """Frames of a packet socket, seen by tcpdump on the other end of the new interface's cable."""
    lines = routed.path("/run/onionward-lab/new-link")
    try:
        made = "ip link add new0 type veth peer name far0"
        routed.output("sh", "-c", f"{made}; ip link set new0 up; ip link set far0 up")
        until_whole(routed)
        assert {"new0", "far0"} <= set(routed.status()["interfaces"])
        command = f"tcpdump -i far0 -n -l -Q in ether proto 0x88b5 > {lines.name} 2>&1"
        with sniffing(routed, command):
            send_frames(routed, "new0")
            assert "0x88b5" not in lines.read_text()
            routed.end_guard()
            routed.output("nft", "flush", "ruleset")
            send_frames(routed, "new0")
            until("the control is seen", lambda: "0x88b5" in lines.read_text())
    finally:
        routed.run("ip", "link", "delete", "new0")
        lines.unlink(missing_ok=True)
    routed.up()
    assert "new0" not in routed.status()["interfaces"]


def test_quiet_and_small(routed: Machine) -> None:
    """No wake-up while nothing happens; status(5) of proc."""
    before = -1
    deadline = time.monotonic() + 30
    while (now := switches(routed)) != before:
        assert time.monotonic() < deadline, "it does not come to rest"
        before = now
        time.sleep(QUIET_SECONDS)
    assert memory(routed) < MEMORY
    routed.output("nft", "flush", "ruleset")
    until_whole(routed)
    assert memory(routed) < MEMORY
