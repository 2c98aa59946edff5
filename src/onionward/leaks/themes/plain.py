"""What applications send through ordinary sockets."""

from __future__ import annotations

import socket

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Needs, Probe, Vector
from onionward.leaks.settings import owned_by, sysctl
from onionward.leaks.sights import SEES_PING4, SEES_PING6, SEES_TCP, SEES_UDP, sees_payload4
from onionward.leaks.tools import (
    IP_PKTINFO,
    IPPROTO_MPTCP,
    TCP_FASTOPEN_NO_COOKIE,
    UDP_SEGMENT,
    abort,
    ask,
    broadcast,
    hops,
    ip_options,
    mapped,
    multicast,
    open_socket,
    ping,
    segment_route,
    sockaddr,
    tcp,
    udp,
)

# loose source route by way of the router (RFC 791): type 131, length 7, pointer 4
_ROUTE = bytes([131, 7, 4, 198, 18, 0, 1, 0])
_RECORD_ROUTE = bytes([7, 7, 4, 0, 0, 0, 0, 0])
# the same source route behind a record of no hops, and behind a byte of padding
_ROUTE_BEHIND = bytes([7, 3, 4, *_ROUTE[:7], 0, 0])
_ROUTE_PADDED = bytes([1, *_ROUTE[:7]])


def _fast_open(attempt: Attempt) -> None:
    sock = open_socket(attempt.targets.web4, socket.SOCK_STREAM, attempt)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sock.settimeout(0)
        where = (attempt.targets.web4, attempt.targets.peer_port)
        sock.sendto(attempt.payload, socket.MSG_FASTOPEN, where)
    except BlockingIOError:
        return
    finally:
        abort(sock)


def _mapped_tcp(attempt: Attempt) -> None:
    sock = open_socket("::", socket.SOCK_STREAM, attempt, (mapped,))
    try:
        sock.settimeout(0)
        sock.connect((f"::ffff:{attempt.targets.web4}", 80))
    except BlockingIOError:
        return
    finally:
        abort(sock)


def _mapped_udp(attempt: Attempt) -> None:
    with open_socket("::", socket.SOCK_DGRAM, attempt, (mapped,)) as sock:
        sock.sendto(attempt.payload, (f"::ffff:{attempt.targets.web4}", 443))


def _segmented(attempt: Attempt) -> None:
    with open_socket(attempt.targets.web4, socket.SOCK_DGRAM, attempt) as sock:
        sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 100)
        sock.sendto(attempt.payload * 20, (attempt.targets.web4, 443))


def _connected(attempt: Attempt) -> None:
    with open_socket(attempt.targets.web4, socket.SOCK_DGRAM, attempt) as sock:
        sock.connect((attempt.targets.web4, 4433))
        sock.send(attempt.payload)
        sock.send(attempt.payload)


def _with_ancillary(attempt: Attempt) -> None:
    # the device is named per packet (IP_PKTINFO), which no socket option shows
    index = socket.if_nametoindex(attempt.targets.device)
    info = index.to_bytes(4, "little") + bytes(8)
    with open_socket(attempt.targets.web4, socket.SOCK_DGRAM, attempt) as sock:
        sock.sendmsg(
            [attempt.payload],
            [(socket.IPPROTO_IP, IP_PKTINFO, info)],
            0,
            (attempt.targets.web4, 4433),
        )


def _udplite(to: str) -> Vector:
    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        family, where = sockaddr(address, 4433)
        with socket.socket(family, socket.SOCK_DGRAM, packets.UDPLITE) as sock:
            sock.bind(("", attempt.number))
            sock.sendto(attempt.payload, where)

    six = to.endswith("6")
    sees = "ip6[6] = 136 and ip6[40:2] = {n}" if six else sees_payload4(packets.UDPLITE)
    return Vector(f"udplite.{to}", "V6" if six else "U1", f"UDP-Lite to {to}", sees, probe)


