"""One socket, asked of the kernel by its ends (sock_diag(7), linux/inet_diag.h)."""

from __future__ import annotations

import socket
import struct

NETLINK_SOCK_DIAG = 4
"""The family of netlink sockets that ask."""
_BY_FAMILY = 20
_REQUEST = 1
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_INODE = 16 + 4 + 48 + 16  # idiag_inode of struct inet_diag_msg, behind the netlink header

End = tuple[str, int]
"""Address and port."""


def request(protocol: int, local: End, peer: End) -> bytes:
    """The question for a TCP or UDP socket with these ends, as its owner sees them."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    # the two are the other way round for UDP (udp_diag.c)
    ends = (peer, local) if protocol == socket.IPPROTO_UDP else (local, peer)
    body = struct.pack("=BBBBI", family, protocol, 0, 0, _ANY_STATE)
    body += struct.pack("!HH", *(port for _, port in ends))
    body += b"".join(socket.inet_pton(family, address).ljust(16, b"\0") for address, _ in ends)
    body += bytes(4) + _NO_COOKIE
    return _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body


def inode(answer: bytes) -> int:
    """The inode by which processes hold the socket; 0: none does, or there is no such socket."""
    if len(answer) < _INODE + 4 or struct.unpack_from("=H", answer, 4)[0] != _BY_FAMILY:
        return 0
    return int(struct.unpack_from("=I", answer, _INODE)[0])
