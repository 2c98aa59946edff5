"""A routed host whose resolver is unusual, or would go around the packet rules if it could.

Each on a booted Debian, with the witness on the wire.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onionward.lab import Lab
from tests.machines.machine import Machine, boot
from tests.machines.managed import Managed, dhcp, managed, swept
from tests.machines.test_managers import (
    difference,
    network_manager,
    renew_network_manager,
    resolved,
    snapshot,
)

SINGLE, LOCAL = "somebody", "somebody.local"


def ways_around_resolved(lab: Lab, machine: Machine, names: Managed) -> None:
    """LLMNR, multicast DNS, DNS over TLS, nss-resolve, nscd and caches."""
    late = "[Resolve]\nLLMNR=yes\nMulticastDNS=yes\nDNSOverTLS=opportunistic\n"
    machine.write("/etc/systemd/resolved.conf.d/zzz-late.conf", late)
    resolved(machine, lab)
    machine.output("resolvectl", "dnsovertls", "eth0", "opportunistic")
    machine.start("nscd")
    assert "resolve" in machine.output("grep", "^hosts:", "/etc/nsswitch.conf")
    ask_in_every_way(machine)
    seen = "\n".join(names.queries())
    assert ".5355" in seen
    assert ".5353" in seen
    assert ".853" in seen
    assert ".53:" in seen
    before = snapshot(names, times=True)
    for argv in (["--resolver", "networkmanager"], ["--resolver", "nonsense"]):
        for command in ("check", "up"):
            done = machine.onionward(command, *argv)
            assert done.returncode == 2, done.stdout + done.stderr
            assert argv[1] in done.stderr
    assert difference(before, snapshot(names, times=True)) == []

    # a clear answer that is remembered is not to be given any more
    machine.output("resolvectl", "query", "-4", "v4.example.test")
    names.onionward("up")
    names.queries()
    found = machine.output("resolvectl", "query", "-4", "v4.example.test")
    assert "Data from: network" in found
    ask_in_every_way(machine)
    machine.output("systemctl", "restart", "systemd-resolved")
    assert names.status()["problems"] == []
    names.assert_routed("resolvectl", "stub")
    ports = machine.output("ss", "-Hlun", "sport = :5353 or sport = :5355")
    assert ports == ""
    assert names.queries() == []
    # nor an address of .onion afterwards
    assert names.addresses(lab.onion)
    names.onionward("down")
    assert names.addresses(lab.onion) == []
    assert difference(before, snapshot(names, times=True)) == []


def ask_in_every_way(machine: Machine) -> None:
    """Each for no longer than it takes to send."""
    for name in (SINGLE, LOCAL, "www.example.test"):
        machine.run("timeout", "1", "getent", "ahosts", name)
        machine.run("timeout", "1", "resolvectl", "query", name)
    machine.run("dig", "+tries=1", "+time=1", "@127.0.0.53", "www.example.test")
    machine.run("timeout", "1", "resolvectl", "query", "-p", "llmnr", SINGLE)
    machine.run("timeout", "1", "resolvectl", "query", "-p", "mdns", LOCAL)


def an_immutable_file(lab: Lab, machine: Machine, names: Managed) -> None:
    """NetworkManager cannot write it, nor ours."""
    with dhcp(lab, lab.dns4):
        network_manager("", "rc-manager=file\n")(machine, lab)
        machine.output("systemctl", "stop", "NetworkManager")
        machine.write("/etc/resolv.conf", f"search example.test\nnameserver {lab.dns4}\n")
        machine.output("chattr", "+i", "/etc/resolv.conf")
        machine.start("NetworkManager")
        names_once_and_back(lab, machine, names, "file")
    assert "i" in machine.output("lsattr", "/etc/resolv.conf").split()[0]


def a_read_only_etc(lab: Lab, machine: Machine, names: Managed) -> None:
    """The packet rules do it all."""
    machine.write("/etc/resolv.conf", f"search example.test\nnameserver {lab.dns4}\n")
    machine.start("nscd")
    # what has to be written there once
    names.onionward("up")
    names.onionward("down")
    machine.output("mount", "--bind", "/etc", "/etc")
    machine.output("mount", "-o", "remount,bind,ro", "/etc")
    before = snapshot(names, times=True)
    assert "resolv.conf stays as it is" in names.onionward("check")
    assert "resolv.conf stays as it is" in names.onionward("up")
    names.queries()
    report = names.status()
    assert (report["resolver"], report["problems"]) == ("tor", [])
    names.assert_routed()
    assert names.queries() == []
    assert names.addresses(lab.onion)
    names.onionward("down")
    # nscd sees no other resolv.conf, and has been told all the same
    assert names.addresses(lab.onion) == []
    assert difference(before, snapshot(names, times=True)) == []
    machine.output("mount", "-o", "remount,bind,rw", "/etc")
    machine.write("/etc/resolv.conf", "nameserver fe80::1%eth0\n")
    machine.output("mount", "-o", "remount,bind,ro", "/etc")
    done = machine.onionward("up")
    assert done.returncode == 2
    assert "cannot be turned to tor" in done.stderr


def a_journal_that_is_gone(lab: Lab, machine: Machine, names: Managed) -> None:
    """What is recognised is taken back."""
    with dhcp(lab, lab.dns4):
        network_manager("dns=default\n", "rc-manager=symlink\n")(machine, lab)
        machine.start("systemd-resolved")
        before = snapshot(names, times=False)
        names.onionward("up")
        machine.output("rm", "/var/lib/onionward/journal.json")
        assert "resolved.conf.d" in machine.onionward("doctor").stdout
        names.onionward("down", "--force")
        renew_network_manager(machine)
        assert difference(before, snapshot(names, times=False)) == []


def a_manager_named(lab: Lab, machine: Machine, names: Managed) -> None:
    """It is what holds until `down`; another one is changed to without tor's end."""
    resolved(machine, lab)
    before = snapshot(names, times=True)
    names.onionward("up", "--resolver", "file")
    assert names.saved()["manager"] == "file"
    assert names.saved()["resolved"] is None
    # its cache is not left with addresses of .onion all the same
    machine.output("resolvectl", "query", lab.onion)
    names.onionward("down")
    assert machine.run("resolvectl", "query", lab.onion).returncode != 0
    names.onionward("up", "--resolver", "file")
    names.onionward("up")
    assert names.saved()["manager"] == "file"
    pid = names.status()["tor_pid"]
    names.onionward("up", "--resolver", "auto")
    assert names.saved()["manager"] == "resolved"
    assert names.status()["tor_pid"] == pid
    names.queries()
    names.assert_routed("resolvectl", "stub")
    assert names.queries() == []
    names.onionward("down")
    assert difference(before, snapshot(names, times=True)) == []


