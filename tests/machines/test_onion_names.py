"""Names under .onion on real Debian machines, with each resolver that they may have.

No packet rules are in force: what is seen here, the resolvers do by themselves. The witness on the
wire is first shown to see such a name while nothing is done about it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from onionward.lab import Lab
from tests.machines.machine import Machine, boot
from tests.machines.resolving import Resolving, resolving

WATCHED = (
    "/etc/dnsmasq.d",
    "/etc/unbound/unbound.conf.d",
    "/etc/NetworkManager/dnsmasq.d",
    "/etc/NetworkManager/conf.d",
    "/etc/systemd/network",
    "/run/systemd/network",
)
CONFIG = 'onion = true\n[tor]\nnetwork = "/etc/onionward/network.torrc"\n'
FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://{sys.argv[1]}/", timeout=20).read().decode())
"""
SUBDOMAIN = "www.lab.onion"
OPTIONS = "search example.test\noptions timeout:2 attempts:1 edns0\n"
LOOPBACK = f"nameserver 127.0.0.1\n{OPTIONS}"


def plain(machine: Machine, lab: Lab) -> None:
    servers = f"nameserver {lab.dns4}\nnameserver {lab.dns6}\n"
    machine.write("/etc/resolv.conf", f"# of the test\n{servers}{OPTIONS}", mode=0o640)


def followed(machine: Machine, lab: Lab) -> None:
    machine.write("/run/elsewhere/resolv.conf", f"nameserver {lab.dns6}\n{OPTIONS}")
    machine.output("ln", "-sfn", "../run/elsewhere/resolv.conf", "/etc/resolv.conf")


def dnsmasq(machine: Machine, lab: Lab) -> None:
    text = f"no-resolv\nserver={lab.dns4}\nstop-dns-rebind\nrebind-domain-ok=/test/\n"
    machine.write("/etc/dnsmasq.d/lab.conf", text)
    machine.write("/etc/resolv.conf", LOOPBACK)
    machine.start("dnsmasq")


def unbound(machine: Machine, lab: Lab) -> None:
    text = f"""
server:
    domain-insecure: "test."
    local-zone: "test." nodefault
    private-address: 127.0.0.0/8
    private-address: fd00::/8
forward-zone:
    name: "."
    forward-addr: {lab.dns4}
"""
    machine.write("/etc/unbound/unbound.conf.d/lab.conf", text)
    machine.write("/etc/resolv.conf", LOOPBACK)
    machine.start("unbound")


def network_manager(machine: Machine, lab: Lab) -> None:
    settings = "[main]\ndns=dnsmasq\nrc-manager=symlink\nplugins=keyfile\nno-auto-default=*\n"
    machine.write("/etc/NetworkManager/conf.d/lab.conf", settings)
    connection = f"""
[connection]
id=lab
type=ethernet
interface-name=eth0
[ipv4]
method=manual
address1={lab.host4}/24,{lab.router4}
dns={lab.dns4};
dns-search=example.test;
dns-options=timeout:2;
[ipv6]
method=manual
address1={lab.host6}/64,{lab.router6}
"""
    keyfile = "/etc/NetworkManager/system-connections/lab.nmconnection"
    machine.write(keyfile, connection, mode=0o600)
    machine.output("ln", "-sfn", "/run/NetworkManager/resolv.conf", "/etc/resolv.conf")
    machine.start("NetworkManager")
    machine.output("nm-online", "--quiet", "--wait-for-startup", "--timeout=20")


