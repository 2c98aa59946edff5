"""Make sockets as root, then hold them as another account until told to end.

Arguments: user id, kind ("tcp" or "udp"), and address and port of the other end. Writes the local
port; then, for TCP, what comes of the connection.
"""

from __future__ import annotations

import os
import socket
import sys


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> None:
    uid, kind, address, port = sys.argv[1:]
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    ) as held:
        if kind == "tcp":
            held.connect((address, int(port)))
        else:
            held.bind(("", 0))
        os.setresuid(int(uid), int(uid), int(uid))
        say(str(held.getsockname()[1]))
        if kind == "tcp":
            try:
                say(f"received {len(held.recv(1))}")
            except OSError as error:
                say(type(error).__name__)
        else:
            sys.stdin.readline()


if __name__ == "__main__":
    main()