_TCP = tuple(
    Vector(*row)
    for row in (
        ("tcp.web4", "U1", "TCP to a web server", SEES_TCP, tcp("web4", 80)),
        ("tcp.web6", "V6", "TCP to a web server over IPv6", SEES_TCP, tcp("web6", 80)),
        ("tcp.any4", "U1", "TCP to a port that nobody serves", SEES_TCP, tcp("stranger4", 4434)),
        (
            "tcp.any6",
            "V6",
            "TCP over IPv6 to a port that nobody serves",
            SEES_TCP,
            tcp("stranger6", 4434),
        ),
        ("tcp.neighbour4", "U1", "TCP to another host of the LAN", SEES_TCP, tcp("neighbour4", 80)),
        (
            "tcp.neighbour6",
            "V6",
            "TCP over IPv6 to another host of the LAN",
            SEES_TCP,
            tcp("neighbour6", 80),
        ),
        ("tcp.gateway4", "U1", "TCP to the router itself", SEES_TCP, tcp("gateway4", 80)),
        ("tcp.router6", "V6", "TCP to the router's fe80:: address", SEES_TCP, tcp("router6", 80)),
        (
            "tcp.relay",
            "T2",
            "TCP to a Tor relay's address, by somebody who is not tor",
            SEES_TCP,
            lambda attempt: tcp("relay", attempt.targets.relay[1])(attempt),
        ),
        ("tcp.fast-open", "U1", "data inside the SYN (TCP fast open)", SEES_TCP, _fast_open),
        ("tcp.mapped", "V6", "IPv4 through an IPv6 socket, TCP", SEES_TCP, _mapped_tcp),
        (
            "tcp.mptcp4",
            "X2",
            "Multipath TCP",
            "tcp and src port {n} and tcp[13] & 2 != 0",
            tcp("web4", 80, protocol=IPPROTO_MPTCP),
        ),
        (
            "tcp.mptcp6",
            "X2",
            "Multipath TCP over IPv6",
            "ip6[6] = 6 and ip6[40:2] = {n}",
            tcp("web6", 80, protocol=IPPROTO_MPTCP),
        ),
    )
)

_UDP = tuple(
    Vector(*row)
    for row in (
        ("udp.any4", "U1", "UDP to any port", SEES_UDP, udp("web4", 4433)),
        ("udp.any6", "V6", "UDP to any port over IPv6", SEES_UDP, udp("web6", 4433)),
        ("udp.quic4", "U1", "QUIC (UDP 443)", SEES_UDP, udp("web4", 443)),
        ("udp.quic6", "V6", "QUIC over IPv6", SEES_UDP, udp("web6", 443)),
        ("udp.ntp4", "U1", "the time (NTP, UDP 123)", SEES_UDP, udp("stranger4", 123)),
        ("udp.ntp6", "V6", "NTP over IPv6", SEES_UDP, udp("stranger6", 123)),
        ("udp.stun", "U1", "STUN, which WebRTC uses", SEES_UDP, udp("stranger4", 3478)),
        ("udp.wireguard", "U1", "a VPN's outer packets", SEES_UDP, udp("stranger4", 51820)),
        ("udp.syslog", "U1", "remote logging (UDP 514)", SEES_UDP, udp("stranger4", 514)),
        ("udp.neighbour4", "U1", "UDP to another host of the LAN", SEES_UDP, udp("neighbour4", 9)),
        ("udp.neighbour6", "V6", "UDP over IPv6 to another host of the LAN",
     SEES_UDP, udp("neighbour6", 9)),
        ("udp.gateway4", "U1", "UDP to the router (NAT-PMP)", SEES_UDP, udp("gateway4", 5351)),
        ("udp.router6", "V6", "UDP to the router's fe80:: address", SEES_UDP, udp("router6", 9)),
        ("udp.connected", "U1", "a connected UDP socket", SEES_UDP, _connected),
        ("udp.mapped", "V6", "IPv4 through an IPv6 socket, UDP", SEES_UDP, _mapped_udp),
        ("udp.pktinfo", "U1", "UDP with the device named per packet", SEES_UDP, _with_ancillary),
        ("udp.segmented", "U1", "segmented by the kernel (UDP_SEGMENT)", SEES_UDP, _segmented),
        (
            "udp.fragmented4",
            "U1",
            "a datagram larger than the wire, in fragments",
            "udp and src port {n} and ip[6:2] & 0x2000 != 0",
            udp("web4", 4433, payload=lambda attempt: attempt.payload * 150),
        ),
        (
            "udp.fragmented6",
            "V6",
            "an IPv6 datagram larger than the wire, in fragments",
            "ip6[6] = 44 and ip6[48:2] = {n}",
            udp("web6", 4433, payload=lambda attempt: attempt.payload * 150),
        ),
        (
            "udp.later-fragments",
            "U1",
            "fragments after the first, which carry no ports",
            # a gateway takes one hop away
            "ip[6:2] & 0x1fff != 0 and ip[1] = 0 and (ip[8] = 61 or ip[8] = 60)"
            " and dst host {web4}",
            udp("web4", 4433, hops(61), payload=lambda attempt: attempt.payload * 150),
        ),
        ("udp.ttl", "U1", "traceroute: UDP that dies at the first hop", SEES_UDP,
         udp("stranger4", 33434, hops(1))),
        (
            "udp.record-route",
            "U1",
            "UDP with the record-route option",
            "udp and ip[0] & 15 > 5 and src port {n}",
            udp("stranger4", 4433, ip_options(_RECORD_ROUTE)),
        ),
    )
)  # fmt: skip

