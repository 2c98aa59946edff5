"""A peer makes the host remember an exchange; what a program sends then looks like the answer.

The frames come from the wire. A bound socket of an ordinary account waits inside the host and sends
once they have arrived.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from onionward.leaks import packets
from onionward.leaks.model import Attempt, Place, Probe, Vector
from onionward.leaks.settings import owned_by
from onionward.leaks.sights import SEES_TCP, SEES_UDP
from onionward.leaks.tools import Build, abort, connect, from_wire, open_socket, sockaddr

_SECONDS = 0.25
# TCP-MD5 (RFC 2385): who has no key for it stays silent, where it would else send a reset
_SIGNED = bytes([19, 18, *range(16)])


@dataclass(frozen=True)
class Peer:
    """Who primes the host, and from which port."""

    who: str
    port: int

    @property
    def whom(self) -> str:
        """The address of the host that it can speak to."""
        return "host6" if self.who.endswith("6") else "host4"


def _signed_syn(peer: Peer) -> Build:
    def build(attempt: Attempt) -> bytes:
        source, target = attempt.address(peer.who), attempt.address(peer.whom)
        body = packets.tcp(source, target, peer.port, attempt.number, packets.SYN, options=_SIGNED)
        return packets.ip(source, target, packets.TCP, body)

    return build


def _datagram(peer: Peer) -> Build:
    def build(attempt: Attempt) -> bytes:
        source, target = attempt.address(peer.who), attempt.address(peer.whom)
        body = packets.udp(source, target, peer.port, attempt.number, attempt.payload)
        return packets.ip(source, target, packets.UDP, body)

    return build


def _program(peer: Peer, kind: socket.SocketKind, attempt: Attempt) -> socket.socket:
    """A bound socket of an ordinary account."""
    with owned_by(attempt.targets.user_account):
        return open_socket(attempt.address(peer.who), kind, attempt)


def _connects(peer: Peer) -> Probe:
    def probe(attempt: Attempt) -> Iterator[None]:
        # not listening: for the peer's segment there is nobody
        sock = _program(peer, socket.SOCK_STREAM, attempt)
        try:
            yield
            connect(sock, attempt.address(peer.who), peer.port, _SECONDS)
        finally:
            abort(sock)

    return probe


def _asks(peer: Peer) -> Probe:
    def probe(attempt: Attempt) -> Iterator[None]:
        with _program(peer, socket.SOCK_DGRAM, attempt) as sock:
            yield
            address = sockaddr(attempt.address(peer.who), peer.port)[1]
            sock.sendto(packets.dns_query(attempt.name), address)

    return probe


_TCP: tuple[tuple[str, str, Peer], ...] = (
    ("tcp4", "a neighbour", Peer("neighbour4", 7100)),
    ("tcp6", "a neighbour, IPv6", Peer("neighbour6", 7100)),
    ("tcp-gateway4", "the router", Peer("gateway4", 7100)),
    ("tcp-dot4", "the router, port of DNS over TLS", Peer("gateway4", 853)),
    ("tcp-stranger4", "a stranger", Peer("stranger4", 7100)),
    ("tcp-stranger6", "a stranger, IPv6", Peer("stranger6", 7100)),
)

_UDP: tuple[tuple[str, str, Peer], ...] = (
    ("dns-gateway4", "the router, port 53", Peer("gateway4", 53)),
    ("dns-gateway6", "the router, port 53, IPv6", Peer("gateway6", 53)),
    ("dns-neighbour4", "a neighbour, port 53", Peer("neighbour4", 53)),
    ("dns-neighbour6", "a neighbour, port 53, IPv6", Peer("neighbour6", 53)),
    ("dot-gateway4", "the router, port 853", Peer("gateway4", 853)),
    ("mdns-gateway4", "the router, port 5353", Peer("gateway4", 5353)),
    ("mdns-neighbour6", "a neighbour, port 5353, IPv6", Peer("neighbour6", 5353)),
    ("llmnr-neighbour4", "a neighbour, port 5355", Peer("neighbour4", 5355)),
    ("netbios-neighbour4", "a neighbour, port 137", Peer("neighbour4", 137)),
    ("ssdp-neighbour4", "a neighbour, port 1900", Peer("neighbour4", 1900)),
    ("dns-stranger4", "a stranger, port 53", Peer("stranger4", 53)),
    ("udp-stranger4", "a stranger, an ordinary port", Peer("stranger4", 7100)),
    ("udp-stranger6", "a stranger, an ordinary port, IPv6", Peer("stranger6", 7100)),
)

PEERS: dict[str, Peer] = {f"primed.{name}": peer for name, _, peer in (*_TCP, *_UDP)}

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(
            f"primed.{name}",
            "K1",
            f"a connection to one whose SYN went unanswered: {title}",
            f"{SEES_TCP} and dst port {peer.port}",
            from_wire(_signed_syn(peer)),
            place=Place.WIRE,
            serve=_connects(peer),
        )
        for name, title, peer in _TCP
    ),
    *(
        Vector(
            f"primed.{name}",
            "D1" if "port 53" in title else "K1",
            f"a query to one who sent a datagram first: {title}",
            f"{SEES_UDP} and dst port {peer.port}",
            from_wire(_datagram(peer)),
            place=Place.WIRE,
            serve=_asks(peer),
        )
        for name, title, peer in _UDP
    ),
)
