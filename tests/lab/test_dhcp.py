"""DHCP goes on while the machine is routed: a real client, a real server, the block and the route.

internet ── uplink0 (dnsmasq) ── eth0 host (dhclient)
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine

_RANGE = "198.18.0.100,198.18.0.120,255.255.255.0,1h"


@pytest.fixture
def dhcp_server(lab: Lab, tmp_path: Path) -> Iterator[None]:
    argv = ["dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null"]
    argv += [f"--interface={lab.uplink}", f"--dhcp-range={_RANGE}", "--dhcp-authoritative"]
    argv += [f"--dhcp-leasefile={tmp_path}/leases", "--user=root", "--log-facility=-"]
    argv += [f"--pid-file={tmp_path}/pid"]
    server = subprocess.Popen(
        lab.hosts["internet"].command(argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert server.stderr
    for line in server.stderr:
        if b"DHCP, IP range" in line:
            break
    else:
        pytest.fail("dnsmasq does not serve DHCP")
    yield
    pid = (tmp_path / "pid").read_text().strip()
    subprocess.run(lab.hosts["internet"].command(["kill", pid]), check=True, timeout=10)
    server.communicate(timeout=10)


def _ask(lab: Lab, directory: Path, seconds: int = 20) -> str:
    """One lease, without putting it on the interface."""
    argv = ["timeout", str(seconds), "dhclient", "-4", "-1", "-v", "-sf", "/bin/true"]
    argv += ["-lf", f"{directory}/dhclient.leases", "-pf", f"{directory}/dhclient.pid", "eth0"]
    done = subprocess.run(
        lab.hosts["host"].command(argv), capture_output=True, text=True, timeout=60, check=False
    )
    subprocess.run(lab.hosts["host"].command(["pkill", "-x", "dhclient"]), check=False, timeout=10)
    return done.stderr


def test_a_lease_is_given_while_routed(lab: Lab, dhcp_server: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    subprocess.run(lab.hosts["host"].command(["onionward", "up"]), check=True, timeout=120)
    try:
        assert "DHCPACK of 198.18.0.1" in _ask(lab, tmp_path)
    finally:
        subprocess.run(lab.hosts["host"].command(["onionward", "down"]), check=True, timeout=120)


def test_without_its_rule_there_is_no_lease(lab: Lab, dhcp_server: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    host = lab.hosts["host"]
    subprocess.run(host.command(["onionward", "up"]), check=True, timeout=120)
    try:
        # it would put the rule back
        Machine(lab, "host").end_guard()
        flush = ["nft", "flush", "chain", "netdev", "onionward_l2", "egress"]
        subprocess.run(host.command(flush), check=True, timeout=10)
        assert "DHCPACK" not in _ask(lab, tmp_path, 6)
    finally:
        subprocess.run(host.command(["onionward", "down"]), check=True, timeout=120)
