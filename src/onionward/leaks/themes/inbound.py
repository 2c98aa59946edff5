"""What the host answers when it should be silent. The code runs on the far end of the wire."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

from onionward.leaks import packets
from onionward.leaks.model import Attempt, Needs, Place, Probe, Vector
from onionward.leaks.settings import device, foreign_table, sysctl
from onionward.leaks.themes import primed
from onionward.leaks.tools import Build, from_wire

_SECOND4 = "198.19.33.1"
_SECOND6 = "2001:db8:33::1"


def _ends(attempt: Attempt, who: str, whom: str) -> tuple[str, str]:
    return attempt.address(who), attempt.address(whom)


def segment(flags: int, port: int | str, *, who: str = "stranger4", whom: str = "host4") -> Build:
    """A TCP segment from the attempt's own port; the port it goes to may be a name of Targets."""

    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, who, whom)
        number = getattr(attempt.targets, port) if isinstance(port, str) else port
        body = packets.tcp(
            source, target, attempt.number, number or attempt.number, flags, acknowledge=9
        )
        return packets.ip(source, target, packets.TCP, body)

    return build


def datagram(port: int | str, *, who: str = "stranger4", whom: str = "host4") -> Build:
    """A UDP datagram; as `segment`."""

    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, who, whom)
        number = getattr(attempt.targets, port) if isinstance(port, str) else port
        body = packets.udp(
            source, target, attempt.number, number or attempt.number, attempt.payload
        )
        return packets.ip(source, target, packets.UDP, body)

    return build


def _echo(kind: int, *, who: str = "stranger4", whom: str = "host4") -> Build:
    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, who, whom)
        word = attempt.number << 16 | 1
        if ":" in target:
            body = packets.icmp6(source, target, kind, 0, word, attempt.payload)
            return packets.ip6(source, target, packets.ICMP6, body)
        body = packets.icmp(kind, 0, word, attempt.payload)
        return packets.ip4(source, target, packets.ICMP, body)

    return build


def _protocol(protocol: int, *, who: str = "stranger4", whom: str = "host4") -> Build:
    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, who, whom)
        return packets.ip(source, target, protocol, attempt.payload)

    return build


def _bad_option6(whom: str) -> Build:
    """An option that demands an ICMPv6 error, even of a multicast packet (RFC 8200, type 10)."""

    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, "stranger6", whom)
        body = packets.ip6_extension(59, struct.pack("!BBI", 0x8A, 4, attempt.number))
        return packets.ip6(source, target, packets.DESTINATION_OPTIONS, body)

    return build


def _half_a_packet(attempt: Attempt) -> bytes:
    source, target = attempt.targets.stranger4, attempt.targets.host4
    body = packets.udp(source, target, attempt.number, attempt.number, attempt.payload)
    return packets.ip4(
        source, target, packets.UDP, body[:24], fragment=0x2000, identification=attempt.number
    )


def _igmp_query(attempt: Attempt) -> bytes:
    body = packets.igmp_query()
    return packets.ip4(
        attempt.targets.gateway4, "224.0.0.1", packets.IGMP, body, ttl=1, options=b"\x94\x04\0\0"
    )


def _mld_query(attempt: Attempt) -> bytes:
    source = attempt.targets.router6
    # the four bytes after the group make it a query of version 2
    body = packets.icmp6(source, "ff02::1", 130, 0, 1 << 16, bytes(16) + b"\x02\x0a\0\0")
    alert = packets.ip6_extension(packets.ICMP6, b"\x05\x02\0\0\x01\0")
    return packets.ip6(source, "ff02::1", packets.HOP_BY_HOP, alert + body, hops=1)


def _serve_tcp(attempt: Attempt, address: str) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, attempt.number))
        sock.listen()
        yield


def _serve_udp(_attempt: Attempt, address: str, port: int) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        yield
        while select.select([sock], [], [], 0.05)[0]:
            data, where = sock.recvfrom(2000)
            sock.sendto(data, where)


def tcp_service(to: str) -> Probe:
    """A TCP service on the attempt's own port."""
    return lambda attempt: _serve_tcp(attempt, attempt.address(to))


