"""`doctor` finds what was damaged and mends it; a journal cut short anywhere is recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from onionward import state
from onionward.errors import JournalError
from onionward.lab import Lab
from onionward.paths import Paths
from tests.lab.lifecycle_machine import (
    JOURNAL,
    RESOLV_CONF,
    Machine,
    difference,
    open_machine,
    until,
)
from tests.lab.lifecycle_wire import Wire

GATEWAY = '[host]\n[[lan]]\ninterface = "eth1"\ndhcp = true\n'
GATEWAY += 'dhcp_range = ["198.18.8.100", "198.18.8.199"]\n'
ACCEPT_RA = "net.ipv6.conf.eth1.accept_ra"
Damage = Callable[[Machine], object]


def _kill_dhcp(machine: Machine) -> None:
    """End the one process that serves with onionward's configuration, by its number."""
    wanted = b"/run/onionward/dnsmasq-lan.conf"
    found = []
    for entry in machine.path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    assert len(found) == 1
    machine.output("kill", "-KILL", found[0])
    until("it is gone", lambda: not machine.path(f"/proc/{found[0]}").exists())


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a rule": (
        lambda m: m.output("nft", "flush", "chain", "inet", "onionward", "output"),
        "the rules are not the ones",
    ),
    "rules": (
        lambda m: m.output("nft", "delete", "table", "inet", "onionward"),
        "NOT PROTECTED",
    ),
    "egress": (
        lambda m: m.output("nft", "delete", "table", "netdev", "onionward_l2"),
        "the rules are not the ones",
    ),
    "device": (
        lambda m: m.output("ip", "link", "add", "extra0", "type", "veth", "peer", "extra1"),
        "extra0, extra1 appeared",
    ),
    "tor": (lambda m: m.kill_tor(), "tor is not running"),
    "resolver": (
        lambda m: m.path(RESOLV_CONF).write_text("nameserver 192.0.2.1\n"),
        "was changed by another program",
    ),
    "setting": (
        lambda m: m.output("sysctl", "-q", "-w", f"{ACCEPT_RA}=1"),
        "accept_ra is 1 instead of 0",
    ),
    "route": (
        lambda m: m.output(
            *("ip", "-6", "route", "del", "local", "fd5a:7011::/32", "dev", "lo", "table", "local")
        ),
        "fd5a:7011::/32 is not local",
    ),
    "dhcp": (lambda m: _kill_dhcp(m), "DHCP server has ended"),
    "control socket": (
        lambda m: m.path("/run/onionward/tor/control").unlink(),
        "tor cannot be asked",
    ),
}


@pytest.fixture(scope="module")
def gateway(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab, "gateway") as opened:
        before = opened.path(RESOLV_CONF).read_text()
        opened.configure(GATEWAY)
        opened.up()
        yield opened
        # what somebody else has written meanwhile comes back with `down`
        opened.down()
        opened.path(RESOLV_CONF).write_text(before)


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_mended(gateway: Machine, name: str) -> None:
    damage, words = DAMAGES[name]
    assert gateway.output("onionward", "doctor") == "nothing is wrong\n"
    damage(gateway)
    done = gateway.onionward("doctor")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stdout
    assert "repair: onionward up" in done.stdout
    mended = gateway.onionward("doctor", "--repair")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "nothing is wrong" in mended.stdout
    report = gateway.status()
    assert (report["state"], report["problems"]) == ("routed", [])
    if name == "device":
        gateway.output("ip", "link", "del", "extra0")
        gateway.up()


def test_leftovers_of_a_dead_activation(machine: Machine) -> None:
    before = machine.snapshot()
    assert machine.output("onionward", "doctor") == "nothing is wrong\n"
    machine.up()
    machine.path(JOURNAL).unlink()
    done = machine.onionward("doctor")
    for words in ("packet rules", "a tor (", "resolv.conf", "fd5a:7011::/32", "applied.toml"):
        assert words in done.stdout
    # rules are in force: nothing is opened unasked
    assert machine.onionward("doctor", "--repair").returncode == 1
    assert "table inet onionward" in machine.tables()
    machine.down()
    machine.output(
        *("ip", "-6", "route", "add", "local", "fd5a:7011::/32", "dev", "lo", "table", "local")
    )
    assert machine.onionward("doctor").returncode == 1
    assert machine.onionward("doctor", "--repair").returncode == 0
    assert difference(before, machine.snapshot()) == ""


def test_a_journal_cut_short_anywhere(machine: Machine, tmp_path: Path) -> None:
    before = machine.snapshot()
    machine.up("--confirm", "600")
    whole = machine.path(JOURNAL).read_bytes()
    inside = Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")
    assert whole.endswith(b"}\n")
    for length in range(len(whole) - 1):
        inside.journal.write_bytes(whole[:length])
        with pytest.raises(JournalError, match=r"journal\.json is damaged") as caught:
            state.load(inside)
        assert "down --force" in caught.value.hint
    rules = machine.output("nft", "--stateless", "list", "table", "inet", "onionward")
    with Wire(machine) as wire:
        for length in (0, 1, len(whole) // 2, len(whole) - 2):
            machine.path(JOURNAL).write_bytes(whole[:length])
            for command in (["status"], ["up"], ["down"], ["confirm"]):
                done = machine.onionward(*command)
                assert done.returncode == 1
                assert "is damaged" in done.stderr
                assert "down --force" in done.stderr
            for options in ([], ["--repair"]):
                done = machine.onionward("doctor", *options)
                assert done.returncode == 1
                assert "is damaged" in done.stdout
                assert "stays as it is: routed" in done.stdout
                assert "repair: onionward down --force" in done.stdout
        now = machine.output("nft", "--stateless", "list", "table", "inet", "onionward")
        assert now == rules
        wire.assert_silent()
    machine.down("--force")
    assert difference(before, machine.snapshot()) == ""
