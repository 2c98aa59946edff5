"""Connections that are only held: `leak_holder.py WEB4 WEB6 DNS4 TCP4 TCP6 UDP4`.

From the three ports it connects to the web server, and asks the name server, whose answer it
awaits. It prints `ready` and stays until its input ends.
"""

from __future__ import annotations

import socket
import struct
import sys

_QUERY = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x03www\x07example\x04test\0\0\1\0\1"


def _hold(address: str, port: int, kind: socket.SocketKind, source: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # it ends without leaving its port in TIME_WAIT
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.settimeout(20)
    sock.bind(("", source))
    sock.connect((address, port))
    return sock


def main(web4: str, web6: str, dns4: str, tcp4: str, tcp6: str, udp4: str) -> None:
    """Hold them."""
    held = [_hold(web4, 80, socket.SOCK_STREAM, int(tcp4))]
    held.append(_hold(web6, 80, socket.SOCK_STREAM, int(tcp6)))
    held.append(_hold(dns4, 53, socket.SOCK_DGRAM, int(udp4)))
    held[-1].send(_QUERY)
    held[-1].recv(2000)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