def _udp_service(to: str, *, ephemeral: bool = False) -> Probe:
    def probe(attempt: Attempt) -> Iterator[None]:
        port = _ephemeral(attempt) if ephemeral else attempt.number
        return _serve_udp(attempt, attempt.address(to), port)

    return probe


def _ephemeral(attempt: Attempt) -> int:
    return attempt.number + 20000


def _to_ephemeral(attempt: Attempt) -> bytes:
    source, target = attempt.targets.neighbour4, attempt.targets.host4
    body = packets.udp(source, target, attempt.number, _ephemeral(attempt), attempt.payload)
    return packets.ip4(source, target, packets.UDP, body)


def _serve_local(attempt: Attempt) -> Iterator[None]:
    # martian packets for 127.0.0.0/8 are taken from a wire only like this
    with sysctl(f"net/ipv4/conf/{attempt.targets.device}/route_localnet", "1"):
        yield from _serve_tcp(attempt, "127.0.0.1")


def _serve_second(attempt: Attempt) -> Iterator[None]:
    name = attempt.device
    with device(
        name,
        f"link add {name} type veth peer name {name}p",
        f"link set {name} up",
        f"link set {name}p up",
        f"address add {_SECOND4}/24 dev {name}",
        f"address add {_SECOND6}/64 dev {name} nodad",
    ):
        yield


def _serve_short_fragments(_attempt: Attempt) -> Iterator[None]:
    with sysctl("net/ipv4/ipfrag_time", "1"):
        yield
        select.select([], [], [], 1.6)


def _serve_forwarding(_attempt: Attempt) -> Iterator[None]:
    with sysctl("net/ipv4/ip_forward", "1"), sysctl("net/ipv6/conf/all/forwarding", "1"):
        yield


def _hop(who: str, whom: str, *, ttl: int = 64) -> Build:
    """A datagram for somebody else that the host would have to route."""

    def build(attempt: Attempt) -> bytes:
        source, target = _ends(attempt, who, whom)
        body = packets.udp(source, target, attempt.number, 4433, attempt.payload)
        if ":" in target:
            return packets.ip6(source, target, packets.UDP, body, hops=ttl)
        return packets.ip4(source, target, packets.UDP, body, ttl=ttl)

    return build


def _responder(group: str, port: int) -> Probe:
    """A service that answers what is asked of a group, as avahi does."""

    def probe(attempt: Attempt) -> Iterator[None]:
        index = socket.if_nametoindex(attempt.targets.device)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            request = struct.pack("=4s4si", socket.inet_aton(group), b"", index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            sock.bind((group, port))
            yield
            while select.select([sock], [], [], 0.05)[0]:
                _, (host, number) = sock.recvfrom(2000)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answer:
                    answer.sendto(attempt.payload, (host, number))

    return probe


def _serve_foreign(family: str, rules: str) -> Probe:
    """Somebody else's table that answers strangers; `{n}` and `{device}` are filled in."""

    def probe(attempt: Attempt) -> Iterator[None]:
        text = rules.replace("{n}", str(attempt.number))
        text = text.replace("{device}", attempt.targets.device)
        with foreign_table(family, attempt.device, text):
            yield

    return probe


_REJECTS = (
    "chain c { type filter hook prerouting priority -400; tcp sport {n} reject with tcp reset; }"
)
_REJECTS_BELOW = (
    'chain c { type filter hook ingress device "{device}" priority 0;'
    " tcp sport {n} reject with tcp reset; }"
)
_PROXIES = (
    "chain r { type filter hook prerouting priority -300; tcp sport {n} notrack; }\n"
    "chain c { type filter hook input priority -10;"
    " tcp sport {n} synproxy mss 1460 wscale 7 timestamp sack-perm; }"
)


def _serve_groups(attempt: Attempt) -> Iterator[None]:
    index = socket.if_nametoindex(attempt.targets.device)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
    ):
        group4 = struct.pack("=4s4si", socket.inet_aton("239.77.8.8"), b"", index)
        four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group4)
        group6 = socket.inet_pton(socket.AF_INET6, "ff05::8:8") + struct.pack("=i", index)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group6)
        yield
        select.select([], [], [], 1.2)