_GROUPS = tuple(
    Vector(*row)
    for row in (
        ("cast.broadcast", "L1", "UDP to the LAN's broadcast address", SEES_UDP,
         udp("broadcast4", 4433, broadcast)),
        ("cast.everybody", "L1", "UDP to 255.255.255.255", SEES_UDP,
         udp("255.255.255.255", 4433, broadcast)),
        ("cast.group4", "L1", "UDP to a multicast group", SEES_UDP,
         udp("239.1.2.3", 4433, multicast)),
        ("cast.group6", "L1", "UDP to an IPv6 multicast group", SEES_UDP,
         udp("ff05::114", 4433, multicast)),
        ("cast.all-nodes", "L1", "UDP to every IPv6 host of the link", SEES_UDP,
         udp("ff02::1", 4433, multicast)),
        ("cast.mdns4", "L1", "mDNS", SEES_UDP, ask("224.0.0.251", 5353, multicast)),
        ("cast.mdns6", "L1", "mDNS over IPv6", SEES_UDP, ask("ff02::fb", 5353, multicast)),
        ("cast.llmnr4", "L1", "LLMNR", SEES_UDP, ask("224.0.0.252", 5355, multicast)),
        ("cast.llmnr6", "L1", "LLMNR over IPv6", SEES_UDP, ask("ff02::1:3", 5355, multicast)),
        ("cast.ssdp4", "L1", "SSDP (UPnP)", SEES_UDP, udp("239.255.255.250", 1900, multicast)),
        ("cast.ssdp6", "L1", "SSDP over IPv6", SEES_UDP, udp("ff02::c", 1900, multicast)),
        ("cast.netbios", "L1", "NetBIOS names, by broadcast", SEES_UDP,
         udp("broadcast4", 137, broadcast)),
        ("cast.browser", "L1", "NetBIOS datagrams, by broadcast", SEES_UDP,
         udp("broadcast4", 138, broadcast)),
        ("cast.dns", "L1", "DNS to a multicast group", SEES_UDP, ask("224.0.0.251", 53, multicast)),
        ("cast.dhcp6", "L1", "DHCPv6-shaped", SEES_UDP, udp("ff02::1:2", 547, multicast)),
    )
)  # fmt: skip

