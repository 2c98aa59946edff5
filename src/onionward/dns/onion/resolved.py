"""systemd-resolved: a link of our own whose resolver is tor, for names under .onion only.

Servers in resolved.conf are asked for every other name too, whatever domains are set there. A link
is asked for its own domains alone, once it is no default route for names (resolvectl(1)). resolved
uses a link that is up, has a carrier and an address that is not of local scope; the ends of a veth
pair have a carrier without anything behind, and no program sends packets there. A link that
nothing is routed to carries nothing: tor is asked over loopback, because servers on loopback are
not bound to the link. systemd-resolved keeps these settings when it is restarted.
"""

from __future__ import annotations

import time
from pathlib import Path

from onionward.dns import service
from onionward.errors import CommandError, ResolverError
from onionward.system import System, temporary_name

LINK = "onionward"
_PEER = "onionward-peer"
# an address that resolved counts and that no packet outside of this machine can have
_ADDRESS = "127.0.0.95/32"
_PATIENCE = 5.0  # seconds for resolved to hear of the link
_LINKS = Path("/sys/class/net")
_UNMANAGED = Path("/run/systemd/network/00-onionward.network")
_UNMANAGED_TEXT = f"""\
# Written by onionward: the link is its own. Removed by `onionward down`.
[Match]
Name={LINK} {_PEER}

[Link]
Unmanaged=yes
"""


def is_present() -> bool:
    """Whether the link exists."""
    return (_LINKS / LINK).exists()


def has_told_networkd() -> bool:
    """Whether systemd-networkd was told of the link."""
    return _UNMANAGED.exists()


def apply(system: System, dns_port: int, *, networkd: bool) -> None:
    """Make the link and wait until systemd-resolved uses it.

    Args:
        system: the seam.
        dns_port: tor's DNSPort.
        networkd: whether systemd-networkd runs, which must not configure the link.

    Raises:
        ResolverError: resolved does not use it.
        CommandError: the link cannot be made.

    """
    if networkd:
        if not _UNMANAGED.parent.is_dir():
            system.make_directory(_UNMANAGED.parent)
        system.write_file(_UNMANAGED, _UNMANAGED_TEXT)
        system.change(["networkctl", "reload"])
    if not is_present():
        pair = ["type", "veth", "peer", "name", _PEER]
        system.change(["ip", "link", "add", "name", LINK, *pair])
    for name in (LINK, _PEER):
        # no address of its own making, no question to a neighbour
        system.change(["ip", "link", "set", "dev", name, "addrgenmode", "none"])
        system.change(["ip", "link", "set", "dev", name, "arp", "off", "up"])
    scope = ["scope", "global", "noprefixroute"]
    system.change(["ip", "address", "replace", _ADDRESS, "dev", LINK, *scope])
    for setting in _settings(dns_port):
        _set(system, setting)
    _wait_until_used(system)


def _settings(dns_port: int) -> tuple[tuple[str, ...], ...]:
    return (
        # first: from here on nothing but its domains is asked here
        ("default-route", LINK, "no"),
        ("llmnr", LINK, "no"),
        ("mdns", LINK, "no"),
        ("dnssec", LINK, "no"),
        ("dnsovertls", LINK, "no"),
        ("domain", LINK, "~onion"),
        ("dns", LINK, f"127.0.0.1:{dns_port}"),
    )


def _set(system: System, setting: tuple[str, ...]) -> None:
    """Set one thing; resolved hears of a new link only after a moment."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            system.change(["resolvectl", *setting])
        except CommandError as error:
            if time.monotonic() > deadline:
                raise ResolverError(
                    f"systemd-resolved does not take {' '.join(setting)}: {error.stderr.strip()}",
                    f"it has to know of the link {LINK}; see: resolvectl status {LINK}",
                ) from error
            time.sleep(0.1)
        else:
            return


def _wait_until_used(system: System) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _is_used(system.query(["resolvectl", "status", LINK])):
        if time.monotonic() > deadline:
            raise ResolverError(
                f"systemd-resolved does not use the link {LINK}",
                f"see what it lacks: resolvectl status {LINK}; ip address show {LINK}",
            )
        time.sleep(0.05)


def _is_used(status: str) -> bool:
    lines = [line.strip() for line in status.splitlines()]
    return any(line.startswith("Current Scopes:") and "DNS" in line.split() for line in lines)


def has_networkd_directory() -> bool:
    """Whether the directory exists in which systemd-networkd is told of the link."""
    return _UNMANAGED.parent.is_dir()


def restore(system: System, *, networkd: bool, directory: bool = True) -> None:
    """Remove the link, and with it what systemd-resolved knows of it.

    Args:
        system: the seam.
        networkd: whether systemd-networkd was told of the link.
        directory: what `has_networkd_directory` said before.

    """
    if is_present():
        # the other end goes with it
        system.change(["ip", "link", "delete", "dev", LINK])
    if networkd:
        system.remove_file(temporary_name(_UNMANAGED))
        system.remove_file(_UNMANAGED)
        if not directory and has_networkd_directory() and not any(_UNMANAGED.parent.iterdir()):
            system.remove_tree(_UNMANAGED.parent)
        # 1: networkd is gone meanwhile, so there is nobody to tell
        system.change(["networkctl", "reload"], accept=(0, 1))


def forget_resolv_conf(system: System) -> None:
    """Have it read resolv.conf again.

    It takes servers from a resolv.conf that is not its own, and keeps them when that file is
    replaced by its own or goes; they would even be written into its own. What links have been told
    it remembers over a restart.
    """
    service.restart_resolved(system)


def problem(system: System, dns_port: int, *, runs: bool) -> str:
    """What is no longer as `apply` left it, or "".

    Args:
        system: the seam.
        dns_port: tor's DNSPort.
        runs: whether systemd-resolved does; asking would start it.

    Raises:
        CommandError: systemd-resolved does not answer.

    """
    if not is_present():
        return f"the link {LINK}, by which systemd-resolved knows of .onion, is gone"
    if not runs:
        return "systemd-resolved, which was told of .onion, has ended"
    status = system.query(["resolvectl", "status", LINK])
    words = status.split()
    if _is_used(status) and "~onion" in words and f"127.0.0.1:{dns_port}" in words:
        return ""
    return f"systemd-resolved has lost what belongs to the link {LINK}"
