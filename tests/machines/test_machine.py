"""The harness itself: a machine is clean, in its host's network, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onionward.lab import Host, Lab
from tests.machines.machine import PROJECT, PYTHONPATH, boot
from tests.machines.tree import CACHE

# boots, says so, and is killed then
_VICTIM = """
import sys, time
from onionward.lab import Host
from tests.machines.machine import boot
with boot(Host("host", int(sys.argv[1]))) as machine:
    print(machine.leader, flush=True)
    time.sleep(60)
"""


def remains(owner: int) -> list[str]:
    """What a process that boots machines has left."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    trees = [
        Path(p) for p in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
    ]
    places = [*trees, Path("/run/systemd/nspawn/propagate"), Path(tempfile.gettempdir())]
    name = f"onionward-machine-{owner}-"
    found = [str(path) for place in places for path in place.glob(f"{name}*")]
    return found + [line for line in mounts if name in line or "nspawn" in line]


def test_a_machine_is_clean_and_leaves_nothing(lab: Lab) -> None:
    host = lab.hosts["host"]
    network = network_of(host)
    with boot(host) as machine:
        leader = machine.leader
        assert machine.output("systemctl", "is-system-running") == "running\n"
        assert machine.output("cat", "/proc/1/comm") == "systemd\n"
        assert lab.host4 in machine.output("ip", "-brief", "address")
        assert machine.onionward("--version").returncode == 0
        assert machine.output("id", "-u", user="nobody") == "65534\n"
        machine.write("/etc/left-behind", "")
        machine.output("sysctl", "-q", "-w", "net.ipv4.conf.eth0.send_redirects=0")
        machine.output("ip", "address", "flush", "dev", "eth0")
        assert machine.run("touch", str(PROJECT / "README.md")).returncode == 1
    assert not Path(f"/proc/{leader}").exists()
    assert list(CACHE.glob("*/etc/left-behind")) == []
    assert remains(os.getpid()) == []
    assert network_of(host) == network


def network_of(host: Host) -> str:
    """Addresses, routes and one setting of a host, as they are shown."""
    shown = "ip -br address; ip route; ip -6 route; sysctl net.ipv4.conf.eth0.send_redirects"
    return subprocess.run(
        host.network_command(["sh", "-c", shown]), capture_output=True, text=True, check=True
    ).stdout


def test_a_machine_ends_with_the_tests_that_booted_it(lab: Lab) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(lab.hosts["host"].pid)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    ) as victim:
        assert victim.stdout is not None
        leader = Path("/proc", victim.stdout.readline().strip())
        assert leader.exists()
        victim.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while leader.exists():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)
    with boot(lab.hosts["host"]):
        assert remains(victim.pid) == []
