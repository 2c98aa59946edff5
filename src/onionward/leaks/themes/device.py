"""Sockets that choose their device, source address or mark themselves."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket

from onionward.leaks.model import Account, Attempt, Probe, Vector
from onionward.leaks.settings import foreign_table, ip_batch, run
from onionward.leaks.sights import SEES_PING4, SEES_PING6, SEES_TCP, SEES_UDP
from onionward.leaks.tools import (
    IP_TRANSPARENT,
    IPV6_TRANSPARENT,
    abort,
    bound,
    by_interface,
    connect,
    direct,
    marked,
    open_socket,
    ping,
    sockaddr,
    tcp,
    udp,
)


def _transparent(to: str, source: str, kind: socket.SocketKind) -> Probe:
    """From an address that is not this machine's (IP_TRANSPARENT)."""

    def probe(attempt: Attempt) -> None:
        family, where = sockaddr(attempt.address(to), 4433)
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((source, attempt.number))
            sock.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                if kind == socket.SOCK_DGRAM:
                    sock.sendto(attempt.payload, where)
                else:
                    sock.connect(where)

    return probe


def _from_device_address(kind: socket.SocketKind) -> Probe:
    """With the uplink's own address bound, as torrent clients are told to."""

    def probe(attempt: Attempt) -> None:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((attempt.targets.host4, attempt.number))
            sock.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                if kind == socket.SOCK_DGRAM:
                    sock.sendto(attempt.payload, (attempt.targets.web4, 4433))
                else:
                    sock.connect((attempt.targets.web4, 80))

    return probe


def _given_to_tor(attempt: Attempt) -> None:
    # fchown changes whom the kernel's routing rules take for the owner
    sock = open_socket(attempt.targets.web4, socket.SOCK_STREAM, attempt)
    try:
        os.fchown(sock.fileno(), pwd.getpwnam(attempt.targets.tor_account).pw_uid, -1)
        if connect(sock, attempt.targets.web4, 80, 0.25):
            sock.send(attempt.payload)
    finally:
        abort(sock)


def _routed_by_mark(attempt: Attempt) -> None:
    ip_batch(
        f"rule add pref 90 fwmark {attempt.number} lookup {attempt.number}",
        f"route add default via {attempt.targets.gateway4} dev {attempt.targets.device}"
        f" table {attempt.number}",
    )
    try:
        udp("stranger4", 4433, marked(attempt.number))(attempt)
    finally:
        run("ip", "rule", "delete", "pref", "90")
        run("ip", "route", "flush", "table", str(attempt.number))


def _pushed_route(kind: str, inner: Probe) -> Probe:
    """A more special route, as a DHCP server can push one (option 121, TunnelVision)."""

    def probe(attempt: Attempt) -> None:
        prefix = f"{attempt.targets.stranger4}/32"
        run("ip", "route", "replace", prefix, "dev", attempt.targets.device, *kind.split())
        try:
            inner(attempt)
        finally:
            run("ip", "route", "delete", prefix)

    return probe


def _via(attempt: Attempt) -> None:
    _pushed_route(f"via {attempt.targets.gateway4}", udp("stranger4", 4433))(attempt)


def _via_tcp(attempt: Attempt) -> None:
    _pushed_route(f"via {attempt.targets.gateway4}", tcp("stranger4", 4434))(attempt)


def _foreign_mark(attempt: Attempt) -> None:
    # somebody else's rule marks the packet, as VPN clients do
    rules = (
        "chain c { type route hook output priority -150; policy accept;"
        f" udp sport {attempt.number} meta mark set {attempt.number}; }}"
    )
    with foreign_table("inet", attempt.device, rules):
        udp("stranger4", 4433)(attempt)


_UNPRIVILEGED = tuple(
    Vector(f"bound.{name}", "B1", f"{title}, socket tied to the uplink", sees, probe)
    for name, title, sees, probe in (
        ("tcp4", "TCP", SEES_TCP, tcp("web4", 80, bound)),
        ("tcp6", "TCP over IPv6", SEES_TCP, tcp("web6", 80, bound)),
        ("udp4", "UDP", SEES_UDP, udp("web4", 4433, bound)),
        ("udp6", "UDP over IPv6", SEES_UDP, udp("web6", 4433, bound)),
        ("loopback-tcp", "TCP to 127.0.0.1", SEES_TCP, tcp("127.0.0.1", 4433, bound)),
        ("loopback-udp", "UDP to 127.0.0.1", SEES_UDP, udp("127.0.0.1", 4433, bound)),
        ("mapped-onion-tcp", "TCP to a mapped .onion", SEES_TCP, tcp("onion4", 80, bound)),
        ("mapped-onion-udp", "UDP to a mapped .onion", SEES_UDP, udp("onion4", 80, bound)),
    )
)

