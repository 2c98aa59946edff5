"""A booted machine with accounts, and with services that act in the network for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onionward.lab import Lab
from tests.machines.machine import Machine, boot

PACKAGES = (
    *("systemd-sysv", "dbus", "dbus-broker", "python3", "procps", "acl", "iproute2", "nftables"),
    *("nscd", "systemd-resolved", "libnss-resolve", "avahi-daemon", "cups-daemon", "postfix"),
    *("iputils-ping", "libcap2-bin", "sudo", "uidmap"),
)
SERVICES = ("systemd-resolved", "nscd", "avahi-daemon", "cups")


@contextmanager
def furnished(lab: Lab, *services: str) -> Iterator[Machine]:
    """A machine with alice (61001), bob (61002) and some services."""
    with boot(lab.hosts["host"], PACKAGES) as machine:
        for name, uid in (("alice", 61001), ("bob", 61002)):
            machine.output("useradd", "--create-home", "--uid", str(uid), name)
        # the machine's network is the lab's: nothing of it is to be changed
        machine.write("/etc/avahi/avahi-daemon.conf", "[server]\nallow-interfaces=lo\n")
        if services:
            machine.start(*services)
        yield machine
