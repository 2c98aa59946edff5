"""The witness: tcpdump on the far end of a machine's cable to the uplink.

It writes down everything that the machine's network card sends, but for ARP, IPv6 neighbour
discovery and TCP to relays of the lab's Tor network, which is all that may leave a routed machine.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.lab.lifecycle_machine import Machine, end, until

# from the gateway to everybody on the link, answered by nobody: what came before it is written
_MARKER_PORT = 20000
_MARK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind((sys.argv[1], 0))
s.sendto(b"mark", (sys.argv[1].rpartition(".")[0] + ".255", int(sys.argv[2])))
"""


@dataclass(frozen=True)
class Packet:
    """One line of tcpdump."""

    time: float
    words: str


class Wire:
    """A context manager; `leaks` can be asked while it is open.

    Args:
        machine: whose cable.
        allowed: a further tcpdump expression of what is no leak, such as "host 198.18.0.3".

    """

    def __init__(self, machine: Machine, allowed: str = "") -> None:
        self._machine = machine
        self._internet = machine.lab.hosts["internet"]
        self._marks = 0
        address = machine.path("/sys/class/net/eth0/address").read_text().strip()
        relays = " or ".join(f"(dst host {a} and tcp dst port {p})" for a, p in machine.lab.relays)
        harmless = ["arp", "(icmp6 and (ip6[40] == 135 or ip6[40] == 136))", relays]
        harmless += [allowed] if allowed else []
        self._filter = (
            f"(ether src {address} and not ({' or '.join(harmless)})) or "
            f"(src host {machine.lab.router4} and udp dst portrange "
            f"{_MARKER_PORT}-{_MARKER_PORT + 999})"
        )

    def __enter__(self) -> Wire:
        self._directory = tempfile.TemporaryDirectory(prefix="lifecycle-wire-")
        self._lines = Path(self._directory.name, "lines")
        errors = Path(self._directory.name, "errors")
        argv = ["tcpdump", "-i", self._machine.link, "-n", "-tt", "-l", "-v"]
        # the buffer is cut into pieces as large as a packet may be: with few of them some are lost
        argv += ["--immediate-mode", "-Z", "root", "-s", "512", "-B", "32768", self._filter]
        with self._lines.open("w") as out, errors.open("w") as complaints:
            self._tcpdump = subprocess.Popen(
                self._internet.network_command(argv), stdout=out, stderr=complaints, text=True
            )
        until(
            "tcpdump listens",
            lambda: "listening on" in errors.read_text() or self._tcpdump.poll() is not None,
        )
        assert self._tcpdump.poll() is None, errors.read_text()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end(self._tcpdump)
        self._directory.cleanup()

    def packets(self, since: float = 0.0, before: float = float("inf")) -> list[Packet]:
        """What the host has sent in a span of time (seconds since 1970), all that has happened."""
        self._marks += 1
        port = _MARKER_PORT + self._marks
        gateway = self._machine.lab.router4
        subprocess.run(
            self._internet.network_command(
                ["python3", "-I", "-S", "-c", _MARK, gateway, str(port)]
            ),
            check=True,
        )
        until("the witness is up to date", lambda: f".255.{port}: " in self._lines.read_text())
        found: list[Packet] = []
        for line in self._lines.read_text().splitlines():
            if not line.startswith((" ", "\t")):
                stamp, _, words = line.partition(" ")
                found.append(Packet(float(stamp), words))
            elif found:
                found[-1] = Packet(found[-1].time, f"{found[-1].words} {line.strip()}")
        return [p for p in found if since <= p.time < before and f"{gateway}." not in p.words]

    def assert_silent(
        self, since: float = 0.0, before: float = float("inf"), where: str = ""
    ) -> None:
        """Nothing has left in clear in a span of time; `where` is for the message."""
        leaks = self.packets(since, before)
        shown = "\n".join(f"{p.time:.6f} {p.words}" for p in leaks[:20])
        assert not leaks, f"{where}: {len(leaks)} packets left in clear since {since:.6f}:\n{shown}"


def now() -> float:
    """The clock of the packets."""
    return time.time()
