"""A host full of programs that never stop talking: `lifecycle_chatter.py WEB4 WEB6 DNS4`.

Runs inside the host, alone. Twenty times a second UDP of both families and a ping; now and then a
TCP connection, a name query and a query over TCP; all the time one TCP connection on which the
other side speaks first, opened again whenever it breaks. Errors are expected and ignored.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
import time

_TICK = 0.05
_SLOW = 6  # ticks between two connections


def _query(number: int) -> bytes:
    label = f"chatter{number}".encode()
    head = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0)
    name = bytes([len(label)]) + label + b"\x07example\x04test\x00"
    return head + name + struct.pack("!2H", 1, 1)


def _echo_request(number: int) -> bytes:
    message = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
    total = sum(struct.unpack("!4H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


class _Talker:
    """Connections, the oldest of which is closed when there are many."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def connect(self, family: int, address: str, port: int, data: bytes) -> None:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect_ex((address, port))
        self._open.append(made)
        for each in self._open:
            with contextlib.suppress(OSError):
                each.send(data)
        if len(self._open) > 5:
            self._open.pop(0).close()


def _ticker(address: str) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex((address, 13))
    return made


def _is_dead(ticker: socket.socket) -> bool:
    try:
        return not ticker.recv(4096)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.ENOTCONN)


def main(web4: str, web6: str, dns4: str) -> None:
    """Talk until killed."""
    udp4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    talker = _Talker()
    ticker = _ticker(web4)
    number = 0
    while True:
        number += 1
        for made, data, target in (
            (udp4, b"in clear", (web4, 7)),
            (udp6, b"in clear", (web6, 7)),
            (ping, _echo_request(number), (web4, 0)),
        ):
            with contextlib.suppress(OSError):
                made.sendto(data, target)
        with contextlib.suppress(OSError):
            ticker.send(b"still here")
        if _is_dead(ticker):
            ticker.close()
            ticker = _ticker(web4)
        if number % _SLOW == 0:
            with contextlib.suppress(OSError):
                udp4.sendto(_query(number), (dns4, 53))
            talker.connect(socket.AF_INET, web4, 443, b"GET / in clear")
            talker.connect(socket.AF_INET6, web6, 443, b"GET / in clear")
            # not to the name server, which keeps a process for each connection that is cut
            talker.connect(socket.AF_INET, web4, 53, _query(number))
        if number == 2 * _SLOW:
            sys.stdout.write("talking\n")
            sys.stdout.flush()
        time.sleep(_TICK)


if __name__ == "__main__":
    main(*sys.argv[1:])
