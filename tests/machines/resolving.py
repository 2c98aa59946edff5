"""What the tests of name resolution share: a machine with tor, its answers, its files, its wire."""

from __future__ import annotations

import ipaddress
import json
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onionward.lab import Lab
from tests.machines import onion_names
from tests.machines.machine import PROJECT, Machine

VIRTUAL = (ipaddress.ip_network("127.192.0.0/10"), ipaddress.ip_network("fd5a:7011::/32"))
_TORRC = f"""
DataDirectory /var/lib/tor-of-the-test
RunAsDaemon 1
ClientOnly 1
SocksPort 0
PidFile /run/tor-of-the-test
DNSPort 127.0.0.1:{onion_names.DNS_PORT}
AutomapHostsOnResolve 1
VirtualAddrNetworkIPv4 {VIRTUAL[0]}
VirtualAddrNetworkIPv6 [{VIRTUAL[1].network_address}]/{VIRTUAL[1].prefixlen}
"""
# types, a name that does not exist, TCP, signatures asked for, a name in two parts
_QUESTIONS = (
    ("www.example.test", "A"),
    ("www.example.test", "AAAA"),
    ("alias.example.test", "A"),
    ("missing.example.test", "A"),
    ("example.test", "TXT"),
    ("example.test", "MX"),
    ("_http._tcp.example.test", "SRV"),
    ("v4.example.test", "A", "+dnssec"),
    ("v6.example.test", "AAAA", "+tcp"),
)


class Resolving:
    """A machine whose resolver is to be led.

    Args:
        lab: whose host's network it is in.
        machine: booted.
        wire: the capture of what it sends.

    """

    def __init__(self, lab: Lab, machine: Machine, wire: Path) -> None:
        self.lab = lab
        self.machine = machine
        self._wire = wire
        self._marks = 0
        self._seen = 0

    def start_tor(self) -> None:
        self.machine.write("/etc/torrc-of-the-test", _TORRC + self.lab.network_torrc.read_text())
        self.machine.output("tor", "--defaults-torrc", "/dev/null", "-f", "/etc/torrc-of-the-test")

    def stop_tor(self) -> None:
        pid = self.machine.path("/run/tor-of-the-test").read_text().strip()
        self.machine.output("kill", "-KILL", pid)
        deadline = time.monotonic() + 5
        while self.machine.path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def do(self, verb: str) -> Any:
        """One verb of `onionward.dns.onion` inside."""
        script = PROJECT / "tests/machines/onion_names.py"
        return json.loads(self.machine.output("python3", str(script), verb) or "null")

    def answers(self) -> dict[str, list[str]]:
        """What programs are told of names that are not under .onion, but for their lifetime."""
        found = {" ".join(question): self._dig(*question) for question in _QUESTIONS}
        # by the C library, with the search list
        for name in ("www.example.test", "v4", "missing.example.test", "localhost"):
            lines = self.machine.run("getent", "ahosts", name).stdout.splitlines()
            found[f"getent {name}"] = sorted({line.split()[0] for line in lines})
        assert lines_with(found["www.example.test A"], self.lab.web4)
        assert self.lab.web6 in found["getent www.example.test"]
        return found

    def _dig(self, name: str, kind: str, *options: str) -> list[str]:
        shown = ("+noall", "+comments", "+answer", "+nottlid", "+nocookie", "+tries=1", "+time=5")
        text = self.machine.run("dig", *shown, *options, name, kind).stdout
        # neither the number of the query, nor whether the answer was another's word
        kept = [line.partition(", id:")[0] for line in text.splitlines() if line]
        return sorted(line.replace(" aa ", " ") for line in kept)

    def addresses(self, name: str) -> list[str]:
        """What the C library gives for a name."""
        lines = self.machine.run("getent", "ahosts", name).stdout.splitlines()
        return sorted({line.split()[0] for line in lines})

    def assert_led(self, name: str) -> None:
        """A name under .onion is in both virtual networks."""
        found = [ipaddress.ip_address(address) for address in self.addresses(name)]
        assert len(found) == 2, found
        for address, network in zip(found, VIRTUAL, strict=True):
            assert address in network

    def dig_status(self, name: str) -> str:
        """How a single question ends: "NOERROR", "SERVFAIL", …, or "" without any answer."""
        done = self.machine.run("dig", "+noall", "+comments", "+tries=1", "+time=1", name)
        return done.stdout.partition("status: ")[2].partition(",")[0]

    def has_leaked(self) -> bool:
        """Whether a name under .onion was on the wire since the last time this was asked."""
        self._marks += 1
        mark = f"mark{self._marks}-of-the-test"
        self.machine.run("dig", "+tries=1", "+time=1", f"@{self.lab.dns4}", mark)
        deadline = time.monotonic() + 5
        while mark.encode() not in (captured := self._wire.read_bytes()):
            assert time.monotonic() < deadline, "the witness is blind"
            time.sleep(0.02)
        new, self._seen = captured[self._seen :], len(captured)
        return b"\x05onion\x00" in new.lower()

    def files(self, *directories: str) -> dict[str, list[object]]:
        """Kind, target, text, mode, owner and time of everything in these directories."""
        found: dict[str, list[object]] = {}
        for directory in directories:
            top = self.machine.path(directory)
            for path in sorted([top, *top.iterdir()]) if top.exists() else ():
                status = path.lstat()
                known: list[object] = [oct(status.st_mode), status.st_uid, status.st_gid, ""]
                if stat.S_ISLNK(status.st_mode):
                    known[3] = str(path.readlink())
                elif stat.S_ISREG(status.st_mode):
                    known = [*known, status.st_mtime_ns, path.read_bytes()]
                found[f"{directory}/{path.name}" if path != top else directory] = known
        return found

    def links(self) -> str:
        """Network links and addresses, but for those of the lab."""
        return self.machine.output("ip", "-brief", "address", "show")


def lines_with(lines: list[str], word: str) -> list[str]:
    return [line for line in lines if word in line]


@contextmanager
def resolving(lab: Lab, machine: Machine) -> Iterator[Resolving]:
    """Tor runs in the machine, tcpdump on the far end of its cable."""
    with tempfile.TemporaryDirectory(prefix="machine-wire-") as directory:
        wire, words = Path(directory, "wire"), Path(directory, "words")
        argv = ["tcpdump", "-i", lab.host_link, "-n", "-U", "-Z", "root", "--immediate-mode"]
        argv += ["-w", str(wire), "port 53 or (udp and not port 443)"]
        with words.open("w") as errors:
            tcpdump = subprocess.Popen(lab.hosts["internet"].network_command(argv), stderr=errors)
        try:
            deadline = time.monotonic() + 5
            while "listening on" not in words.read_text():
                assert time.monotonic() < deadline, words.read_text()
                time.sleep(0.02)
            one = Resolving(lab, machine, wire)
            one.start_tor()
            yield one
        finally:
            tcpdump.terminate()
            tcpdump.wait()
