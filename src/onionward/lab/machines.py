"""The namespaces of a lab: `internet`, and the machines around it, connected and furnished."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from onionward.lab import host as hosts
from onionward.lab import render
from onionward.lab.host import Host
from onionward.lab.topology import (
    ACCOUNTS,
    GATEWAY,
    LAN,
    MACHINES,
    NEIGHBOUR,
    Machine,
    TorNetwork,
)
from onionward.system import System

_NO_DAD = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
_BATCH = ("ip", "-batch", "-")


def set_up_internet(system: System, internet: Host, network: TorNetwork) -> None:
    """Give `internet` its addresses, the uplink without machines, and directories of its own.

    Args:
        system: the seam.
        internet: started.
        network: whose addresses to answer for.

    Raises:
        CommandError: a command failed.

    """
    forward = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    _set(system, internet, *_NO_DAD, *forward)
    _batch(system, internet, render.internet_links(network))
    hosts.furnish(system, internet)


def build(
    system: System, pool: ThreadPoolExecutor, directory: Path, internet: Host, torrc: str
) -> dict[str, Host]:
    """Start the machines, connect them, and give them files; returns them by name.

    Args:
        system: the seam.
        pool: does what can be done at once.
        directory: the lab's.
        internet: set up.
        torrc: what makes a client use the lab's Tor network.

    Raises:
        LabError: a machine cannot be started.
        CommandError: a command failed.

    """

    def start(machine: Machine) -> tuple[str, Host]:
        host = hosts.start(directory, machine.name)
        # before there are links; a new namespace forwards IPv4 when the machine itself does
        _set(system, host, *_NO_DAD, "net.ipv4.ip_forward=0")
        if machine.link is LAN:
            # they have the addresses that they are known by, whatever a gateway announces
            _set(system, host, "net.ipv6.conf.default.accept_ra=0")
        return machine.name, host

    def furnish(machine: Machine) -> None:
        host = made[machine.name]
        _batch(system, host, render.machine_links(machine))
        covered = ("/etc",) if machine is NEIGHBOUR else ("/etc", "/var")
        hosts.furnish(system, host, covered=covered)
        _write_files(system, host, machine, torrc)

    made = dict(pool.map(start, MACHINES))
    _connect(system, internet, made)
    list(pool.map(furnish, MACHINES))
    return made


def _connect(system: System, internet: Host, made: Mapping[str, Host]) -> None:
    # no link of ours ever is in the machine's own network namespace
    pids = {name: host.pid for name, host in made.items()}
    _batch(system, internet, render.internet_cables(pids))
    _batch(system, made[GATEWAY.name], render.gateway_links(pids))


def _write_files(system: System, host: Host, machine: Machine, torrc: str) -> None:
    etc, own = host.root / "etc", host.root / "run/onionward-lab"
    system.write_file(etc / "resolv.conf", render.resolv_conf(machine.resolver))
    system.write_file(own / "network.torrc", torrc)
    system.make_directory(etc / "onionward")
    system.write_file(etc / "onionward/onionward.toml", render.onionward_toml())
    system.write_file(etc / "hosts", render.etc_hosts(machine))
    # accounts that are made in the lab leave nothing in the machine's own /home (useradd(8))
    system.write_file(etc / "default/useradd", render.useradd_defaults())
    if machine.accounts:
        _add_accounts(system, host)


def _add_accounts(system: System, host: Host) -> None:
    for name, lines in render.account_files(ACCOUNTS).items():
        path = host.root / "etc" / name
        secret = name in ("shadow", "gshadow")
        text = path.read_text() if path.exists() else ""
        group = path.stat().st_gid if path.exists() else 0
        mode = 0o640 if secret else 0o644
        system.write_file(path, render.with_lines(text, lines), mode=mode, owner=(0, group))
    for account in ACCOUNTS:
        home = host.root / account.home.removeprefix("/")
        system.make_directory(home, mode=0o700, owner=(account.uid, account.uid))


def _set(system: System, host: Host, *settings: str) -> None:
    system.change(host.network_command(["sysctl", "-q", "-w", *settings]))


def _batch(system: System, host: Host, text: str) -> None:
    system.change(host.network_command(_BATCH), stdin=text)
