"""Questions about names, which must go to DNSPort or nowhere."""

from __future__ import annotations

import select
import socket

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Needs, Vector
from onionward.leaks.settings import owned_by
from onionward.leaks.sights import SEES_TCP, SEES_UDP
from onionward.leaks.tools import ask, bound, broadcast, by_interface, open_socket, raw, tcp, udp


def _stub(port: int) -> Vector:
    """A resolver of this machine that asks on, as systemd-resolved or dnsmasq does."""

    def probe(attempt: Attempt) -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stub,
            owned_by(attempt.targets.user_account),
            open_socket(attempt.targets.dns4, socket.SOCK_DGRAM, attempt) as upstream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            stub.bind(("127.0.0.53", port))
            client.sendto(packets.dns_query(attempt.name), ("127.0.0.53", port))
            if select.select([stub], [], [], 0.1)[0]:
                upstream.sendto(stub.recv(2000), (attempt.targets.dns4, port))

    title = f"a stub resolver of another account asks on (127.0.0.53 port {port})"
    return Vector(f"dns.stub-{port}", "D3", title, SEES_UDP, probe, Account.ROOT)


def _raw_query(attempt: Attempt) -> bytes:
    here, there = attempt.targets.host4, attempt.targets.dns4
    query = packets.dns_query(attempt.name)
    return packets.ip4(
        here, there, packets.UDP, packets.udp(here, there, attempt.number, 53, query)
    )


def _from_53(attempt: Attempt) -> None:
    # a query whose source port is 53 too, as old servers send
    here = attempt.targets.host4
    with (
        owned_by(attempt.targets.user_account),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((here, 53))
        query = packets.dns_query(attempt.name, identification=attempt.number)
        sock.sendto(query, (attempt.targets.dns4, 53))


_QUERIES = tuple(
    Vector(*row)
    for row in (
        ("dns.udp4", "V6", "DNS", SEES_UDP, ask("dns4")),
        ("dns.udp6", "V6", "DNS over IPv6", SEES_UDP, ask("dns6")),
        ("dns.tcp4", "D1", "DNS over TCP", SEES_TCP, tcp("dns4", 53)),
        ("dns.tcp6", "V6", "DNS over TCP and IPv6", SEES_TCP, tcp("dns6", 53)),
        ("dns.tls4", "D1", "DNS over TLS (TCP 853)", SEES_TCP, tcp("dns4", 853)),
        ("dns.quic4", "D1", "DNS over QUIC (UDP 853)", SEES_UDP, udp("dns4", 853)),
        ("dns.https4", "D1", "DNS over HTTPS (TCP 443)", SEES_TCP, tcp("dns4", 443)),
        ("dns.dnscrypt", "D1", "DNSCrypt (UDP 5443)", SEES_UDP, udp("dns4", 5443)),
        ("dns.alternative", "D1", "DNS at UDP 5353, unicast", SEES_UDP, ask("dns4", 5353)),
        ("dns.neighbour4", "D1", "DNS to a resolver of the LAN", SEES_UDP, ask("neighbour4")),
        ("dns.gateway4", "D1", "DNS to the router", SEES_UDP, ask("gateway4")),
        ("dns.router6", "D2", "DNS to the router's fe80:: address", SEES_UDP, ask("router6")),
        (
            "dns.router6-tcp",
            "D2",
            "DNS over TCP to the router's fe80:: address",
            SEES_TCP,
            tcp("router6", 53),
        ),
        ("dns.broadcast", "D1", "DNS by broadcast", SEES_UDP, ask("broadcast4", 53, broadcast)),
        ("dns.bound4", "B1", "DNS tied to the uplink", SEES_UDP, ask("dns4", 53, bound)),
        ("dns.bound6", "B1", "DNS over IPv6 tied to the uplink", SEES_UDP, ask("dns6", 53, bound)),
        (
            "dns.bound-tcp",
            "B1",
            "DNS over TCP tied to the uplink",
            SEES_TCP,
            tcp("dns4", 53, bound),
        ),
        (
            "dns.bound-router6",
            "B1",
            "DNS to the router's fe80:: address, tied to the uplink",
            SEES_UDP,
            ask("router6", 53, bound),
        ),
        ("dns.unicast-if", "B1", "DNS by IP_UNICAST_IF", SEES_UDP, ask("dns4", 53, by_interface)),
    )
)

# with the LAN listed as a bypass, names still must not be asked for there
_BYPASS = tuple(
    Vector(f"bypass.{name}", "D1", f"{title} to a bypassed LAN", sees, probe, needs=Needs.BYPASS)
    for name, title, sees, probe in (
        ("dns-udp4", "DNS", SEES_UDP, ask("neighbour4")),
        ("dns-udp6", "DNS over IPv6", SEES_UDP, ask("neighbour6")),
        ("dns-tcp4", "DNS over TCP", SEES_TCP, tcp("neighbour4", 53)),
        ("dns-tcp6", "DNS over TCP and IPv6", SEES_TCP, tcp("neighbour6", 53)),
        ("dns-tls4", "DNS over TLS", SEES_TCP, tcp("neighbour4", 853)),
        ("dns-tls6", "DNS over TLS and IPv6", SEES_TCP, tcp("neighbour6", 853)),
        ("dns-quic4", "DNS over QUIC", SEES_UDP, udp("neighbour4", 853)),
        ("dns-bound", "DNS tied to the uplink", SEES_UDP, ask("neighbour4", 53, bound)),
        ("mdns", "unicast mDNS", SEES_UDP, ask("neighbour4", 5353)),
        ("mdns-group", "multicast mDNS", SEES_UDP, ask("224.0.0.251", 5353)),
        ("llmnr-udp", "LLMNR", SEES_UDP, ask("neighbour4", 5355)),
        ("llmnr-tcp", "LLMNR over TCP", SEES_TCP, tcp("neighbour4", 5355)),
        ("netbios", "NetBIOS names", SEES_UDP, udp("neighbour4", 137)),
        ("netbios-broadcast", "NetBIOS broadcast", SEES_UDP, udp("broadcast4", 137, broadcast)),
        ("ssdp", "SSDP", SEES_UDP, udp("neighbour4", 1900)),
        ("outside-udp", "UDP past it, for all that,", SEES_UDP, udp("stranger4", 4433)),
        ("outside-dns", "DNS past it, for all that,", SEES_UDP, ask("dns4")),
    )
)

VECTORS: tuple[Vector, ...] = (
    *_QUERIES,
    _stub(53),
    _stub(5300),
    Vector(
        "dns.raw",
        "D1",
        "a DNS query made by hand",
        SEES_UDP,
        raw(_raw_query),
        Account.ROOT,
    ),
    Vector(
        "dns.from-53",
        "D1",
        "a DNS query from port 53",
        "udp and src port 53 and udp[8:2] = {n}",
        _from_53,
        Account.ROOT,
    ),
    *_BYPASS,
)