def resolved(machine: Machine, lab: Lab) -> None:
    # networkd would take the link for its own
    machine.write(
        "/etc/systemd/network/10-lab.network", "[Match]\nName=eth0\n[Link]\nUnmanaged=yes\n"
    )
    everything = "[Match]\nName=*\n[Network]\nDHCP=ipv4\nDNS=192.0.2.1\n"
    machine.write("/etc/systemd/network/90-other.network", everything)
    machine.output("ln", "-sfn", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
    machine.start("systemd-networkd", "systemd-resolved")
    machine.output("resolvectl", "dns", "eth0", lab.dns4)
    machine.output("resolvectl", "domain", "eth0", "example.test")


SITUATIONS: dict[str, tuple[Callable[[Machine, Lab], None], str]] = {
    "servers elsewhere": (plain, "own"),
    "a list that others write": (followed, "own"),
    "dnsmasq": (dnsmasq, "dnsmasq"),
    "unbound": (unbound, "unbound"),
    "NetworkManager's dnsmasq": (network_manager, "networkmanager"),
    "systemd-resolved": (resolved, "resolved"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_only_onion_names_go_to_tor(lab: Lab, situation: str) -> None:
    prepare, manager = SITUATIONS[situation]
    with boot(lab.hosts["host"]) as machine, resolving(lab, machine) as names:
        prepare(machine, lab)
        assert names.do("unusable") == []
        before, answers = snapshot(names), names.answers()
        assert names.addresses("lab.onion") == []
        # unbound keeps such names to itself (RFC 7686)
        assert names.has_leaked() == (manager != "unbound")
        machine.run("dig", f"@{lab.dns4}", "lab.onion")
        assert names.has_leaked(), "the witness does not see what it is there for"

        assert names.do("survey")["manager"] == manager
        names.do("apply")
        names.do("apply")
        assert names.do("problems") == []
        assert names.answers() == answers
        for name in ("lab.onion", SUBDOMAIN, lab.onion, "LAB.Onion"):
            names.assert_led(name)
        if situation == "a list that others write":
            check_that_changes_are_followed(names)
        if situation == "systemd-resolved":
            machine.output("systemctl", "restart", "systemd-resolved", "systemd-networkd")
            assert names.do("problems") == []
            names.assert_led(SUBDOMAIN)
        names.stop_tor()
        # one that nobody has cached
        assert names.dig_status("fresh.onion") in ("", "SERVFAIL")
        assert names.answers() == answers
        assert not names.has_leaked()

        assert names.do("recognise") is not None
        assert names.do("restore") == ""
        assert names.do("restore") == ""
        assert names.do("recognise") is None
        assert snapshot(names) == before
        assert names.answers() == answers
        assert names.addresses("lab.onion") == []
        assert names.has_leaked() == (manager != "unbound")


def visited(machine: Machine, name: str) -> str:
    """The page of an onion service."""
    done = machine.run("python3", "-c", FETCH, name)
    for _ in range(4):
        if not done.returncode:
            break
        # a rendezvous that hangs is the network's misfortune, and is waited for by its circuit
        onionward(machine, "new-identity")
        done = machine.run("python3", "-c", FETCH, name)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("situation", ["servers elsewhere", "systemd-resolved"])
def test_the_whole_program(lab: Lab, situation: str) -> None:
    prepare, _ = SITUATIONS[situation]
    with boot(lab.hosts["host"]) as machine, resolving(lab, machine) as names:
        names.stop_tor()
        prepare(machine, lab)
        machine.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
        machine.write("/etc/onionward/onionward.toml", CONFIG)
        before, answers = snapshot(names), names.answers()
        onionward(machine, "up")
        assert json.loads(onionward(machine, "status", "--json"))["problems"] == []
        for name in (lab.onion, f"www.{lab.onion}"):
            assert '"client": "127.0.0.1"' in visited(machine, name)
        # in clear, as ever
        assert lab.host6 in machine.output("python3", "-c", FETCH, "www.example.test")
        assert names.answers() == answers
        onionward(machine, "up")
        names.assert_led(SUBDOMAIN)
        assert not names.has_leaked()
        onionward(machine, "down")
        assert snapshot(names) == before
        assert names.answers() == answers


def onionward(machine: Machine, *argv: str) -> str:
    done = machine.onionward(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_silent_server_costs_no_more_than_before(lab: Lab) -> None:
    with boot(lab.hosts["host"]) as machine, resolving(lab, machine) as names:
        silent = "nameserver 198.18.0.77\n"
        text = f"{silent}nameserver {lab.dns4}\noptions timeout:1 attempts:1\n"
        machine.write("/etc/resolv.conf", text)
        expected = names.addresses("v4.example.test")
        assert expected == [lab.web4]
        names.do("survey")
        names.do("apply")
        assert names.addresses("v4.example.test") == expected
        names.assert_led(SUBDOMAIN)


def check_that_changes_are_followed(names: Resolving) -> None:
    # where nobody answers
    rewrite_list(names, "127.0.0.77")
    assert names.dig_status("any.example.test") == ""
    names.assert_led(SUBDOMAIN)
    rewrite_list(names, names.lab.dns6)


def rewrite_list(names: Resolving, server: str) -> None:
    # dnsmasq knows a new version by its time in whole seconds
    time.sleep(1.0)
    names.machine.write("/run/elsewhere/new", f"nameserver {server}\n{OPTIONS}")
    names.machine.output("mv", "/run/elsewhere/new", "/run/elsewhere/resolv.conf")
    time.sleep(0.1)


def snapshot(names: Resolving) -> dict[str, object]:
    """All that must be as it was."""
    resolv = {k: v for k, v in names.files("/etc").items() if "resolv" in k}
    return {**resolv, **names.files(*WATCHED), "links": names.links()}