_ANSWERS_TCP = "tcp and dst port {n}"
_ANSWERS_UDP = "udp and dst port {n}"
_ERROR4 = "icmp[0] = 3 and icmp[28:2] = {n}"
_ERROR6 = "icmp6 and ip6[40] = 1 and ip6[88:2] = {n}"
_SYN, _ACK, _SYN_ACK = packets.SYN, packets.ACK, packets.SYN | packets.ACK
_FROM6 = {"who": "stranger6", "whom": "host6"}
_LAN4 = {"who": "neighbour4"}
_LAN6 = {"who": "neighbour6", "whom": "host6"}

_Row = tuple[str, str, str, str, Build, Probe | None]
_ROWS: tuple[_Row, ...] = (
    ("closed-tcp4", "K1", "TCP to a closed port", _ANSWERS_TCP, segment(_SYN, 0), None),
    ("closed-tcp6", "K1", "TCP to a closed port, IPv6", _ANSWERS_TCP,
     segment(_SYN, 0, **_FROM6), None),
    ("open-tcp4", "K1", "TCP to an open service", _ANSWERS_TCP, segment(_SYN, 0),
     tcp_service("host4")),
    ("open-tcp6", "K1", "TCP to an open service, IPv6", _ANSWERS_TCP, segment(_SYN, 0, **_FROM6),
     tcp_service("host6")),
    ("ack", "K1", "an ACK for no connection", _ANSWERS_TCP, segment(_ACK, 0), None),
    ("ack-open", "K1", "an ACK for an open service", _ANSWERS_TCP, segment(_ACK, 0),
     tcp_service("host4")),
    ("syn-ack", "K1", "a SYN/ACK that nobody asked for", _ANSWERS_TCP, segment(_SYN_ACK, 0), None),
    ("syn-ack6", "K1", "a SYN/ACK over IPv6 that nobody asked for",
     _ANSWERS_TCP, segment(_SYN_ACK, 0, **_FROM6), None),
    ("fin", "K1", "a FIN for no connection", _ANSWERS_TCP, segment(packets.FIN, 0), None),
    ("closed-udp4", "K1", "UDP to a closed port", _ERROR4, datagram(0), None),
    ("closed-udp6", "K1", "UDP to a closed port, IPv6", _ERROR6, datagram(0, **_FROM6), None),
    ("open-udp4", "K1", "UDP to an open service", _ANSWERS_UDP, datagram(0),
     _udp_service("host4")),
    ("open-udp6", "K1", "UDP to an open service, IPv6", _ANSWERS_UDP, datagram(0, **_FROM6),
     _udp_service("host6")),
    ("ping4", "K1", "ping", "icmp[0] = 0 and icmp[4:2] = {n}", _echo(8), None),
    ("ping6", "K1", "ping over IPv6", "icmp6 and ip6[40] = 129 and ip6[44:2] = {n}",
     _echo(128, **_FROM6), None),
    ("ping-group6", "K1", "ping of every host, from afar",
     "icmp6 and ip6[40] = 129 and ip6[44:2] = {n}",
     _echo(128, who="stranger6", whom="ff02::1"), None),
    ("timestamp", "K1", "ICMP timestamp request", "icmp[0] = 14 and icmp[4:2] = {n}", _echo(13),
     None),
    ("protocol4", "K1", "an unknown protocol", "icmp[0] = 3 and icmp[28:2] = {n}",
     _protocol(packets.EXPERIMENT), None),
    ("protocol6", "K1", "an unknown protocol, IPv6",
     "icmp6 and ip6[40] = 4 and ip6[88:2] = {n}", _protocol(packets.EXPERIMENT, **_FROM6), None),
    ("option6", "K1", "an IPv6 option that demands an error",
     "icmp6 and ip6[40] = 4 and ip6[94:2] = {n}", _bad_option6("host6"), None),
    ("option6-group", "K1", "an IPv6 option that demands an error, to every host of the link",
     "icmp6 and ip6[40] = 4 and ip6[94:2] = {n}", _bad_option6("ff02::1"), None),
    ("fragment", "K1", "half a packet: the error comes later",
     "icmp[0] = 11 and icmp[28:2] = {n}", _half_a_packet, _serve_short_fragments),
    ("trans-port", "K1", "TransPort from afar", _ANSWERS_TCP, segment(_SYN, "trans_port"), None),
    ("dns-port", "K1", "DNSPort from afar", _ERROR4, datagram("dns_port"), None),
    ("lan-trans-port4", "K1", "TransPort from the LAN", _ANSWERS_TCP,
     segment(_SYN, "trans_port", **_LAN4), None),
    ("lan-trans-port6", "K1", "TransPort from the LAN, IPv6", _ANSWERS_TCP,
     segment(_SYN, "trans_port", **_LAN6), None),
    ("lan-dns-port", "K1", "DNSPort from the LAN", _ERROR4, datagram("dns_port", **_LAN4), None),
    ("lan-dns", "K1", "DNS from the LAN", _ERROR4, datagram(53, **_LAN4), None),
    ("lan-mdns", "L1", "mDNS from the LAN", _ERROR4, datagram(5353, **_LAN4), None),
    ("lan-llmnr", "L1", "LLMNR from the LAN", _ERROR4, datagram(5355, **_LAN4), None),
    ("lan-netbios", "L1", "NetBIOS from the LAN", _ERROR4, datagram(137, **_LAN4), None),
    ("lan-ssdp", "L1", "SSDP from the LAN", _ERROR4, datagram(1900, **_LAN4), None),
    ("lan-mdns6", "L1", "mDNS from the LAN, IPv6", _ERROR6, datagram(5353, **_LAN6), None),
    ("lan-ephemeral", "K1", "UDP from the LAN to a port that an application happens to use",
     _ANSWERS_UDP, _to_ephemeral, _udp_service("host4", ephemeral=True)),
    ("igmp-query", "L1", "the router asks for IPv4 groups", "igmp", _igmp_query, _serve_groups),
    ("mld-query", "L1", "the router asks for IPv6 groups",
     "ip6[6] = 0 and (ip6[48] = 143 or ip6[48] = 131)", _mld_query, _serve_groups),
    ("mdns-group", "L1", "mDNS to the group, a responder runs", "udp and dst port {n}",
     datagram(5353, who="neighbour4", whom="224.0.0.251"), _responder("224.0.0.251", 5353)),
    ("llmnr-group", "L1", "LLMNR to the group, a responder runs", "udp and dst port {n}",
     datagram(5355, who="neighbour4", whom="224.0.0.252"), _responder("224.0.0.252", 5355)),
    ("ssdp-group", "L1", "SSDP to the group, a responder runs", "udp and dst port {n}",
     datagram(1900, who="neighbour4", whom="239.255.255.250"),
     _responder("239.255.255.250", 1900)),
    ("foreign-reject", "X5", "somebody's rule rejects a stranger", _ANSWERS_TCP,
     segment(_SYN, 0), _serve_foreign("inet", _REJECTS)),
    ("foreign-reject-below", "X5", "somebody's rule rejects a stranger below IP", _ANSWERS_TCP,
     segment(_SYN, 0), _serve_foreign("netdev", _REJECTS_BELOW)),
    ("foreign-synproxy", "X5", "somebody's SYN proxy answers a stranger", _ANSWERS_TCP,
     segment(_SYN, 0), _serve_foreign("inet", _PROXIES)),
    ("relay", "K1", "a forged SYN/ACK of a Tor relay", _ANSWERS_TCP,
     segment(_SYN_ACK, 0, who="relay"), None),
    ("hop-udp4", "F1", "a packet for somebody else, forwarding on", "udp and src port {n}",
     _hop("stranger4", "198.18.99.9"), _serve_forwarding),
    ("hop-udp6", "F1", "an IPv6 packet for somebody else, forwarding on", "udp and src port {n}",
     _hop("stranger6", "2001:db8:99::9"), _serve_forwarding),
    ("hop-ttl", "F1", "the complaint about a packet for somebody else that died here",
     "icmp[0] = 11 and icmp[28:2] = {n}", _hop("stranger4", "198.18.99.9", ttl=1),
     _serve_forwarding),
    ("hop-ttl6", "F1", "the complaint about an IPv6 packet for somebody else that died here",
     "icmp6 and ip6[40] = 3 and ip6[88:2] = {n}",
     _hop("stranger6", "2001:db8:99::9", ttl=1), _serve_forwarding),
    ("hop-redirect", "F1", "the advice to take another way (ICMP redirect)",
     "icmp[0] = 5 and icmp[28:2] = {n}", _hop("neighbour4", "198.18.99.9"), _serve_forwarding),
    ("hop-bounce", "F1", "a neighbour's packet for another host of the link",
     "udp and src port {n}", _hop("neighbour4", "gateway4"), _serve_forwarding),
    ("localnet", "K2", "TCP to 127.0.0.1 from the wire (route_localnet=1)",
     "src host 127.0.0.1 and " + _ANSWERS_TCP,
     segment(_SYN, 0, whom="127.0.0.1"), _serve_local),
    ("localnet-lan", "K2", "TCP to 127.0.0.1 from a neighbour (route_localnet=1)",
     "src host 127.0.0.1 and " + _ANSWERS_TCP,
     segment(_SYN, 0, who="neighbour4", whom="127.0.0.1"), _serve_local),
    ("weak-syn-ack", "K3", "SYN/ACK for another interface's address (CVE-2019-14899)",
     f"src host {_SECOND4} and {_ANSWERS_TCP}",
     segment(_SYN_ACK, 0, who="neighbour4", whom=_SECOND4), _serve_second),
    ("weak-syn", "K3", "SYN for another interface's address",
     f"src host {_SECOND4} and {_ANSWERS_TCP}",
     segment(_SYN, 0, who="neighbour4", whom=_SECOND4), _serve_second),
    ("weak-syn6", "K3", "SYN over IPv6 for another interface's address",
     f"src host {_SECOND6} and {_ANSWERS_TCP}",
     segment(_SYN, 0, who="neighbour6", whom=_SECOND6), _serve_second),
    ("weak-ping", "K3", "ping of another interface's address",
     f"src host {_SECOND4} and icmp[4:2] = {{n}}",
     _echo(8, who="neighbour4", whom=_SECOND4), _serve_second),
)  # fmt: skip

