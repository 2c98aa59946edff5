"""From Enter to blocked: `onionward up` until its first rules are in force.

    python tests/benchmark_up.py [RUNS]

Over the bare interpreter's start, in pairs, on a machine of a lab. `nft monitor` tells when the
kernel has the rules.
"""

from __future__ import annotations

import ipaddress
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from onionward.lab import Host, Lab, build, destroy
from onionward.system import System

_CONFIG = "/etc/onionward/benchmark.toml"


def bypassed(count: int) -> str:
    """A configuration with so many networks, none of which can be merged."""
    first = int(ipaddress.ip_address("10.0.0.0"))
    networks = (f'"{ipaddress.IPv4Network((first + 8 * n, 30))}"' for n in range(count))
    return "[host]\n[bypass]\nnetworks = [\n" + ",\n".join(networks) + "\n]\n"


CASES = {
    "host": ("host", "[host]\n", 0.100),
    "host, 10,000 bypassed networks": ("host", bypassed(10_000), 0.300),
    "clients of a LAN": ("gateway", '[[lan]]\ninterface = "eth1"\n', 0.150),
    "one account": ("gateway", '[[user]]\nname = "alice"\naccept = ["setuid"]\n', 0.500),
}


def until_blocked(host: Host) -> float:
    """Seconds from starting `up` to the first rules; the machine is off afterwards."""
    monitor = subprocess.Popen(
        host.command(["stdbuf", "-oL", "nft", "monitor", "new", "chains"]),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert monitor.stdout is not None
    time.sleep(0.3)  # it has subscribed by then
    start = time.perf_counter()
    up = subprocess.Popen(
        host.command(["onionward", "--config", _CONFIG, "up"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = monitor.stdout.readline()
        taken = time.perf_counter() - start
        assert "onionward" in line, line
    finally:
        monitor.kill()
        monitor.communicate()
        _, errors = up.communicate()
        subprocess.run(host.command(["onionward", "down"]), capture_output=True, check=True)
    assert up.returncode == 0, errors
    return taken


def bare(host: Host) -> float:
    """Seconds of an interpreter that does nothing."""
    start = time.perf_counter()
    subprocess.run(host.command([sys.executable, "-c", "pass"]), check=True)
    return time.perf_counter() - start


def over_bare(lab: Lab, name: str, config: str, runs: int) -> Sequence[float]:
    """Seconds over the bare interpreter, one for each pair."""
    host = prepared(lab, name, config)
    return [until_blocked(host) - bare(host) for _ in range(runs)]


def prepared(lab: Lab, name: str, config: str) -> Host:
    """A host that has this configuration, and has done it once."""
    host = lab.hosts[name]
    network = (host.root / "etc/onionward/onionward.toml").read_text()
    (host.root / _CONFIG.lstrip("/")).write_text(f"{config}{network}")
    until_blocked(host)  # compiled, in the page cache, and with an account for tor
    return host


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    name = f"bench-{os.getpid()}"
    lab = build(System(), name=name)
    try:
        sys.stdout.write(f"{'`up` to blocked, ms over python':34}{'best':>8}{'median':>8}\n")
        for what, (host, config, target) in CASES.items():
            taken = over_bare(lab, host, config, runs)
            best, median = min(taken) * 1000, statistics.median(taken) * 1000
            verdict = "" if best <= target * 1000 else f"   more than {target * 1000:.0f}"
            sys.stdout.write(f"{what:34}{best:8.0f}{median:8.0f}{verdict}\n")
            sys.stdout.flush()
    finally:
        destroy(System(), name)


if __name__ == "__main__":
    main()
