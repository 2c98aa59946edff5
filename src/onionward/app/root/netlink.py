"""Devices, addresses, routes and rules over rtnetlink(7): one message each, no process for any.

ip(8) does the same; starting it takes as long as all else that a run is waited for.
"""

from __future__ import annotations

import os
import struct
from _socket import AF_INET, AF_INET6, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, inet_pton, socket

from onionward.app.root.places import ROUTE_PROTOCOL

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h, linux/veth.h
_ROUTE = 0
_NEWLINK, _NEWADDR, _DELADDR, _NEWROUTE, _NEWRULE, _ERROR = 16, 20, 21, 24, 32, 2
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_UP, _NOARP = 0x1, 0x80
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 1, 3, 18, 26, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER, _INET6_GEN_MODE = 1, 2, 1, 8
_IFA_ADDRESS, _IFA_LOCAL, _NODAD = 1, 2, 0x02
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_PRIORITY = 1, 4, 7, 6
_MAIN, _LINK_SCOPE, _HOST_SCOPE, _UNICAST, _PROHIBIT = 254, 253, 254, 1, 8
_FRA_PRIORITY, _FRA_TABLE, _FRA_IP_PROTO, _FRA_DPORT_RANGE = 6, 15, 22, 24
_TO_TABLE, _FORBID = 1, 8
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_EIGHT = struct.Struct("=BBBBBBBBI")  # struct rtmsg, struct fib_rule_hdr

Message = tuple[int, int, bytes]
"""Type, flags and body."""


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", len(value) + 4, kind) + value + padding


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _name(name: str) -> bytes:
    return _attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _packed(address: str) -> tuple[int, bytes]:
    family = AF_INET6 if ":" in address else AF_INET
    return family, inet_pton(family, address)


def veth(name: str, peer: str, namespace: int, hardware: bytes) -> Message:
    """A pair of devices that need no neighbour discovery, for both have the same address.

    Args:
        name: of the one that is here.
        peer: of the other one.
        namespace: descriptor of the network namespace it is in.
        hardware: their address.

    """
    same = _attribute(_IFLA_ADDRESS, hardware)
    head = _LINK.pack(0, 0, 0, _NOARP, _NOARP)
    other = head + _name(peer) + same + _number(_IFLA_NET_NS_FD, namespace)
    data = _attribute(_VETH_PEER, other)
    info = _attribute(_INFO_KIND, b"veth") + _attribute(_INFO_DATA, data)
    body = head + _name(name) + same + _attribute(_IFLA_LINKINFO, info)
    return _NEWLINK, _CREATE | _EXCL, body


def without_link_local(number: int) -> Message:
    """Have the kernel give a device no IPv6 address by itself."""
    mode = _attribute(AF_INET6, _attribute(_INET6_GEN_MODE, b"\1"))
    return _NEWLINK, 0, _LINK.pack(0, 0, number, 0, 0) + _attribute(_IFLA_AF_SPEC, mode)


def up(number: int) -> Message:
    """Set a device up."""
    return _NEWLINK, 0, _LINK.pack(0, 0, number, _UP, _UP)


def down(number: int) -> Message:
    """Set a device down."""
    return _NEWLINK, 0, _LINK.pack(0, 0, number, 0, _UP)


def address(number: int, place: str, length: int, *, scope: int = 0) -> Message:
    """Give a device an address."""
    family, raw = _packed(place)
    head = _ADDRESS.pack(family, length, _NODAD if family == AF_INET6 else 0, scope, number)
    body = head + _attribute(_IFA_LOCAL, raw) + _attribute(_IFA_ADDRESS, raw)
    return _NEWADDR, _CREATE | _EXCL, body


def no_address(number: int, place: str, length: int) -> Message:
    """Take it away."""
    _, _, body = address(number, place, length)
    return _DELADDR, 0, body


def route(network: str, number: int, source: str = "") -> Message:
    """A route over a device; number 0: connections there are forbidden (EACCES)."""
    place, _, length = network.partition("/")
    family, raw = _packed(place)
    forbidden = number == 0
    scope = _LINK_SCOPE if family == AF_INET and not forbidden else 0
    kind = _PROHIBIT if forbidden else _UNICAST
    body = _EIGHT.pack(family, int(length), 0, 0, _MAIN, ROUTE_PROTOCOL, scope, kind, 0)
    body += _attribute(_RTA_DST, raw)
    body += b"" if forbidden else _number(_RTA_OIF, number)
    body += _attribute(_RTA_PREFSRC, _packed(source)[1]) if source else b""
    return _NEWROUTE, _CREATE | _EXCL, body


def rule(family: int, preference: int, protocol: int = 0, port: int = 0) -> Message:
    """A routing rule: this protocol (and port) has routes; without one, all else has none."""
    action = _TO_TABLE if protocol else _FORBID
    body = _EIGHT.pack(family, 0, 0, 0, _MAIN if protocol else 0, 0, 0, action, 0)
    body += _number(_FRA_PRIORITY, preference)
    if protocol:
        body += _attribute(_FRA_IP_PROTO, bytes([protocol])) + _number(_FRA_TABLE, _MAIN)
    if port:
        body += _attribute(_FRA_DPORT_RANGE, struct.pack("=HH", port, port))
    return _NEWRULE, _CREATE | _EXCL, body


class Kernel:
    """The routing part of the kernel, as seen from the network namespace of the caller."""

    def __init__(self) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _ROUTE)
        self._socket.bind((0, 0))

    def do(self, *messages: Message, tolerate: int = 0) -> None:
        """Have messages carried out in their order; all are tried.

        Args:
            messages: of the functions above.
            tolerate: an error number that is no failure.

        Raises:
            OSError: of the first one that failed.

        """
        whole = b"".join(
            _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST | _ACK, number, 0) + body
            for number, (kind, flags, body) in enumerate(messages)
        )
        self._socket.send(whole)
        answers = 0
        failed: OSError | None = None
        while answers < len(messages):
            datagram = self._socket.recv(1 << 16)
            while datagram:
                length, kind, _, number, _ = _HEADER.unpack_from(datagram)
                if kind == _ERROR:
                    answers += 1
                    code = -struct.unpack_from("=i", datagram, _HEADER.size)[0]
                    if code not in (0, tolerate) and failed is None:
                        failed = OSError(
                            code, f"rtnetlink {messages[number][0]}: {os.strerror(code)}"
                        )
                datagram = datagram[(length + 3) & ~3 :]
        if failed is not None:
            raise failed
