"""`doctor` finds what was damaged, and the command that it names mends it.

On a gateway with a routed host, clients and an account, and on one where only names under .onion
and accounts are routed: these have between them all that can be damaged.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import repeated
from tests.lab.lifecycle_machine import (
    JOURNAL,
    NETWORK,
    RESOLV_CONF,
    WAITING,
    Machine,
    difference,
    open_machine,
    until,
)
from tests.lab.lifecycle_scopes import ALICE, BOB, CONTROL, DHCP, ONION, furnished_gateway
from tests.report import Faults, chance

HOST_TOO = "[host]\n" + DHCP + ALICE + CONTROL
ONLY_SOME = ONION + BOB
DEFAULT_PATH, APPLIED = "/etc/onionward/onionward.toml", "/var/lib/onionward/applied.toml"
UP, REPAIR = "onionward up", "onionward doctor --repair"
DOWN, FORCE = "onionward down", "onionward down --force"
ACCEPT_RA = "net.ipv6.conf.eth1.accept_ra"
VIRTUAL = ("local", "fd5a:7011::/32", "dev", "lo", "table", "local")
NOT_THE_ONES = "the rules are not the ones"
CLASS = "damage that doctor finds"
Damage = Callable[[Machine], object]
Damages = dict[str, tuple[Damage, str]]


def nft(*words: str) -> Damage:
    return lambda machine: machine.output("nft", *words)


def kill(argument: str) -> Damage:
    """End the one process that has these words among its arguments, by its number."""

    def damage(machine: Machine) -> None:
        found = []
        for entry in machine.path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if entry.name.isdecimal() and argument in words:
                    found.append(entry.name)
        assert len(found) == 1, found
        machine.output("kill", "-KILL", found[0])
        until("it is gone", lambda: not machine.path(f"/proc/{found[0]}").exists())

    return damage


def delete_a_rule(machine: Machine) -> None:
    chain = ("inet", "onionward", "output")
    listed = machine.output("nft", "--handle", "list", "chain", *chain)
    handle = re.findall(r"# handle (\d+)$", listed, re.MULTILINE)[-1]
    machine.output("nft", "delete", "rule", *chain, "handle", handle)


def suspend_tor(machine: Machine) -> None:
    for pid in machine.tor_pids():
        machine.output("kill", "-STOP", str(pid))


def move_tor(machine: Machine) -> None:
    group = machine.journal()["undo"]["tor"]["cgroup"]
    root = group.rpartition("/")[0]
    for pid in machine.tor_pids():
        machine.output("sh", "-c", f"echo {pid} > {root}/cgroup.procs")


def add_link(machine: Machine) -> None:
    machine.output("ip", "link", "add", "extra0", "type", "veth", "peer", "extra1")


WITH_HOST: Damages = {
    "rules flushed": (nft("flush", "ruleset"), "NOT PROTECTED"),
    "a table gone": (nft("delete", "table", "inet", "onionward"), "NOT PROTECTED"),
    "a chain flushed": (nft("flush", "chain", "inet", "onionward", "output"), NOT_THE_ONES),
    "a rule deleted": (delete_a_rule, NOT_THE_ONES),
    "a rule added": (nft("insert", "rule", "inet", "onionward", "output", "accept"), NOT_THE_ONES),
    "a set emptied": (nft("flush", "set", "inet", "onionward", "unroutable4"), NOT_THE_ONES),
    "egress table gone": (nft("delete", "table", "netdev", "onionward_l2"), NOT_THE_ONES),
    "guard killed": (lambda m: m.end_guard(), "the guard has ended"),
    "new interfaces": (add_link, "extra0, extra1 appeared"),
    "tor killed": (lambda m: m.kill_tor(), "tor is not running"),
    "tor suspended": (suspend_tor, "tor is suspended"),
    "tor in another control group": (move_tor, "it may not leave"),
    "control socket gone": (
        lambda m: m.path("/run/onionward/tor/control").unlink(),
        "tor cannot be asked",
    ),
    "resolv.conf overwritten": (
        lambda m: m.path(RESOLV_CONF).write_text("nameserver 192.0.2.1\n"),
        "was changed by another program",
    ),
    "setting changed": (
        lambda m: m.output("sysctl", "-q", "-w", f"{ACCEPT_RA}=1"),
        "accept_ra is 1 instead of 0",
    ),
    "route gone": (
        lambda m: m.output("ip", "-6", "route", "del", *VIRTUAL),
        "fd5a:7011::/32 is not local",
    ),
    "DHCP server killed": (kill("/run/onionward/dnsmasq-lan.conf"), "DHCP server has ended"),
    "control filter killed": (
        kill("onionward.tor.control_filter"),
        "filter of tor's control port has ended",
    ),
}
WITHOUT_HOST: Damages = {
    "service opened to an account": (
        lambda m: m.output("setfacl", "--recursive", "--remove-all", "/run/nscd"),
        "/run/nscd/socket is open to bob",
    ),
    "forwarder killed": (kill("/run/onionward/dnsmasq-onion.conf"), "names do not resolve"),
    "resolv.conf overwritten, .onion": (
        lambda m: m.path(RESOLV_CONF).write_text("nameserver 192.0.2.1\n"),
        "no longer names the forwarder",
    ),
}


@contextmanager
def routed(lab: Lab, text: str) -> Iterator[Machine]:
    """With this configuration in the default place."""
    with furnished_gateway(lab) as machine:
        resolv_conf = machine.path(RESOLV_CONF).read_text()
        default = machine.path(DEFAULT_PATH).read_text()
        machine.path(DEFAULT_PATH).write_text(text + NETWORK)
        try:
            machine.output("onionward", "up")
            yield machine
            # what somebody else has written meanwhile comes back with `down`
            machine.down()
        finally:
            machine.path(RESOLV_CONF).write_text(resolv_conf)
            machine.path(DEFAULT_PATH).write_text(default)


@pytest.fixture(scope="module")
def gateway(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Machine]:
    with routed(lab, request.param) as machine:
        yield machine


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def examined(machine: Machine, words: str) -> list[str]:
    """What `doctor` names as repairs of a damage; it says these words."""
    done = machine.run("onionward", "doctor")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stdout, done.stdout
    return sorted(set(re.findall(r"^  repair: (.*)$", done.stdout, re.MULTILINE)))


def assert_mended(machine: Machine, command: str) -> None:
    """It is after this command."""
    machine.output(*shlex.split(command))
    assert machine.output("onionward", "doctor") == "nothing is wrong\n"
    report = machine.status()
    assert (report["state"], report["problems"]) == ("routed", [])


@pytest.mark.parametrize(
    ("gateway", "name"),
    [*((HOST_TOO, name) for name in WITH_HOST), *((ONLY_SOME, name) for name in WITHOUT_HOST)],
    indirect=["gateway"],
    ids=[*WITH_HOST, *WITHOUT_HOST],
)
def test_damage_is_named_and_mended(gateway: Machine, faults: Faults, name: str) -> None:
    """By the command that is named or by doctor itself; in a sweep by both."""
    damage, words = (WITH_HOST | WITHOUT_HOST)[name]
    assert gateway.output("onionward", "doctor") == "nothing is wrong\n"
    for command in chance(name).sample((UP, REPAIR), repeated(1, 2)):
        with faults.tried(CLASS, f"{name}, {command}") as fault:
            gateway.end_guard()  # it would mend most of it
            damage(gateway)
            with fault.status():
                assert examined(gateway, words) == [UP]
            with fault.restoring():
                assert_mended(gateway, command)
        if name == "new interfaces":
            gateway.output("ip", "link", "del", "extra0")
            gateway.output(*shlex.split(UP))


def test_what_is_in_force_from_elsewhere_is_not_replaced(machine: Machine, faults: Faults) -> None:
    """`onionward up` alone would route by the file in the default place."""
    machine.configure('[bypass]\nnetworks = ["192.0.2.0/24"]\n')
    machine.up()
    in_force = machine.path(APPLIED).read_text()
    for damage, words in (
        (WITH_HOST["a chain flushed"]),
        (lambda m: m.path(APPLIED).unlink(), "what is in force is not known"),
    ):
        with faults.tried(CLASS, f"{words}, configuration elsewhere") as fault:
            machine.end_guard()
            damage(machine)
            (named,) = examined(machine, words)
            with fault.restoring():
                assert_mended(machine, named)
                assert machine.path(APPLIED).read_text() == in_force


def test_confirmation_that_nobody_awaits_any_more(machine: Machine, faults: Faults) -> None:
    before = machine.snapshot()
    machine.up("--confirm", "600")
    with faults.tried(CLASS, "process of --confirm killed") as fault:
        kill("onionward.confirmation")(machine)
        with fault.status():
            assert examined(machine, "confirm")
        machine.down()
        fault.restored(difference(before, machine.snapshot()))


def test_leftovers_of_a_dead_activation(machine: Machine, faults: Faults) -> None:
    before = machine.snapshot()
    assert machine.output("onionward", "doctor") == "nothing is wrong\n"
    machine.up()
    machine.path(JOURNAL).unlink()
    with faults.tried(CLASS, "journal gone") as fault:
        for words in ("packet rules", "a tor (", "resolv.conf", "fd5a:7011::/32", "applied.toml"):
            with fault.status():
                assert examined(machine, words) == [DOWN]
        # rules are in force: nothing is opened unasked
        assert machine.onionward("doctor", "--repair").returncode == 1
        assert "table inet onionward" in machine.tables()
        machine.output(*shlex.split(DOWN))
        assert machine.output("onionward", "doctor") == "nothing is wrong\n"
        fault.restored(difference(before, machine.snapshot()))
    with faults.tried(CLASS, "a route left over") as fault:
        machine.output("ip", "-6", "route", "add", *VIRTUAL)
        assert examined(machine, "fd5a:7011::/32") == [DOWN]
        machine.output("onionward", "doctor", "--repair")
        fault.restored(difference(before, machine.snapshot()))


def test_damaged_journal(machine: Machine, faults: Faults) -> None:
    before = machine.snapshot()
    machine.up()
    machine.path(JOURNAL).write_text("{")
    with faults.tried(CLASS, "journal damaged") as fault:
        assert examined(machine, "is damaged") == [FORCE]
        assert machine.onionward("doctor", "--repair").returncode == 1
        machine.output(*shlex.split(FORCE))
        assert machine.output("onionward", "doctor") == "nothing is wrong\n"
        fault.restored(difference(before, machine.snapshot()))


def test_original_that_is_gone(machine: Machine, faults: Faults) -> None:
    """No command can bring it back; that it is gone is said while there is time."""
    original = machine.path(RESOLV_CONF).read_text()
    machine.up()
    with faults.tried(CLASS, "waiting resolv.conf gone") as fault:
        machine.path(WAITING).unlink()
        with fault.status():
            assert examined(machine, "write a new one there by hand") == ["by hand"]
        machine.down()
        assert machine.status()["problems"] == [
            f"{RESOLV_CONF} still points to Tor, and its original is gone: write a new one by hand"
        ]
        assert examined(machine, "its original is gone") == ["by hand"]
        with fault.restoring():
            machine.path(RESOLV_CONF).write_text(original)
            assert machine.output("onionward", "doctor") == "nothing is wrong\n"
