"""The witness: tcpdump on the far end of the host's wire, and what it must not see there.

Frames are taken in one direction only, from the host. Nothing is filtered while capturing: the
filters are applied to the file, so that a filter can never hide a frame from the record. (With the
filter `inbound` instead of `-Q in`, libpcap 1.10 loses the first frame.)
"""

from __future__ import annotations

import contextlib
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onionward.errors import LabError
from onionward.leaks.packets import UNSPECIFIED4
from onionward.system import DIES_WITH_US

_READY_SECONDS = 10.0
_DRAIN_SECONDS = 10.0
_STILL = 3
_BUSY = 10
_JUMBO = 9216  # bytes
_COUNTS = re.compile(
    r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped"
)


HOUSEKEEPING = (
    # routers are looked for, and told of
    "icmp6 and (ip6[40] = 133 or ip6[40] = 134)",
    # groups that the kernel listens to
    "ip6[6] = 0 and ip6[48] = 143",
    "igmp",
)
"""Filters of what the kernel of a machine that is not routed says by itself."""


@dataclass(frozen=True)
class Packet:
    """One frame as the witness tells it: when, and tcpdump's words."""

    time: float
    words: str

    def __str__(self) -> str:
        return f"{self.time:.6f} {self.words}"


@dataclass(frozen=True)
class Exempt:
    """What a routed machine may put on its wire.

    Args:
        relays: address and port of every Tor relay that tor may talk to.
        networks6: the IPv6 networks of the link, for neighbour discovery.
        dhcp: the addresses that a DHCP client may ask from.
        others: filters of what those send who are not routed.

    """

    relays: tuple[tuple[str, int], ...] = ()
    networks6: tuple[str, ...] = ()
    dhcp: tuple[str, ...] = (UNSPECIFIED4,)
    others: tuple[str, ...] = ()

    def filter(self) -> str:
        """The frames that are no escape, in the language of pcap-filter(7)."""
        on_link = " or ".join(
            f"dst net {network}" for network in ("fe80::/10", "ff02::/16", *self.networks6)
        )
        askers = " or ".join(f"src host {address}" for address in self.dhcp)
        parts = [
            "(arp and len <= 60)",
            f"(icmp6 and (ip6[40] = 135 or ip6[40] = 136) and ip6[7] = 255 and ({on_link}))",
            f"(udp and src port 68 and dst port 67 and dst host 255.255.255.255 and ({askers}))",
            *(f"(tcp and dst host {host} and dst port {port})" for host, port in self.relays),
            *(f"({other})" for other in self.others),
        ]
        return " or ".join(parts)

    def escaped(self) -> str:
        """The frames that are an escape."""
        return f"not ({self.filter()})"


@dataclass(frozen=True)
class Capture:
    """A finished capture file."""

    path: Path

    def packets(self, expression: str, *, since: float = 0.0) -> tuple[Packet, ...]:
        """The frames that match a filter, from a moment on."""
        argv = ["tcpdump", "-r", str(self.path), "-n", "-e", "-tt", "-K", expression]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"tcpdump does not understand {expression!r}", done.stderr.strip())
        found = []
        for line in done.stdout.splitlines():
            stamp, _, words = line.partition(" ")
            with contextlib.suppress(ValueError):
                found.append(Packet(float(stamp), words))
        return tuple(packet for packet in found if packet.time >= since)

    def count(self, expression: str, *, since: float = 0.0) -> int:
        """How many frames match a filter."""
        return len(self.packets(expression, since=since))


def _last_moment(data: bytes) -> float:
    """When the last frame of a capture file was seen (pcap-savefile(5)); 0 without frames."""
    place, found = 24, 0.0
    while place + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack_from("=IIII", data, place)
        place += 16 + length
        found = seconds + fraction / 1e6
    return found


class _Running:
    """A tcpdump that captures."""

    def __init__(self, process: subprocess.Popen[str], path: Path, log: Path) -> None:
        self._process = process
        self._path = path
        self._log = log

    def _words(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while "listening on" not in self._words():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError("tcpdump does not capture", self._words().strip())
            time.sleep(0.005)

    def _ask(self) -> tuple[int, int]:
        """How many packets are written and how many the kernel has seen."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        before = len(_COUNTS.findall(self._words()))
        self._process.send_signal(signal.SIGUSR1)
        while len(found := _COUNTS.findall(self._words())) == before:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise LabError("tcpdump does not answer", self._words().strip()[-500:])
            time.sleep(0.005)
        captured, received, dropped = map(int, found[-1])
        if dropped:
            raise LabError(f"tcpdump lost {dropped} packets")
        return captured, received

    def drain(self) -> None:
        """Wait until everything that the kernel has seen is written."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        began = time.time()
        answers: list[tuple[int, int]] = []
        while time.monotonic() < deadline:
            # the kernel counts both directions, so the two numbers differ; what is still to be
            # written makes the first one grow
            answers.append(self._ask())
            if len(answers) >= _STILL and len(set(answers[-_STILL:])) == 1:
                return
            # a wire that is never still: what is newer has been written already
            if len(answers) % _BUSY == 0 and _last_moment(self._path.read_bytes()) > began:
                return
            time.sleep(0.03)
        raise LabError("tcpdump does not keep up", self._words().strip()[-500:])

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Witness:
    """Watches one end of a wire.

    Args:
        device: the end of the wire that leads to the host.
        directory: where capture files are written.
        namespace: a process in the network namespace of that device; None for one's own.
        enter: what else leads to where the device is, instead; a command up to its `--`.
        direction: "in" at the far end of the wire, "out" at the machine's own.
        longest: bytes of a frame that are kept; 0 for all. The buffer is cut into pieces of this
            size, so with long ones it holds few frames, and a burst overflows it.

    """

    def __init__(
        self,
        device: str,
        directory: Path,
        *,
        namespace: int | None = None,
        enter: Sequence[str] = (),
        direction: Literal["in", "out"] = "in",
        longest: int = _JUMBO,
    ) -> None:
        self._device = device
        self._directory = directory
        self._enter = tuple(enter)
        if namespace is not None:
            self._enter = ("nsenter", f"--net=/proc/{namespace}/ns/net", "--")
        self._direction = direction
        self._longest = longest
        self._taken = 0

    @contextlib.contextmanager
    def watch(self, name: str) -> Iterator[Capture]:
        """Capture while the block runs; the file is complete when it ends.

        Raises:
            LabError: tcpdump did not start, or lost packets.

        """
        self._taken += 1
        path = self._directory / f"{name}-{self._taken}.pcap"
        log = path.with_suffix(".log")
        argv = [*DIES_WITH_US, *self._enter, "tcpdump", "-i", self._device]
        argv += ["-Q", self._direction, "-s", str(self._longest), "-n", "-U", "-Z", "root"]
        argv += ["--immediate-mode", "-B", "65536", "-w", str(path)]
        with log.open("w") as words:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words, text=True
            )
        running = _Running(process, path, log)
        try:
            running.wait_until_ready()
            yield Capture(path)
            running.drain()
        finally:
            running.stop()
