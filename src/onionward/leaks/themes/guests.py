"""Frames of machines that share the uplink: their sockets have no owner that the host knows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Vector
from onionward.leaks.settings import device, ip_batch

# runs in a network of its own, does what it is told, and stays until its input ends
_GUEST = """
import socket, subprocess, sys
def say(word):
    sys.stdout.write(word + "\\n")
    sys.stdout.flush()
say("here")
name = sys.stdin.readline().strip()
subprocess.run(["ip", "link", "set", name, "up"], check=True)
say("up")
frame = bytes.fromhex(sys.stdin.readline())
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
    sock.bind((name, 0))
    try:
        sock.send(frame)
    except OSError:
        pass  # the host has dropped it
say("sent")
sys.stdin.readline()
"""

_SLOW_PROTOCOLS = "01:80:c2:00:00:02"
_LONG = 50  # repetitions of the payload
_PATIENCE = 5.0

Link = Callable[[Attempt, int], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def _by_macvlan(attempt: Attempt, pid: int) -> Iterator[str]:
    """The guest has a macvlan of the uplink; yields the name that it has there."""
    name, uplink = attempt.device, attempt.targets.device
    ip_batch(
        f"link add {name} link {uplink} netns {pid} address {attempt.hardware}"
        " type macvlan mode bridge"
    )
    yield name  # it goes with the guest


@contextlib.contextmanager
def _by_bridge(attempt: Attempt, pid: int) -> Iterator[str]:
    """The guest and the uplink are ports of one bridge."""
    name, port, uplink = attempt.device, f"{attempt.device}o", attempt.targets.device
    inside = f"{attempt.device}i"
    with (
        device(
            port,
            f"link add {port} type veth peer name {inside} address {attempt.hardware} netns {pid}",
        ),
        device(
            name,
            f"link add {name} type bridge",
            f"link set {port} master {name}",
            f"link set {name} up",
            f"link set {port} up",
            f"link set {uplink} master {name}",
        ),
    ):
        try:
            yield inside
        finally:
            ip_batch(f"link set {uplink} nomaster")


class _Guest:
    """A process with a network of its own."""

    def __init__(self) -> None:
        argv = ["unshare", "--net", "--", sys.executable, "-I", "-c", _GUEST]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def expect(self, word: str) -> None:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line.strip() != word:
            raise RuntimeError(f"the guest is not {word}: {line!r}")

    def tell(self, line: str) -> None:
        if self._process.stdin:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def wait_until_forwarding(port: str) -> None:
    """A port of a bridge takes a moment; what is none has nothing to wait for."""
    state = Path(f"/sys/class/net/{port}/brport/state")
    deadline = time.monotonic() + _PATIENCE
    while state.exists() and state.read_text().strip() != "3":
        if time.monotonic() > deadline:
            raise RuntimeError(f"{port} does not forward")
        time.sleep(0.01)


def _guest_sends(link: Link, kind: int, to: str, repetitions: int) -> Probe:
    def probe(attempt: Attempt) -> None:
        target = to or attempt.targets.far_mac
        frame = packets.ethernet(attempt.hardware, target, kind, attempt.payload * repetitions)
        guest = _Guest()
        try:
            guest.expect("here")
            with link(attempt, guest.pid) as name:
                guest.tell(name)
                guest.expect("up")
                for port in (f"{attempt.device}o", attempt.targets.device):
                    wait_until_forwarding(port)
                guest.tell(frame.hex())
                guest.expect("sent")
        finally:
            guest.end()

    return probe


_FRAMES: tuple[tuple[str, str, int, str, int], ...] = (
    ("eapol", "802.1X", 0x888E, "", 1),
    ("eapol-long", "802.1X with a letter inside", 0x888E, "", _LONG),
    ("preauth", "802.11 pre-authentication", 0x88C7, "", 1),
    ("preauth-long", "802.11 pre-authentication with a letter inside", 0x88C7, "", _LONG),
    ("slow", "link aggregation to a host", 0x8809, "", 1),
    ("slow-long", "link aggregation with a letter inside", 0x8809, "", _LONG),
)
# a bridge keeps to itself what is addressed to this group
_GROUP_FRAMES = (
    ("slow-group-long", "link aggregation with a letter inside, to its group", 0x8809,
     _SLOW_PROTOCOLS, _LONG),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = tuple(
    Vector(
        f"guest.{how}-{name}",
        "L2",
        f"a guest on a {how}: {title}",
        f"ether src {{hardware}} and ether proto {kind:#x} and ether[14:2] = {{n}}",
        _guest_sends(link, kind, to, repetitions),
        Account.ROOT,
    )
    for how, link, frames in (
        ("macvlan", _by_macvlan, (*_FRAMES, *_GROUP_FRAMES)),
        ("bridge", _by_bridge, _FRAMES),
    )
    for name, title, kind, to, repetitions in frames
)