def names_once_and_back(lab: Lab, machine: Machine, names: Managed, manager: str) -> None:
    """Names go through Tor, and all comes back."""
    assert lab.web4 in names.addresses("v4.example.test")
    assert names.queries()
    before = snapshot(names, times=True)
    names.onionward("up")
    assert names.saved()["manager"] == manager
    names.queries()
    names.assert_routed()
    assert names.status()["problems"] == []
    machine.output("systemctl", "restart", "NetworkManager")
    names.assert_routed()
    assert names.status()["problems"] == []
    assert names.queries() == []
    names.onionward("down")
    assert difference(before, snapshot(names, times=True)) == []


ODDITIES: tuple[Callable[[Lab, Machine, Managed], None], ...] = (
    ways_around_resolved,
    an_immutable_file,
    a_read_only_etc,
    a_journal_that_is_gone,
    a_manager_named,
)
SHORT = (ways_around_resolved,)


@pytest.mark.parametrize("oddity", ODDITIES if swept() else SHORT, ids=lambda one: one.__name__)
def test_names_go_nowhere_else(lab: Lab, oddity: Callable[[Lab, Machine, Managed], None]) -> None:
    with boot(lab.hosts["host"]) as machine, managed(lab, machine) as names:
        oddity(lab, machine, names)
