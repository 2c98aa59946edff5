"""Servers of the machine: stand-ins for tor, and services of its own, that say what reached them.

All are made in the namespace of the machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from onionward.config.values import TorConfig
from onionward.networks import Address
from onionward.policy import RELAY4, RELAY6
from tests.kernel.frames import ANSWERED, token_of

_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_EVERY_ADDRESS = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104
FULL_DNS_PORT = TorConfig().full_dns_port
_TCP_PORTS = (22, 53, 80, 137, 443, 853, 940, 941, 8080)
_UDP_PORTS = (53, 67, 69, 137, 443, 547, 940, 941, 1900, 5353, 8080)
_DHCP6_SERVERS = "ff02::1:2"

Port = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that a server has accepted: who made it, and whom it was for."""

    peer: Port
    meant: Port


class Servers:
    """Listening sockets and datagram sockets."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self._datagrams: list[socket.socket] = []

    def add_listener(self, family: socket.AddressFamily, host: str, port: int) -> None:
        self._listeners.append(_bound(family, socket.SOCK_STREAM, host, port))
        self._listeners[-1].listen(1024)

    def add_datagrams(self, family: socket.AddressFamily, host: str, port: int) -> None:
        self._datagrams.append(_bound(family, socket.SOCK_DGRAM, host, port))

    def connected(self) -> Iterator[Connected]:
        """Connections since the last time; each is reset."""
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, peer = listener.accept()
                    with connection:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                        yield Connected(_port(peer), self.meant(connection))

    def meant(self, connection: socket.socket) -> Port:
        """Address and port that a connection was for."""
        return _port(connection.getsockname())

    def asked(self) -> Iterator[tuple[str, Port]]:
        """Tokens of the datagrams that came, and who sent them; each is answered."""
        for resolver in self._datagrams:
            with contextlib.suppress(BlockingIOError):
                while True:
                    query, peer = resolver.recvfrom(1000)
                    token = token_of(query)
                    if token is None:
                        continue
                    with contextlib.suppress(OSError):  # the port of the asker may be closed
                        resolver.sendto(token.replace("?", ANSWERED).encode(), peer)
                    yield token, _port(peer)

    def close(self) -> None:
        for each in (*self._listeners, *self._datagrams):
            each.close()


class StandIn(Servers):
    """TransPort and DNSPort of both families, for programs and for clients, and full DNS."""

    def __init__(self, trans_port: int, dns_port: int) -> None:
        super().__init__()
        for family, hosts in (
            (socket.AF_INET, ("127.0.0.1", str(RELAY4))),
            (socket.AF_INET6, ("::1", str(RELAY6))),
        ):
            for host in hosts:
                self.add_listener(family, host, trans_port)
                self.add_datagrams(family, host, dns_port)
            self.add_listener(family, hosts[0], FULL_DNS_PORT)
            self.add_datagrams(family, hosts[0], FULL_DNS_PORT)

    def meant(self, connection: socket.socket) -> Port:
        """Where a redirected connection was to go, as tor asks for it."""
        if connection.family == socket.AF_INET:
            raw = connection.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16)
            return ipaddress.IPv4Address(raw[4:8]), int.from_bytes(raw[2:4])
        raw = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
        return ipaddress.IPv6Address(raw[8:24]), int.from_bytes(raw[2:4])


class Services(Servers):
    """Services of the machine at all its addresses, some of which nobody is to reach."""

    def __init__(self, devices: dict[str, int]) -> None:
        super().__init__()
        for family, host in _EVERY_ADDRESS:
            for port in _TCP_PORTS:
                self.add_listener(family, host, port)
            for port in _UDP_PORTS:
                self.add_datagrams(family, host, port)
        for datagrams in self._datagrams:
            if datagrams.family == socket.AF_INET6 and datagrams.getsockname()[1] == 547:
                for index in devices.values():
                    group = socket.inet_pton(socket.AF_INET6, _DHCP6_SERVERS)
                    datagrams.setsockopt(
                        socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("i", index)
                    )


def _bound(
    family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int
) -> socket.socket:
    made = socket.socket(family, kind)
    made.setblocking(False)
    # a server of one address beside one of all; an address that is not there yet
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        made.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
    made.bind((host, port))
    return made


def _port(name: tuple[str | int, ...]) -> Port:
    return ipaddress.ip_address(str(name[0]).partition("%")[0]), int(name[1])
