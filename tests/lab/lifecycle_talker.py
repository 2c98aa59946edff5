"""Programs of one sender that never stop talking: `lifecycle_talker.py FIRST_PORT WEB4 WEB6 DNS4`.

Runs inside a machine, alone. All it sends has a source port from FIRST_PORT on, by which a witness
tells senders apart. Twenty times a second UDP of both families; now and then a name query and a
TCP connection; all the time one TCP connection on which the other side speaks first and mostly,
opened again whenever it breaks. Errors are expected and ignored. Each line of input is answered
with how many such connections have spoken, and how many bytes have come.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time

PORTS = 5000
_TICK = 0.05
_SLOW = 8  # ticks between two connections
_TICKER = 13
_FIXED = 10  # ports of sockets that stay


class Sender:
    """Its sockets, and what a round of speaking is."""

    def __init__(self, first_port: int, web4: str, web6: str, dns4: str) -> None:
        self._first = first_port
        self._used = 0
        self._web4, self._web6, self._dns4 = web4, web6, dns4
        self._udp4 = self._datagram(socket.AF_INET, 0)
        self._udp6 = self._datagram(socket.AF_INET6, 1)
        self._asking = self._datagram(socket.AF_INET, 2)
        self._open: list[socket.socket] = []
        self._ticker = self._connect(socket.AF_INET, web4, _TICKER)
        self._has_spoken = False
        self._number = 0
        self.opened = self.received = 0

    def _datagram(self, family: socket.AddressFamily, offset: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind(("", self._first + offset))
        return made

    def _connect(self, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        # a port that no earlier connection had: what comes late of one is told from the next
        self._used = (self._used + 1) % (PORTS - _FIXED)
        with contextlib.suppress(OSError):
            made.bind(("", self._first + _FIXED + self._used))
            made.connect_ex((address, port))
        return made

    def speak(self) -> None:
        """One round."""
        self._number += 1
        for made, target in (
            (self._udp4, (self._web4, 7)),
            (self._udp6, (self._web6, 7)),
        ):
            with contextlib.suppress(OSError):
                made.sendto(b"in clear", target)
        self._hear()
        if self._number % _SLOW == 0:
            with contextlib.suppress(OSError):
                self._ticker.send(b"still here")
            with contextlib.suppress(OSError):
                self._asking.sendto(self._query(), (self._dns4, 53))
            if self._number % (2 * _SLOW):
                self._open.append(self._connect(socket.AF_INET6, self._web6, 443))
            else:
                self._open.append(self._connect(socket.AF_INET, self._web4, 443))
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.send(b"GET / in clear")
            if len(self._open) > 4:
                self._open.pop(0).close()
        for each in (self._udp4, self._udp6, self._asking, *self._open):
            with contextlib.suppress(OSError):
                each.recv(4096)

    def _query(self) -> bytes:
        label = f"talker{self._first}x{self._number}".encode()
        head = struct.pack("!6H", self._number & 0xFFFF, 0x0100, 1, 0, 0, 0)
        name = bytes([len(label)]) + label + b"\x07example\x04test\x00"
        return head + name + struct.pack("!2H", 1, 1)

    def _hear(self) -> None:
        try:
            got = len(self._ticker.recv(4096))
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            got = 0
        self.received += got
        if got and not self._has_spoken:
            self.opened += 1
        self._has_spoken = bool(got)
        if not got:
            self._ticker.close()
            self._ticker = self._connect(socket.AF_INET, self._web4, _TICKER)


def main(first_port: str, web4: str, web6: str, dns4: str) -> None:
    """Talk until killed."""
    sender = Sender(int(first_port), web4, web6, dns4)
    while True:
        sender.speak()
        while select.select([0], [], [], 0)[0]:
            if not os.read(0, 1):
                return
            os.write(1, f"{sender.opened} {sender.received}\n".encode())
        time.sleep(_TICK)


if __name__ == "__main__":
    main(*sys.argv[1:])
