"""The kernel's messages about stopped packets, as the guard hears them.

The group belongs to one program in each network namespace. What does not fit into the socket's
buffer is lost; no packet ever waits for whoever reads.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from onionward.attempts.group import BYTES, GROUP
from onionward.attempts.packet import Packet, read
from onionward.guard.netlink import HEADER, attribute, messages, received

# linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_log.h
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = _SUBSYSTEM, _SUBSYSTEM | 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_REQUEST_ACK = 0x1 | 0x4
_ERROR = 2
_BUFFER = 1 << 17
_MOST = 256  # datagrams at once, so that other events have their turn


class Listener:
    """Stopped packets of this network namespace.

    Raises:
        OSError: the kernel has no such messages, or another program has the group.

    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._socket.settimeout(2.0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, 0))
            self._ask_for_packets()
            self._socket.settimeout(0.0)
        except BaseException:
            self._socket.close()
            raise

    def _ask_for_packets(self) -> None:
        body = struct.pack("!BBH", 0, 0, GROUP)
        body += attribute(_COMMAND, bytes([_BIND]))
        body += attribute(_MODE, struct.pack("!IBB", BYTES, _COPY_PACKET, 0))
        # at once, while the sender may still be there to be found
        body += attribute(_THRESHOLD, struct.pack("!I", 1))
        length = HEADER.size + len(body)
        self._socket.send(HEADER.pack(length, _CONFIG, _REQUEST_ACK, 1, 0) + body)
        for message in messages(self._socket.recv(4096)):
            if message.kind == _ERROR and (number := struct.unpack_from("=i", message.body)[0]):
                raise OSError(-number, "nflog group")

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def packets(self) -> Iterator[Packet | None]:
        """Packets that were told; None stands for some that were lost."""
        for number, datagram in enumerate(received(self._socket), 1):
            if datagram is None:
                yield None
            else:
                told = (m.body for m in messages(datagram) if m.kind == _PACKET)
                yield from (packet for body in told if (packet := read(body)) is not None)
            if number >= _MOST:
                return

    def close(self) -> None:
        """Give the group up."""
        self._socket.close()
