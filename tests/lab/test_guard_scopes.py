"""The guard on a gateway: clients and accounts stay covered when others flush all rules.

client1 (LAN)   alice  bob  carol  root      each sends from ports of its own
      └── eth1 gateway eth0 ──┴── witness    and the gateway forwards for whoever asks
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, until
from tests.lab.lifecycle_scopes import ALL, MIXED, Scope, Stage, sent, stage

ROUNDS = 4


@pytest.fixture
def everything(lab: Lab) -> Iterator[Stage]:
    with stage(lab) as opened:
        yield opened


def is_whole(everything: Stage) -> bool:
    report = everything.machine.status()
    return (report["state"], report["guard"], report["problems"]) == ("routed", "running", [])


@contextmanager
def another_name(machine: Machine) -> Iterator[None]:
    """The clients' interface, called otherwise for a while."""
    keep = "net.ipv6.conf.{}.keep_addr_on_down={}"
    machine.output("sysctl", "-qw", keep.format("eth1", 1))
    rename(machine, "eth1", "lan9")
    try:
        yield
    finally:
        rename(machine, "lan9", "eth1")
        machine.output("sysctl", "-qw", keep.format("eth1", 0))


def rename(machine: Machine, name: str, new: str) -> None:
    # before Linux 6.2 only one that is down
    script = "ip link set $1 down; ip link set $1 name $2; ip link set $2 up"
    machine.output("sh", "-ec", script, "sh", name, new)


@pytest.mark.parametrize("scope", [ALL, MIXED], ids=lambda scope: scope.name)
def test_flushed_rules_open_no_gap_for_those_who_are_routed(
    everything: Stage, scope: Scope
) -> None:
    machine = everything.machine
    machine.configure(scope.text)
    machine.up()
    since = time.time()
    for _ in range(ROUNDS):
        machine.output("nft", "flush", "ruleset")
        time.sleep(0.3)
    # only the guard's own rules are there for a while
    machine.pause_guard()
    machine.output("nft", "flush", "ruleset")
    time.sleep(1.5)
    with another_name(machine):
        time.sleep(1)
    assert "inet onionward\n" not in machine.tables()
    everything.assert_silent(scope.routed, since, time.time())
    others = {s.sender for s in sent(everything.wire.packets(since))}
    assert others >= {"root", "alice", "bob", "carol", "client1"} - scope.routed - {"carol"}
    machine.resume_guard()
    until("everything is put right", lambda: is_whole(everything), 30)
    everything.senders.wait_until_all_hear()
    everything.assert_silent(scope.routed, since, time.time())

    # the control
    machine.end_guard()
    gap = time.time()
    machine.output("nft", "flush", "ruleset")

    def seen() -> bool:
        return scope.routed <= {s.sender for s in sent(everything.wire.packets(gap))}

    until("they all are seen without a guard", seen, 20)
    machine.down()