_CHOSEN = tuple(
    Vector(*row)
    for row in (
        ("chosen.unicast-if", "B1", "UDP by IP_UNICAST_IF", SEES_UDP,
         udp("web4", 4433, by_interface)),
        ("chosen.dontroute", "B1", "UDP by SO_DONTROUTE", SEES_UDP, udp("neighbour4", 9, direct)),
        ("chosen.source-tcp", "B1", "TCP from the uplink's address", SEES_TCP,
         _from_device_address(socket.SOCK_STREAM)),
        ("chosen.source-udp", "B1", "UDP from the uplink's address", SEES_UDP,
         _from_device_address(socket.SOCK_DGRAM)),
        ("onion.virtual4", "A1", "UDP into 10.192.0.0/10, tor's usual range", SEES_UDP,
         udp("10.192.0.7", 80)),
        ("onion.virtual4-tcp", "A1", "TCP into 10.192.0.0/10", SEES_TCP, tcp("10.192.0.7", 80)),
        ("onion.virtual6-udp", "A1", "UDP into the IPv6 range for .onion", SEES_UDP,
         udp("onion6", 80)),
        ("onion.virtual6-tcp", "A1", "TCP into the IPv6 range for .onion", SEES_TCP,
         tcp("onion6", 80)),
    )
)  # fmt: skip

_ROOT = tuple(
    Vector(name, family, title, sees, probe, Account.ROOT)
    for name, family, title, sees, probe in (
        ("root.tcp4", "U1", "root's TCP", SEES_TCP, tcp("web4", 80)),
        ("root.udp4", "U1", "root's UDP", SEES_UDP, udp("web4", 4433)),
        ("root.udp6", "V6", "root's UDP over IPv6", SEES_UDP, udp("web6", 4433)),
        ("root.given", "T2", "root hands its socket to tor's account", SEES_TCP, _given_to_tor),
        ("bound.ping4", "B1", "ping tied to the uplink", SEES_PING4, ping("stranger4", bound)),
        (
            "bound.ping6",
            "B1",
            "ping over IPv6 tied to the uplink",
            SEES_PING6,
            ping("stranger6", bound),
        ),
        ("mark.one", "U1", "UDP with a packet mark", SEES_UDP, udp("web4", 4433, marked(1))),
        ("mark.all", "U1", "UDP with every mark bit", SEES_UDP, udp("web4", 9, marked(0xFFFFFFFF))),
        ("mark.tcp", "U1", "TCP with a packet mark", SEES_TCP, tcp("web4", 80, marked(0x746F7201))),
        ("mark.route", "A2", "a policy route by mark", SEES_UDP, _routed_by_mark),
        ("mark.foreign", "X5", "somebody's rule marks the packet", SEES_UDP, _foreign_mark),
        ("route.pushed-udp", "A2", "a route pushed by DHCP, UDP", SEES_UDP, _via),
        ("route.pushed-tcp", "A2", "a route pushed by DHCP, TCP", SEES_TCP, _via_tcp),
        (
            "spoof.transparent-udp4",
            "S1",
            "UDP from a foreign address (IP_TRANSPARENT)",
            SEES_UDP,
            _transparent("web4", "198.18.99.9", socket.SOCK_DGRAM),
        ),
        (
            "spoof.transparent-tcp4",
            "S1",
            "TCP from a foreign address (IP_TRANSPARENT)",
            SEES_TCP,
            _transparent("web4", "198.18.99.9", socket.SOCK_STREAM),
        ),
        (
            "spoof.transparent-udp6",
            "S1",
            "UDP over IPv6 from a foreign address (IPV6_TRANSPARENT)",
            SEES_UDP,
            _transparent("web6", "2001:db8:99::9", socket.SOCK_DGRAM),
        ),
        (
            "spoof.transparent-tcp6",
            "S1",
            "TCP over IPv6 from a foreign address (IPV6_TRANSPARENT)",
            SEES_TCP,
            _transparent("web6", "2001:db8:99::9", socket.SOCK_STREAM),
        ),
    )
)

VECTORS: tuple[Vector, ...] = (*_UNPRIVILEGED, *_CHOSEN, *_ROOT)
