"""What the tests of resolver managers share: DHCP in the lab, a wire, and a machine to route."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onionward.lab import Lab
from tests.machines.machine import Machine
from tests.machines.resolving import VIRTUAL, Resolving

CONFIG = '[host]\nroute = "tor"\n[tor]\nnetwork = "/etc/onionward/network.torrc"\n'
# whatever asks for names, or answers for them, in clear
_NAMES = "port 53 or port 853 or port 5353 or port 5355 or port 137"


@contextmanager
def dhcp(lab: Lab, server: str) -> Iterator[None]:
    """A DHCP server on the uplink that gives away one address and names one name server."""
    with tempfile.TemporaryDirectory(prefix="machine-dhcp-") as directory:
        Path(directory).chmod(0o755)
        argv = ["dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null"]
        argv += [f"--interface={lab.uplink}", "--bind-dynamic", "--dhcp-authoritative"]
        argv += [f"--dhcp-range={lab.host4},{lab.host4},255.255.255.0,10m", "--no-ping"]
        argv += [f"--dhcp-option=option:router,{lab.router4}", "--user=root", "--log-facility=-"]
        argv += [f"--dhcp-option=option:dns-server,{server}", "--domain=example.test"]
        argv += [f"--dhcp-leasefile={directory}/leases", f"--pid-file={directory}/pid"]
        command = lab.hosts["internet"].command(argv)
        serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            assert serving.stderr
            assert any(b"DHCP, IP range" in line for line in serving.stderr)
            yield
        finally:
            pid = Path(directory, "pid").read_text().strip()
            subprocess.run(lab.hosts["internet"].command(["kill", pid]), check=True, timeout=10)
            serving.communicate(timeout=10)


class Managed(Resolving):
    """A machine that is routed by the program itself."""

    def onionward(self, *argv: str) -> str:
        done = self.machine.onionward(*argv, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.machine.onionward("status", "--json").stdout)
        return report

    def saved(self) -> dict[str, Any]:
        """What the journal has of the resolver."""
        journal = json.loads(self.machine.path("/var/lib/onionward/journal.json").read_text())
        saved: dict[str, Any] = journal["undo"]["resolver"]
        return saved

    def assert_routed(self, *ways: str) -> None:
        """Names resolve, and through Tor: only it knows where names under .onion are.

        Args:
            ways: "resolvectl" asks systemd-resolved over D-Bus, "stub" its port on loopback.

        """
        assert self.lab.web4 in self.addresses("v4.example.test")
        self.assert_led(f"www.{self.lab.onion}")
        if "resolvectl" in ways:
            for name, address in (
                ("www.example.test", self.lab.web4),
                (self.lab.onion, str(VIRTUAL[0].network_address)[:4]),
            ):
                assert address in self.machine.output("resolvectl", "query", "-4", name)
        if "stub" in ways:
            found = self.machine.output("dig", "+short", "@127.0.0.53", "v4.example.test")
            assert self.lab.web4 in found

    def queries(self) -> list[str]:
        """What of names this machine has sent since the last time this was asked, in words."""
        self._marks += 1
        # it comes from the far side: a packet of the machine's own would not get there
        port = 30000 + self._marks
        send = (
            "import socket; s = socket.socket(2, 2); "
            f"s.bind(('{self.lab.router4}', {port})); s.sendto(b'mark', ('{self.lab.host4}', 53))"
        )
        internet = self.lab.hosts["internet"]
        subprocess.run(internet.network_command(["python3", "-c", send]), check=True, timeout=10)
        deadline = time.monotonic() + 5
        mark = f"{self.lab.router4}.{port} > {self.lab.host4}.53"
        lines = _decoded(self._wire)
        while not any(mark in line for line in lines):
            assert time.monotonic() < deadline, "the witness is blind"
            time.sleep(0.05)
            lines = _decoded(self._wire)
        new, self._seen = lines[self._seen :], len(lines)
        return [
            line
            for line in new
            if f" {self.lab.host4}." in line.partition(">")[0]
            or f" {self.lab.host6}." in line.partition(">")[0]
            or "fe80::" in line
        ]


def _decoded(wire: Path) -> list[str]:
    argv = ["tcpdump", "-n", "-r", str(wire), _NAMES]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


@contextmanager
def managed(lab: Lab, machine: Machine) -> Iterator[Managed]:
    """A configuration in the machine, tcpdump on the far end of its cable."""
    machine.write("/etc/onionward/network.torrc", lab.network_torrc.read_text())
    machine.write("/etc/onionward/onionward.toml", CONFIG)
    with tempfile.TemporaryDirectory(prefix="machine-wire-") as directory:
        wire, words = Path(directory, "wire"), Path(directory, "words")
        argv = ["tcpdump", "-i", lab.host_link, "-n", "-U", "-Z", "root", "--immediate-mode"]
        argv += ["-w", str(wire), _NAMES]
        with words.open("w") as errors:
            tcpdump = subprocess.Popen(lab.hosts["internet"].network_command(argv), stderr=errors)
        try:
            deadline = time.monotonic() + 5
            while "listening on" not in words.read_text():
                assert time.monotonic() < deadline, words.read_text()
                time.sleep(0.02)
            yield Managed(lab, machine, wire)
        finally:
            # the rules are in the lab's network, which is every test's
            machine.onionward("down", "--force", timeout=120)
            tcpdump.terminate()
            tcpdump.wait()


def swept() -> bool:
    """Whether the whole sweep is asked for."""
    return "ONIONWARD_SWEEP" in os.environ
