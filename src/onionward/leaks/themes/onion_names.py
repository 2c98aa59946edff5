"""Names under .onion, asked of somebody else than tor.

A name is recognised on the wire by its address label, which begins with the attempt's number.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Scope, Sees, Vector
from onionward.leaks.sights import SEES_TCP, SEES_UDP, sees_asked
from onionward.leaks.tools import (
    UDP_SEGMENT,
    Build,
    Option,
    bound,
    broadcast,
    by_interface,
    open_socket,
    raw,
    sockaddr,
    tcp,
    udp,
)

_ADDRESS_LABEL = 56  # rend-spec-v3
_ANSWER_SECONDS = 0.3
_RESOLV_CONF = Path("/etc/resolv.conf")
_WWW = b"\x03www"
_DEEP = b"\x01a\x01b"

_DATAGRAM, _STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM

Name = Callable[[Attempt], str]


def _name(before: str = "", *, upper: bool = False, length: int = _ADDRESS_LABEL) -> Name:
    """A name under .onion with other labels in front of the address."""

    def name(attempt: Attempt) -> str:
        text = attempt.name.split(".")[0].ljust(length, "q") + ".onion"
        return before + (text.upper() if upper else text)

    return name


_BARE, _UPPER = _name(), _name(upper=True)
_SUBDOMAIN, _LONGEST = _name("www."), _name(f"{'x' * 63}.")
_DEEP_NAME, _SHORT = _name("a.b."), _name(length=20)


def _query(name: Name, *, kind: int = 1, additional: bytes = b"") -> Build:
    def build(attempt: Attempt) -> bytes:
        query = packets.dns_query(name(attempt), kind=kind)
        return query[:10] + struct.pack("!H", bool(additional)) + query[12:] + additional

    return build


# RFC 6891, 6.1.2: an OPT record, as all resolvers add one
_EDNS = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)


def _ask(to: str, *options: Option, name: Name = _BARE, kind: int = 1, port: int = 53) -> Probe:
    return udp(to, port, *options, payload=_query(name, kind=kind))


def _exchange(kind: socket.SocketKind, to: str, query: bytes) -> None:
    """Ask and wait a moment for the answer."""
    family, where = sockaddr(to, 53)
    with socket.socket(family, kind) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        with contextlib.suppress(TimeoutError):
            sock.connect(where)
            length = struct.pack("!H", len(query)) if kind == socket.SOCK_STREAM else b""
            sock.sendall(length + query)
            sock.recv(2000)


def _ask_tcp(to: str) -> Probe:
    def probe(attempt: Attempt) -> None:
        _exchange(socket.SOCK_STREAM, attempt.address(to), _query(_BARE)(attempt))

    return probe


def _ask_own(kind: socket.SocketKind, name: Name) -> Probe:
    """Ask the first resolver that resolv.conf names."""

    def probe(attempt: Attempt) -> None:
        lines = (line.split() for line in _RESOLV_CONF.read_text().splitlines())
        server = next(words[1] for words in lines if words[:1] == ["nameserver"])
        _exchange(kind, server, _query(name)(attempt))

    return probe


def _look_up(name: Name) -> Probe:
    """As programs do, by the library."""

    def probe(attempt: Attempt) -> None:
        os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
        with contextlib.suppress(socket.gaierror):
            socket.getaddrinfo(name(attempt), 80)

    return probe


def _by_hand(*, six: bool = False, options: bool = False) -> Build:
    """A query as a whole packet, with options or an extension header before the datagram."""

    def build(attempt: Attempt) -> bytes:
        targets = attempt.targets
        here, there = (targets.host6, targets.dns6) if six else (targets.host4, targets.dns4)
        datagram = packets.udp(here, there, attempt.number, 53, _query(_BARE)(attempt))
        if not six:
            return packets.ip4(
                here, there, packets.UDP, datagram, options=b"\x01" * 4 if options else b""
            )
        # PadN, RFC 8200, 4.2
        padding = packets.ip6_extension(packets.UDP, b"\x01\x04" + bytes(4))
        following = packets.DESTINATION_OPTIONS if options else packets.UDP
        return packets.ip6(here, there, following, padding + datagram if options else datagram)

    return build


def _segmented(attempt: Attempt) -> None:
    """Two queries in one call, which the device or the kernel takes apart (UDP_SEGMENT)."""
    wanted = _query(_BARE)(attempt)
    other = wanted.replace(b"\x05onion", b"\x05other")
    with open_socket(attempt.targets.dns4, _DATAGRAM, attempt) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(wanted))
        sock.sendto(other + wanted, (attempt.targets.dns4, 53))


def _sees_segmented(attempt: Attempt) -> str:
    # the label stands before the end of the name, the type and the class
    place = 8 + 2 * len(_query(_BARE)(attempt)) - len(b"onion") - 5
    return f"udp src port {attempt.number} and udp[{place}:4] = {int.from_bytes(b'onio', 'big'):#x}"


def _seen_by_name(*, before: bytes = b"", upper: bool = False) -> Sees:
    """A query for the name by whatever way, whoever sends it."""

    def sees(attempt: Attempt) -> str:
        found = (
            sees_asked(before=before, upper=upper, over=over) for over in ("udp", "udp6", "tcp")
        )
        return " or ".join(f"({each(attempt)})" for each in found if callable(each))

    return sees


# -- names -----------------------------------------------------------------------------------------

_DIRECT = tuple(
    Vector(f"onion-name.{name}", "D1", title, SEES_UDP, probe, account, scope=Scope.ONION)
    for suffix, whose, account in (("", "", Account.USER), ("-root", "root: ", Account.ROOT))
    for name, title, probe in (
        (f"udp4{suffix}", f"{whose}a .onion name, asked far away", _ask("dns4")),
        (f"udp6{suffix}", f"{whose}a .onion name, asked over IPv6", _ask("dns6")),
        (f"bound4{suffix}", f"{whose}a .onion name, tied to the uplink", _ask("dns4", bound)),
        (f"bound6{suffix}", f"{whose}a .onion name, tied, over IPv6", _ask("dns6", bound)),
        (f"router6{suffix}", f"{whose}a .onion name at fe80::", _ask("router6")),
    )
)

_FORMS = tuple(
    Vector(f"onion-name.{name}", "D1", title, SEES_UDP, probe, scope=Scope.ONION)
    for name, title, probe in (
        ("upper", "a .onion name in capitals", _ask("dns4", name=_UPPER)),
        ("www", "a name below a .onion address", _ask("dns4", name=_SUBDOMAIN)),
        ("www6", "a name below a .onion address, over IPv6", _ask("dns6", name=_SUBDOMAIN)),
        ("longest", "63 letters below a .onion address", _ask("dns4", name=_LONGEST)),
        ("aaaa", "the IPv6 address of a .onion name", _ask("dns4", kind=28)),
        ("https", "the HTTPS record of a .onion name", _ask("dns4", kind=65)),
        ("txt", "the text of a .onion name", _ask("dns6", kind=16)),
        (
            "edns",
            "a .onion name with EDNS",
            udp("dns4", 53, payload=_query(_BARE, additional=_EDNS)),
        ),
        ("neighbour4", "a .onion name at a resolver of the LAN", _ask("neighbour4")),
        ("neighbour6", "a .onion name there, over IPv6", _ask("neighbour6")),
        ("gateway4", "a .onion name at the router", _ask("gateway4")),
        ("broadcast", "a .onion name by broadcast", _ask("broadcast4", broadcast)),
        ("unicast-if", "a .onion name by IP_UNICAST_IF", _ask("dns4", by_interface)),
        ("bound-router6", "a .onion name at fe80::, tied to the uplink", _ask("router6", bound)),
    )
)

_RAW = tuple(
    Vector(f"onion-name.{name}", "D1", title, sees, raw(build), Account.ROOT, scope=Scope.ONION)
    for name, title, sees, build in (
        ("raw4", "a .onion name in a packet made by hand", SEES_UDP, _by_hand()),
        ("raw6", "a .onion name by hand, over IPv6", SEES_UDP, _by_hand(six=True)),
        ("options4", "a .onion name after IPv4 options", SEES_UDP, _by_hand(options=True)),
        (
            "options6",
            "a .onion name after an IPv6 extension header",
            "ip6[6] = 60 and ip6[48:2] = {n}",
            _by_hand(six=True, options=True),
        ),
    )
)

_OF_THE_MACHINE = tuple(
    Vector(f"onion-name.{name}", "D3", title, sees, probe, account, scope=Scope.ONION)
    for suffix, whose, account in (("", "", Account.USER), ("-root", "root: ", Account.ROOT))
    for name, title, sees, probe in (
        (
            f"library{suffix}",
            f"{whose}a .onion name, looked up as programs do",
            _seen_by_name(),
            _look_up(_BARE),
        ),
        (
            f"library-deep{suffix}",
            f"{whose}a name far below a .onion address, looked up as programs do",
            _seen_by_name(before=_DEEP),
            _look_up(_DEEP_NAME),
        ),
        (
            f"own-udp{suffix}",
            f"{whose}the machine's resolver, asked for a .onion name",
            _seen_by_name(),
            _ask_own(_DATAGRAM, _BARE),
        ),
        (
            f"own-upper{suffix}",
            f"{whose}the machine's resolver, asked in capitals",
            _seen_by_name(upper=True),
            _ask_own(_DATAGRAM, _UPPER),
        ),
        (
            f"own-short{suffix}",
            f"{whose}the machine's resolver, asked for an address of another length",
            _seen_by_name(),
            _ask_own(_DATAGRAM, _SHORT),
        ),
        (
            f"own-deep{suffix}",
            f"{whose}the machine's resolver, asked for more labels",
            _seen_by_name(before=_DEEP),
            _ask_own(_DATAGRAM, _DEEP_NAME),
        ),
        (
            f"own-tcp{suffix}",
            f"{whose}the machine's resolver, asked by TCP",
            _seen_by_name(),
            _ask_own(_STREAM, _BARE),
        ),
        (
            f"own-tcp-deep{suffix}",
            f"{whose}the machine's resolver, asked for more labels by TCP",
            _seen_by_name(before=_DEEP),
            _ask_own(_STREAM, _DEEP_NAME),
        ),
    )
)

_LIMITS = tuple(
    Vector(f"onion-limit.{name}", "D1", title, sees, probe, limit=True, scope=Scope.ONION)
    for name, title, sees, probe in (
        ("tcp4", "a .onion name by TCP", sees_asked(over="tcp"), _ask_tcp("dns4")),
        ("tcp6", "DNS by TCP over IPv6", SEES_TCP, tcp("dns6", 53)),
        ("tls", "DNS by TLS to a resolver of one's own choice", SEES_TCP, tcp("dns4", 853)),
        ("https", "DNS by HTTPS to a resolver of one's own choice", SEES_TCP, tcp("dns6", 443)),
        ("port", "a .onion name at another port", SEES_UDP, _ask("dns4", port=5353)),
        ("deep4", "more labels of a .onion name", SEES_UDP, _ask("dns4", name=_DEEP_NAME)),
        ("deep6", "more labels, over IPv6", SEES_UDP, _ask("dns6", name=_DEEP_NAME)),
        ("segmented", "a .onion name behind another in one call", _sees_segmented, _segmented),
        ("short", "a .onion name that is no version 3", SEES_UDP, _ask("dns4", name=_SHORT)),
    )
)


def _asked_before(to: str, *options: Option) -> Probe:
    """A socket that has asked another name already."""

    def probe(attempt: Attempt) -> Iterator[None]:
        address = attempt.address(to)
        with open_socket(address, _DATAGRAM, attempt, options) as sock:
            where = sockaddr(address, 53)[1]
            sock.sendto(packets.dns_query("www.example.test"), where)
            yield
            sock.sendto(_query(_BARE)(attempt), where)

    return probe


_NAMES_BEFORE = tuple(
    Vector(f"onion-name.{name}", "P2", title, sees, probe, prepared=True, scope=Scope.ONION)
    for name, title, sees, probe in (
        ("before4", "a .onion name from a socket of before", sees_asked(), _asked_before("dns4")),
        (
            "before6",
            "a .onion name from a socket of before, over IPv6",
            sees_asked(over="udp6"),
            _asked_before("dns6"),
        ),
        (
            "before-bound4",
            "a .onion name from a tied socket of before",
            sees_asked(),
            _asked_before("dns4", bound),
        ),
        (
            "before-router6",
            "a .onion name at fe80:: from a socket of before",
            sees_asked(over="udp6"),
            _asked_before("router6"),
        ),
    )
)

VECTORS: tuple[Vector, ...] = (
    *_DIRECT,
    *_FORMS,
    *_RAW,
    *_OF_THE_MACHINE,
    *_NAMES_BEFORE,
    *_LIMITS,
)
