"""Full DNS where systemd runs the machine: what starts unbound again is the guard's service."""

from __future__ import annotations

import time

from onionward.lab import Lab
from tests.machines.machine import boot
from tests.machines.test_guard import is_whole, until
from tests.machines.tree import PACKAGES

CONFIG = """
[tor]
network = "/etc/onionward/network.torrc"
dns = "full"
dnssec = false
resolvers = ["198.18.53.1"]
"""


def test_the_service_starts_unbound_again(lab: Lab) -> None:
    def answer() -> str:
        return machine.run("dig", "+short", "+timeout=20", "example.test", "MX").stdout.strip()

    with boot(lab.hosts["host"], PACKAGES) as machine:
        machine.write("/etc/resolv.conf", f"nameserver {lab.dns4}\n")
        machine.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
        machine.write("/etc/onionward/onionward.toml", CONFIG)
        # the system's own has no part in it
        machine.run("systemctl", "stop", "unbound")
        done = machine.onionward("up")
        assert done.returncode == 0, done.stderr
        assert answer() == "10 www.example.test."
        machine.output("pkill", "-KILL", "-x", "unbound")
        time.sleep(0.5)
        until("unbound is started again", lambda: is_whole(machine))
        assert answer() == "10 www.example.test."
        done = machine.onionward("down")
        assert done.returncode == 0, done.stderr
        assert machine.run("pgrep", "-x", "unbound").stdout == ""
