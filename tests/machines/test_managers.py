"""A routed host whose resolv.conf is managed, by each real manager, inside a booted Debian.

internet ── uplink (dnsmasq: DHCP) ── eth0 machine (systemd-resolved, NetworkManager, dhclient, …)

While it is on, names go through Tor, also when the manager is restarted or a lease comes with
other servers; the witness on the wire sees no query, which it has seen before. With `down` all is
as it was, or as the manager wants it by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from onionward.lab import Lab
from tests.machines.machine import Machine, boot
from tests.machines.managed import Managed, dhcp, managed, swept
from tests.machines.tree import PACKAGES

_BASE = (
    *("systemd-sysv", "dbus", "python3", "procps", "e2fsprogs", "bind9-dnsutils"),
    *("nftables", "iproute2", "conntrack", "tor", "isc-dhcp-client"),
)
RESOLVCONF = (*_BASE, "resolvconf")
OPENRESOLV = (*_BASE, "openresolv", "dhcpcd-base")
_OTHER = "198.18.53.2"
WATCHED = (
    "/etc",
    "/etc/dhcp/dhclient-enter-hooks.d",
    "/etc/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/run/systemd/resolved.conf.d",
    "/run/resolvconf",
)
_KEYFILE = "/etc/NetworkManager/system-connections/lab.nmconnection"


def resolved(machine: Machine, lab: Lab) -> None:
    """The stub's link; a link's domains and servers by hand, all that it can be told."""
    machine.output("ln", "-sfn", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
    machine.start("systemd-resolved")
    machine.output("resolvectl", "dns", "eth0", lab.dns4)
    machine.output("resolvectl", "domain", "eth0", "example.test", "~v4.example.test")
    machine.output("resolvectl", "llmnr", "eth0", "yes")
    machine.output("resolvectl", "mdns", "eth0", "yes")


def networkd(machine: Machine, lab: Lab) -> None:
    """The same, with a lease that networkd hands on."""
    machine.write(
        "/etc/systemd/network/10-lab.network",
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\nKeepConfiguration=yes\n"
        f"Address={lab.host6}/64\nGateway={lab.router6}\n[DHCPv4]\nUseDomains=yes\n",
    )
    machine.output("ln", "-sfn", "/run/systemd/resolve/resolv.conf", "/etc/resolv.conf")
    machine.start("systemd-networkd", "systemd-resolved")
    machine.output("/lib/systemd/systemd-networkd-wait-online", "--interface=eth0", "--timeout=20")


def network_manager(
    dns: str, rc_manager: str, link: str = "", *, below: str = "/etc"
) -> Callable[[Machine, Lab], None]:
    """NetworkManager with a DHCP connection."""

    def prepare(machine: Machine, lab: Lab) -> None:
        main = f"[main]\n{dns}{rc_manager}plugins=keyfile\nno-auto-default=*\n"
        machine.write(f"{below}/NetworkManager/conf.d/lab.conf", main)
        connection = (
            "[connection]\nid=lab\ntype=ethernet\ninterface-name=eth0\n"
            "[ipv4]\nmethod=auto\n"
            f"[ipv6]\nmethod=manual\naddress1={lab.host6}/64,{lab.router6}\n"
        )
        machine.write(_KEYFILE, connection, mode=0o600)
        machine.write("/etc/resolv.conf", "")
        if link:
            machine.output("ln", "-sfn", link, "/etc/resolv.conf")
        if "resolved" in dns:
            machine.start("systemd-resolved")
        machine.start("NetworkManager")
        # it would leave alone what it finds configured
        renew_network_manager(machine)

    return prepare


def dhclient(machine: Machine, lab: Lab) -> None:
    machine.write("/etc/resolv.conf", f"nameserver {lab.dns6}\n", mode=0o640)
    lease(machine)


def alone(machine: Machine, lab: Lab) -> None:
    """No resolvconf of either kind."""
    machine.output("rm", "/sbin/resolvconf", "/etc/dhcp/dhclient-enter-hooks.d/resolvconf")
    dhclient(machine, lab)


def resolvconf(machine: Machine, lab: Lab) -> None:
    machine.output("ln", "-sfn", "/run/resolvconf/resolv.conf", "/etc/resolv.conf")
    machine.output("sh", "-c", "mkdir -p /run/resolvconf/interface; resolvconf --enable-updates")
    lease(machine)


def openresolv(machine: Machine, lab: Lab) -> None:
    del lab
    machine.output("rm", "-f", "/etc/resolv.conf")
    lease(machine)


def lease(machine: Machine) -> None:
    """A lease, anew."""
    machine.run("sh", "-c", "kill $(pidof dhclient)")
    machine.output("dhclient", "-4", "-1", "eth0")


def restart(*units: str) -> Callable[[Machine], None]:
    return lambda machine: (machine.output("systemctl", "restart", *units), None)[1]


def renew_networkd(machine: Machine) -> None:
    machine.output("networkctl", "renew", "eth0")
    machine.output("/lib/systemd/systemd-networkd-wait-online", "--interface=eth0", "--timeout=20")


def renew_network_manager(machine: Machine) -> None:
    machine.output("nmcli", "connection", "up", "lab")


class Situation(NamedTuple):
    """How names are managed, and what happens meanwhile.

    Attributes:
        manager: who is found to manage resolv.conf.
        prepare: makes it so.
        restart: begins the manager anew.
        renew: has a lease come, from a server that names another resolver.
        packages: of the machine.
        ways: to ask for names besides the C library's, see `Managed.assert_routed`.
        rewrites: whether the manager writes the same text again when it gets resolv.conf back.
        mended: whether what was changed comes back with a restart, and the guard has to act.

    """

    manager: str
    prepare: Callable[[Machine, Lab], None]
    restart: Callable[[Machine], None]
    renew: Callable[[Machine], None] | None = None
    packages: tuple[str, ...] = PACKAGES
    ways: tuple[str, ...] = ()
    rewrites: bool = False
    mended: bool = False


_RESOLVED = ("resolvectl", "stub")
# left to itself it would hand all to systemd's resolvconf(8), which wants systemd-resolved
_SYMLINK = "rc-manager=symlink\n"
_NM = restart("NetworkManager")
SITUATIONS = {
    "resolved's stub": Situation("resolved", resolved, restart("systemd-resolved"), ways=_RESOLVED),
    "networkd": Situation(
        "resolved",
        networkd,
        restart("systemd-networkd", "systemd-resolved"),
        renew_networkd,
        ways=_RESOLVED,
        mended=True,
    ),
    "NetworkManager": Situation(
        "networkmanager", network_manager("", _SYMLINK), _NM, renew_network_manager, rewrites=True
    ),
    "NetworkManager's link": Situation(
        "networkmanager",
        network_manager(
            "dns=default\n", _SYMLINK, "/run/NetworkManager/resolv.conf", below="/usr/lib"
        ),
        _NM,
        renew_network_manager,
        rewrites=True,
    ),
    "NetworkManager's dnsmasq": Situation(
        "networkmanager",
        network_manager("dns=dnsmasq\n", "rc-manager=file\n"),
        _NM,
        renew_network_manager,
        rewrites=True,
    ),
    "NetworkManager and resolved": Situation(
        "resolved",
        network_manager("dns=systemd-resolved\n", "", "../run/systemd/resolve/stub-resolv.conf"),
        restart("NetworkManager", "systemd-resolved"),
        renew_network_manager,
        ways=_RESOLVED,
        rewrites=True,
    ),
    "resolvconf": Situation("resolvconf", resolvconf, lease, lease, RESOLVCONF),
    "openresolv": Situation("openresolv", openresolv, lease, lease, OPENRESOLV),
    "dhclient": Situation("dhclient", alone, lease, lease, OPENRESOLV),
}
# with systemd-resolved: tests.machines.test_managers_oddities
SHORT = ("NetworkManager",)


@pytest.mark.parametrize("name", SITUATIONS if swept() else SHORT)
def test_names_go_through_tor_and_all_comes_back(lab: Lab, name: str) -> None:
    situation = SITUATIONS[name]
    with boot(lab.hosts["host"], situation.packages) as machine, managed(lab, machine) as names:
        with dhcp(lab, lab.dns4):
            situation.prepare(machine, lab)
            assert lab.web4 in names.addresses("v4.example.test")
            assert names.queries(), "the witness does not see what it is there for"
            before = snapshot(names, times=not situation.rewrites)
            names.onionward("up")
            assert names.saved()["manager"] == situation.manager
            names.queries()
            check(names, situation)
            assert names.queries() == []
            names.onionward("down")
            after = snapshot(names, times=not situation.rewrites)
            assert difference(before, after) == []
            assert lab.web4 in names.addresses("v4.example.test")
            assert names.queries()

            before = snapshot(names, times=False)
            names.onionward("up")
            names.queries()
            pid = names.status()["tor_pid"]
            situation.restart(machine)
            if situation.mended:
                wait_until_mended(names, pid)
            check(names, situation)
            assert names.queries() == []
            if situation.renew is None:
                names.onionward("down")
                assert difference(before, snapshot(names, times=False)) == []
                return
        with dhcp(lab, _OTHER):
            situation.renew(machine)
            check(names, situation)
            assert names.queries() == []
            names.onionward("down")
            assert _OTHER in wanted(names)
            assert lab.dns4 not in wanted(names)


def wait_until_mended(names: Managed, pid: int) -> None:
    """What has come back is seen by the guard and put right; tor and its connections live on."""
    deadline = time.monotonic() + 30
    while True:
        report = names.status()
        events = " ".join(event["words"] for event in report["guard_events"])
        if "has domains of its own for eth0 again" in events and not report["problems"]:
            break
        assert time.monotonic() < deadline, report
        time.sleep(0.5)
    assert report["tor_pid"] == pid


def check(names: Managed, situation: Situation) -> None:
    """All is as it should be."""
    report = names.status()
    assert report["problems"] == []
    assert (report["state"], report["resolver"]) == ("routed", "tor")
    text = names.machine.output("cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.1\n" in text
    assert "example.test" not in text
    names.assert_routed(*situation.ways)


def difference(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What is not as it was."""
    keys = sorted({*before, *after})
    return [
        f"{key}: {before.get(key)} is now {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def wanted(names: Managed) -> str:
    """Whom the manager has programs ask by now."""
    found = names.machine.output("cat", "/etc/resolv.conf")
    found += names.machine.run("nmcli", "-f", "IP4.DNS", "device", "show", "eth0").stdout
    return found + names.machine.run("resolvectl", "dns").stdout


def snapshot(names: Managed, *, times: bool) -> dict[str, object]:
    """All that must be as it was, and what systemd-resolved and NetworkManager say of names."""
    found = names.files(*WATCHED)
    files = {k: v for k, v in found.items() if k.count("/") != 2 or "resolv" in k}
    if not times:
        files = {k: [*v[:4], *v[5:]] for k, v in files.items()}
    told = names.machine.run("resolvectl", "status").stdout.splitlines()
    # which server it happens to ask at the moment
    said = [line.strip() for line in told if "Current DNS Server" not in line]
    bus = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager/DnsManager")
    properties = ("org.freedesktop.NetworkManager.DnsManager", "Mode", "RcManager", "Configuration")
    managed_by = names.machine.run("busctl", "get-property", *bus, *properties).stdout
    return {
        **files,
        "links": names.links(),
        "resolved": said,
        "NetworkManager": managed_by,
    }
