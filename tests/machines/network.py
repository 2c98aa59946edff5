"""The network of a lab's host, put back as it was after a machine has used it.

NetworkManager and the like take over interfaces that they find; the lab is every test's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from onionward.lab import Host, render
from onionward.lab.topology import MACHINES

_SETTINGS = r"^net\.ipv[46]\.(conf|ip_|ping|tcp|icmp)"
# each write to these goes to all interfaces
_FOR_ALL = ("net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding")


@contextmanager
def left_as_found(host: Host) -> Iterator[None]:
    """Whatever happens inside, the host's settings, addresses and routes are as before."""
    settings, links = _settings(host), _links(host)
    try:
        yield
    finally:
        now = _settings(host)
        changed = [k for k, v in settings.items() if k in now and now[k] != v]
        for name in sorted(changed, key=_FOR_ALL.__contains__, reverse=True):
            _run(host, "sysctl", "-q", "-w", f"{name}={settings[name]}")
        if _links(host) != links:
            (machine,) = (m for m in MACHINES if m.name == host.name)
            _run(host, "ip", "link", "set", "eth0", "down")
            _run(host, "ip", "address", "flush", "dev", "eth0")
            _run(host, "ip", "-batch", "-", stdin=render.machine_links(machine))


def _settings(host: Host) -> dict[str, str]:
    text = _run(host, "sysctl", "--all", "--ignore", "--pattern", _SETTINGS)
    pairs = (line.partition(" = ") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def _links(host: Host) -> str:
    """Addresses and routes of the uplink, but for those that routers announce."""
    shown = (
        ("-oneline", "address", "show", "dev", "eth0"),
        ("-4", "route", "show", "dev", "eth0"),
        ("-6", "route", "show", "dev", "eth0"),
    )
    return "".join(_run(host, "ip", *argv) for argv in shown)


def _run(host: Host, *argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        host.network_command(argv), input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout
