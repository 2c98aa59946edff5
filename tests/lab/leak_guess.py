"""Guesses from the wire: `leak_guess.py FAR_DEVICE FAR_MAC DEVICE_MAC SOURCE TARGET PORT OF…`.

For every port OF the target it sends, as if from PORT of SOURCE, what could belong to a
connection there, one after the other in an order of its own.
"""

from __future__ import annotations

import sys
import time

from onionward.leaks import packets
from onionward.leaks.tools import send_frame

_FLAGS = (
    packets.SYN | packets.ACK,
    packets.ACK,
    packets.PSH | packets.ACK,
    packets.FIN | packets.ACK,
    packets.SYN,
    packets.RST,
    packets.RST | packets.ACK,
    0,
)


def guesses(source: str, target: str, port: int, answering: int) -> list[bytes]:
    """Segments and a datagram that a connection would take, or a machine without it answer."""
    found = []
    for flags in _FLAGS:
        data = b"guess" if flags & packets.PSH else b""
        segment = packets.tcp(source, target, port, answering, flags, acknowledge=7, payload=data)
        found.append(packets.ip(source, target, packets.TCP, segment))
    datagram = packets.udp(source, target, port, answering, b"guess")
    return [*found, packets.ip(source, target, packets.UDP, datagram)]


def main(device: str, here: str, there: str, source: str, target: str, port: str, *of: str) -> None:
    """Send them all."""
    kind = packets.ETH_IP6 if ":" in source else packets.ETH_IP4
    for answering in map(int, of):
        for packet in guesses(source, target, int(port), answering):
            send_frame(packets.ethernet(here, there, kind, packet), device)
            time.sleep(0.002)


if __name__ == "__main__":
    main(*sys.argv[1:])
