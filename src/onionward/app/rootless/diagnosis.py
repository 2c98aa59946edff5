"""Whether a socket of the command is still somebody's, asked of the kernel (sock_diag(7)).

A connection that is closed and one whose sending direction alone is shut look the same to the other
end. Tor can only close both, so the difference decides whether an answer is waited for.
"""

from __future__ import annotations

import contextlib
import socket

from onionward import sock_diag


def open_socket() -> socket.socket:
    """A socket that asks about the network namespace of whoever calls this."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, sock_diag.NETLINK_SOCK_DIAG)
    made.bind((0, 0))
    return made


class Diagnosis:
    """Asks over a socket made by `open_socket`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # the kernel answers before `send` returns
        sock.settimeout(0)

    def is_closed(self, local: tuple[str, int], peer: tuple[str, int]) -> bool:
        """Whether no process has the socket with these ends any more.

        Args:
            local: address and port of the socket.
            peer: where it is connected to, as its owner sees that.

        """
        question = sock_diag.request(socket.IPPROTO_TCP, local, peer)
        try:
            with contextlib.suppress(BlockingIOError):
                while self._sock.recv(4096):  # an answer that came too late
                    pass
            self._sock.send(question)
            answer = self._sock.recv(4096)
        except OSError:
            return True
        return sock_diag.inode(answer) == 0
