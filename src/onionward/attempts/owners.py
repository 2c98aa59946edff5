"""Whose a stopped packet is: its socket (sock_diag(7)), who holds that (proc(5)), and its unit."""

from __future__ import annotations

import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from onionward import sock_diag
from onionward.attempts.packet import Packet
from onionward.printable import printable

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_KNOWN = 4096  # sockets
_SEARCH = 0.03  # seconds that one search may take
_SEARCHES, _BURST = 2.0, 10.0  # in a second; at once
_INTERPRETERS = ("python", "perl", "ruby", "node", "sh", "bash", "dash", "java")


class Owner(NamedTuple):
    """A program that holds a socket.

    Attributes:
        pid: process id.
        program: its name; the script's, of an interpreter.
        unit: of systemd, or "".

    """

    pid: int
    program: str
    unit: str


class Owners:
    """Finds owners, at a bounded cost: what is not found in time is not found.

    Args:
        proc: where processes are.
        clock: seconds.

    """

    def __init__(
        self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._proc = proc
        self._clock = clock
        self._holders: OrderedDict[str, Path] = OrderedDict()
        self._searches = _BURST
        self._last = clock()
        self._diagnosis: socket.socket | None = None

    def find(self, packet: Packet) -> Owner | None:
        """The owner, as far as the kernel still knows."""
        if packet.arrived or packet.uid is None:
            return None
        inode = self._inode(packet)
        if not inode:
            return None
        wanted = f"socket:[{inode}]"
        if wanted not in self._holders and self._may_search():
            self._search(wanted, packet.uid)
        holder = self._holders.get(wanted)
        return None if holder is None else _described(holder)

    def _may_search(self) -> bool:
        now = self._clock()
        self._searches = min(_BURST, self._searches + (now - self._last) * _SEARCHES)
        self._last = now
        if self._searches < 1:
            return False
        self._searches -= 1
        return True

    def _inode(self, packet: Packet) -> int:
        if packet.protocol in _NUMBERS and packet.source_port:
            return self._diagnosed(packet)
        version = "6" if ":" in packet.source else ""
        if packet.protocol in ("icmp", "ipv6-icmp"):
            name = f"icmp{version}"
            if packet.source_port is not None and (
                found := self._listed(name, packet.source_port, packet.uid)
            ):
                return found
        number = {"icmp": 1, "ipv6-icmp": 58}.get(packet.protocol)
        if number is None and packet.protocol.isdecimal():
            number = int(packet.protocol)
        return 0 if number is None else self._listed(f"raw{version}", number, packet.uid)

    def _diagnosed(self, packet: Packet) -> int:
        """The socket of these ends, asked of the kernel; 0 when there is none any more."""
        question = sock_diag.request(
            _NUMBERS[packet.protocol],
            (packet.source, packet.source_port or 0),
            (packet.destination, packet.port or 0),
        )
        try:
            if self._diagnosis is None:
                self._diagnosis = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW, sock_diag.NETLINK_SOCK_DIAG
                )
                self._diagnosis.settimeout(1.0)
            self._diagnosis.send(question)
            return sock_diag.inode(self._diagnosis.recv(8192))
        except OSError:
            return 0

    def _listed(self, name: str, port: int, uid: int | None) -> int:
        """The socket in a list of the kernel (proc_pid_net(5)), if it can only be this one."""
        found = set()
        try:
            with (self._proc / "self/net" / name).open() as lines:
                next(lines, "")
                for line in lines:
                    fields = line.split()
                    here = int(fields[1].rpartition(":")[2], 16)
                    if here == port and int(fields[7]) == uid:
                        found.add(int(fields[9]))
        except (OSError, ValueError, IndexError):
            return 0
        return found.pop() if len(found) == 1 else 0

    def _search(self, wanted: str, uid: int) -> None:
        """Look at processes until one has it; what others hold is remembered, too."""
        until = self._clock() + _SEARCH
        for process in self._processes(uid):
            if self._clock() > until:
                return
            try:
                with os.scandir(process / "fd") as files:
                    links = [_link(file.path) for file in files]
            except OSError:
                continue  # it ended meanwhile
            for link in links:
                if link.startswith("socket:"):
                    self._holders[link] = process
                    self._holders.move_to_end(link)
            while len(self._holders) > _KNOWN:
                self._holders.popitem(last=False)
            if wanted in links:
                return

    def _processes(self, uid: int) -> Iterator[Path]:
        """Those of the account first; others may have been given its socket."""
        others = []
        for name in os.listdir(self._proc):  # noqa: PTH208  # there are many
            if not name.isdecimal():
                continue
            process = self._proc / name
            try:
                if process.stat().st_uid == uid:
                    yield process
                else:
                    others.append(process)
            except OSError:
                continue
        yield from others


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  # there are many
    except OSError:
        return ""


def _described(process: Path) -> Owner | None:
    try:
        command = (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return None
    program = os.path.basename(_link(str(process / "exe"))).removesuffix(" (deleted)")  # noqa: PTH119
    if not program or program.startswith(_INTERPRETERS):
        program = command
    return Owner(int(process.name), printable(program), _unit(process))


def _unit(process: Path) -> str:
    """The innermost service or scope of its control group (cgroups(7), version 2)."""
    try:
        lines = (process / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        if line.startswith("0::"):
            for part in reversed(line[3:].split("/")):
                if part.endswith((".service", ".scope")):
                    return printable(part)
    return ""
