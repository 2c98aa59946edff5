"""A machine that talks from its first moment, on a cable that its own boot plugs in.

    talker.service   before network-pre.target: UDP, TCP, name queries and pings, never ending
    cable.service    after network-pre.target: eth0 up, with addresses and routes

Between two boots the lab's host loses what a real machine loses with its power: packet rules,
addresses, routes, and the link is down.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onionward.lab import Host, Lab, render
from onionward.lab.topology import HOST
from tests.machines.machine import PROJECT, Machine

PACKAGES = (
    *("systemd-sysv", "dbus", "python3", "procps", "iproute2"),
    *("nftables", "conntrack", "tor"),
)
TALKER = """\
[Unit]
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target
[Service]
ExecStart=/usr/bin/python3 -I -S {program} {web4} {web6} {dns4}
Restart=always
StandardOutput=null
[Install]
WantedBy=sysinit.target
"""
CABLE = """\
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target
Wants=network-pre.target network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip -batch /etc/cable.batch
[Install]
WantedBy=sysinit.target
"""


def furnish(machine: Machine, lab: Lab, config: str = "") -> None:
    """Give a machine its talker, its cable and a configuration."""
    program = PROJECT / "tests/lab/lifecycle_chatter.py"
    talker = TALKER.format(program=program, web4=lab.web4, web6=lab.web6, dns4=lab.dns4)
    machine.write("/etc/systemd/system/talker.service", talker)
    machine.write("/etc/systemd/system/cable.service", CABLE)
    machine.write("/etc/cable.batch", render.machine_links(HOST))
    machine.write("/etc/resolv.conf", f"nameserver {lab.dns4}\n")
    machine.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
    machine.write("/etc/onionward/onionward.toml", config)
    machine.output("systemctl", "enable", "talker.service", "cable.service")


@contextmanager
def without_power(host: Host) -> Iterator[None]:
    """Before and after this the kernel of a machine has forgotten everything."""
    _lose_power(host)
    try:
        yield
    finally:
        _lose_power(host)


def _lose_power(host: Host) -> None:
    for argv in (
        ("nft", "flush", "ruleset"),
        ("ip", "link", "set", "eth0", "down"),
        ("ip", "address", "flush", "dev", "eth0"),
        ("conntrack", "--flush"),
    ):
        subprocess.run(host.network_command(argv), check=True, capture_output=True)
    for family in ("-4", "-6"):
        shown = subprocess.run(
            host.network_command(
                ["ip", family, "route", "show", "table", "local", "proto", "boot"]
            ),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for line in shown.splitlines():
            subprocess.run(
                host.network_command(
                    ["ip", family, "route", "del", "table", "local", *line.split()]
                ),
                check=False,
                capture_output=True,
            )


class Witness:
    """Packets in clear that have left the machine's cable."""

    def __init__(self, lines: Path) -> None:
        self._lines = lines

    def leaks(self) -> list[str]:
        """All so far; tcpdump writes each line at once."""
        time.sleep(0.3)
        # an ended tcpdump leaves an empty line
        return [line for line in self._lines.read_text().splitlines() if line]


@contextmanager
def witness(lab: Lab, directory: Path, *relays: str) -> Iterator[Witness]:
    """tcpdump on the far end of the cable: all but ARP, neighbour discovery, and TCP to relays.

    Args:
        lab: whose host.
        directory: for its files.
        relays: networks besides the lab's relays to which tor may connect.

    """
    internet = lab.hosts["internet"]
    address = _mac(lab.hosts["host"])
    harmless = [
        "arp",
        "(icmp6 and (ip6[40] == 135 or ip6[40] == 136))",
        *(f"(dst host {a} and tcp dst port {p})" for a, p in lab.relays),
        *(f"(dst net {a} and tcp)" for a in relays),
    ]
    expression = f"ether src {address} and not ({' or '.join(harmless)})"
    argv = ["tcpdump", "-i", lab.host_link, "-n", "-tt", "-l", "--immediate-mode", "-Z", "root"]
    lines, errors = directory / "lines", directory / "errors"
    with (
        lines.open("w") as out,
        errors.open("w") as complaints,
        subprocess.Popen(
            internet.network_command([*argv, "-s", "512", "-B", "32768", expression]),
            stdout=out,
            stderr=complaints,
        ) as tcpdump,
    ):
        try:
            deadline = time.monotonic() + 10
            while "listening on" not in errors.read_text():
                assert tcpdump.poll() is None, errors.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield Witness(lines)
        finally:
            tcpdump.terminate()


def _mac(host: Host) -> str:
    words = subprocess.run(
        host.network_command(["ip", "-brief", "link", "show", "dev", "eth0"]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return next(word for word in words if word.count(":") == 5)