# with the default, a neighbour is answered here
_NEIGHBOURS: tuple[_Row, ...] = (
    ("lan-closed-tcp4", "K1", "TCP of a neighbour to a closed port", _ANSWERS_TCP,
     segment(_SYN, 0, **_LAN4), None),
    ("lan-open-tcp4", "K1", "TCP of a neighbour to an open service", _ANSWERS_TCP,
     segment(_SYN, 0, **_LAN4), tcp_service("host4")),
    ("lan-open-tcp6", "K1", "TCP over IPv6 of a neighbour to an open service", _ANSWERS_TCP,
     segment(_SYN, 0, **_LAN6), tcp_service("host6")),
    ("lan-open-udp4", "K1", "UDP of a neighbour to an open service", _ANSWERS_UDP,
     datagram(0, **_LAN4), _udp_service("host4")),
    ("lan-ping4", "K1", "ping of a neighbour", "icmp[0] = 0 and icmp[4:2] = {n}",
     _echo(8, **_LAN4), None),
    ("lan-ping6", "K1", "ping over IPv6 of a neighbour",
     "icmp6 and ip6[40] = 129 and ip6[44:2] = {n}", _echo(128, **_LAN6), None),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = primed.VECTORS + tuple(
    Vector(
        f"in.{name}",
        family,
        f"from the wire: {title}",
        sees,
        from_wire(build),
        place=Place.WIRE,
        needs=needs,
        serve=serve,
    )
    for needs, rows in ((Needs.NOTHING, _ROWS), (Needs.SILENCE, _NEIGHBOURS))
    for name, family, title, sees, build, serve in rows
)
