"""A process of one account that sends packets as it is told: a line of JSON in, one out.

Run as a program of its own, with nothing but the standard library, because it changes its account
and joins a control group before it opens the first socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION_3 = 0x20080522
_NET_BIND_SERVICE, _NET_RAW = 1 << 10, 1 << 13
_NO_ERROR = 0
# frames that the tests send themselves, to know that all before them have arrived
FENCE_PROTOCOL = 0x88B5
_EVERY_ADDRESS = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104


def become(uid: int) -> None:
    """An account with the right to raw sockets and low ports, and no other."""
    if uid == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    kept = _NET_BIND_SERVICE | _NET_RAW
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    wanted = struct.pack("6I", kept, kept, 0, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    if libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    os.setresuid(uid, uid, uid)
    if libc.capset(header, wanted) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Attempt:
    """One packet, what its sender was told, and what came back."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.told: str | None = None
        self.answer: list[Any] | None = None
        self._order = order
        family = socket.AF_INET6 if ":" in order["to"] else socket.AF_INET
        self._is_stream = order["protocol"] == socket.IPPROTO_TCP and not order["raw"]
        kinds = {socket.IPPROTO_TCP: socket.SOCK_STREAM, socket.IPPROTO_UDP: socket.SOCK_DGRAM}
        kind = socket.SOCK_RAW if order["raw"] else kinds[order["protocol"]]
        self.socket = socket.socket(family, kind, order["protocol"])
        self.socket.setblocking(False)
        if kind != socket.SOCK_STREAM:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            self._send(family)
        except OSError as error:
            self._hear(error.errno or errno.EIO)

    def _send(self, family: socket.AddressFamily) -> None:
        order = self._order
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = 0 if order["raw"] else order["source_port"]
        self.socket.bind((order["source"] or _EVERY_ADDRESS[family], port))
        target: tuple[Any, ...] = (order["to"], 0 if order["raw"] else order["port"])
        if family == socket.AF_INET6:
            target = (*target, 0, order["device"])
        if self._is_stream:
            result = self.socket.connect_ex(target)
            if result not in (_NO_ERROR, errno.EINPROGRESS):
                self._hear(result)
            return
        payload = bytes.fromhex(order["query"]) + order["token"].encode()
        if order["raw"] and order["protocol"] == socket.IPPROTO_TCP:
            ports = struct.pack("!HH", order["source_port"], order["port"])
            payload = (
                ports + struct.pack("!IIBBHHH", 1, 1, 5 << 4, order["flags"], 512, 0, 0) + payload
            )
        elif order["icmp_type"] is not None:
            head = struct.pack("!BBHHH", order["icmp_type"], 0, 0, order["source_port"], 1)
            payload = _with_checksum(head + payload)
        self.socket.sendto(payload, target)

    def _hear(self, number: int) -> None:
        self.told = errno.errorcode.get(number, str(number))

    def look(self) -> None:
        """Ask the socket for news."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN | select.POLLOUT)
        events = waiting.poll(0)
        if self.told is None and events and events[0][1] & (select.POLLERR | select.POLLHUP):
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error != _NO_ERROR:
                self._hear(error)
        if self.answer is None and self._order["protocol"] == socket.IPPROTO_UDP:
            with contextlib.suppress(OSError):
                data, source = self.socket.recvfrom(100)
                if data == self._order["token"].replace("?", "!").encode():
                    self.answer = [source[0], source[1]]

    def close(self) -> None:
        if self._is_stream:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def _with_checksum(message: bytes) -> bytes:
    """An ICMP message with its checksum (RFC 1071); the kernel does ICMPv6 itself."""
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


def fence(device: str, mark: int, token: str) -> None:
    """A frame with the stamp of the rules, which passes them."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        wire.bind((device, FENCE_PROTOCOL))
        wire.send(b"\xff" * 6 + b"\x02" * 6 + struct.pack("!H", FENCE_PROTOCOL) + token.encode())


def write_frames(device: str, packets: list[dict[str, str]]) -> None:
    """What a client of a LAN sends."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for packet in packets:
            wire.send(bytes.fromhex(packet["frame"]))


def remove(group: str) -> None:
    """Remove a control group when its last process has ended, whatever ended the tests."""
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError):
            try:
                os.rmdir(group)  # noqa: PTH106
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.01)
                continue
        return


def main(uid: int, processor: int, role: str, group: str) -> None:
    # all on one, so that packets keep their order: each has a queue of its own
    os.sched_setaffinity(0, {processor})
    if role == "member":
        with open(f"{group}/cgroup.procs", "w") as members:  # noqa: PTH123
            members.write(str(os.getpid()))
    become(uid)
    attempts: list[Attempt] = []
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "send":
                attempts = [Attempt(packet) for packet in order["packets"]]
            case "look":
                for attempt in attempts:
                    attempt.look()
            case "close":
                for attempt in attempts:
                    attempt.close()
                attempts = []
            case "frames":
                write_frames(order["device"], order["packets"])
            case "fence":
                fence(order["device"], order["mark"], order["token"])
        print(json.dumps([[a.told, a.answer] for a in attempts]), flush=True)  # noqa: T201
    if role == "keeper":
        remove(group)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