_PINGS = tuple(
    Vector(name, family, title, sees, probe, Account.ROOT)
    for name, family, title, sees, probe in (
        ("ping.any4", "U1", "ping", SEES_PING4, ping("stranger4")),
        ("ping.any6", "V6", "ping over IPv6", SEES_PING6, ping("stranger6")),
        ("ping.neighbour4", "U1", "ping of a host of the LAN", SEES_PING4, ping("neighbour4")),
        (
            "ping.neighbour6",
            "V6",
            "ping over IPv6 of a host of the LAN",
            SEES_PING6,
            ping("neighbour6"),
        ),
        ("ping.router6", "V6", "ping of the router's fe80:: address", SEES_PING6, ping("router6")),
        ("ping.all-nodes", "L1", "ping of ff02::1", SEES_PING6, ping("ff02::1", multicast)),
        ("ping.ttl", "U1", "traceroute with ICMP", SEES_PING4, ping("stranger4", hops(1))),
    )
)


def _ping_socket(to: str) -> Probe:
    """Ping without root, where the administrator allows it (ping_group_range)."""

    def probe(attempt: Attempt) -> None:
        family, where = sockaddr(attempt.address(to), 0)
        six = family == socket.AF_INET6
        protocol = packets.ICMP6 if six else packets.ICMP
        request = packets.icmp(128 if six else 8, 0, attempt.number << 16 | 1, attempt.payload)
        with (
            sysctl("net/ipv4/ping_group_range", "0 2147483647"),
            owned_by(attempt.targets.user_account),
            socket.socket(family, socket.SOCK_DGRAM, protocol) as sock,
        ):
            sock.bind(("", attempt.number))
            sock.sendto(request, where)

    return probe


_SOURCE_ROUTE = Vector(
    "udp.source-route",
    "U1",
    "UDP with a source route by way of the router",
    "ip proto 17 and ip[0] & 15 > 5 and src port {n}",
    udp("stranger4", 4433, ip_options(_ROUTE)),
    Account.ROOT,
)

_SOURCE_ROUTE_TCP = Vector(
    "tcp.source-route",
    "U1",
    "TCP with a source route by way of the router",
    "ip proto 6 and ip[0] & 15 > 5 and src port {n}",
    tcp("stranger4", 4434, ip_options(_ROUTE)),
    Account.ROOT,
)
_BYPASS = (
    Vector(
        "bypass.source-route",
        "U1",
        "UDP with a source route by way of a bypassed router",
        "ip proto 17 and ip[0] & 15 > 5 and src port {n}",
        udp("stranger4", 4433, ip_options(_ROUTE)),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
    *(
        Vector(
            f"bypass.source-route-{name}",
            "U1",
            f"UDP with a source route by way of a bypassed router, {words}",
            "ip proto 17 and ip[0] & 15 > 5 and src port {n}",
            udp("stranger4", 4433, ip_options(options)),
            Account.ROOT,
            needs=Needs.BYPASS,
        )
        for name, words, options in (
            ("behind", "behind another option", _ROUTE_BEHIND),
            ("padded", "behind a byte of padding", _ROUTE_PADDED),
        )
    ),
    Vector(
        "bypass.segment-route",
        "V6",
        "UDP with an IPv6 segment route by way of a bypassed host",
        "ip6[6] = 43 and ip6 dst host {neighbour6}",
        udp("stranger6", 4433, segment_route("neighbour6")),
        needs=Needs.BYPASS,
    ),
)

VECTORS: tuple[Vector, ...] = (
    _SOURCE_ROUTE,
    _SOURCE_ROUTE_TCP,
    *_BYPASS,
    Vector(
        "ping.socket4",
        "U1",
        "ping without root",
        SEES_PING4,
        _ping_socket("stranger4"),
        Account.ROOT,
    ),
    Vector(
        "ping.socket6",
        "V6",
        "ping without root over IPv6",
        SEES_PING6,
        _ping_socket("stranger6"),
        Account.ROOT,
    ),
    *_TCP,
    *_UDP,
    _udplite("web4"),
    _udplite("web6"),
    *_GROUPS,
    *_PINGS,
)
