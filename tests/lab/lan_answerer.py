"""Answers whoever asks: `lan_answerer.py TCP_PORT UDP_PORT ADDRESS…`. Runs inside, alone.

TCP is accepted and greeted, a datagram is sent back. Prints "ready"; ends with standard input.
"""

import contextlib
import selectors
import socket
import sys


def listen(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """A socket that is asked at this address alone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def answer(made: socket.socket) -> None:
    """One of whoever waits."""
    with contextlib.suppress(OSError):
        if made.type == socket.SOCK_STREAM:
            with made.accept()[0] as accepted:
                accepted.sendall(b"welcome")
        else:
            made.sendto(*made.recvfrom(2000))


def main(tcp_port: str, udp_port: str, *addresses: str) -> None:
    """Until standard input ends."""
    selector = selectors.DefaultSelector()
    for address in addresses:
        selector.register(listen(socket.SOCK_STREAM, address, int(tcp_port)), 1)
        selector.register(listen(socket.SOCK_DGRAM, address, int(udp_port)), 1)
    selector.register(0, 1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            if not isinstance(key.fileobj, socket.socket):
                return
            answer(key.fileobj)


if __name__ == "__main__":
    main(*sys.argv[1:])
