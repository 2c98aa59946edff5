"""Packets to where tor maps names under .onion, which must reach tor by TCP or go nowhere."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Scope, Vector
from onionward.leaks.settings import foreign_table, run
from onionward.leaks.sights import SEES_PING6, SEES_TCP, SEES_UDP, sees_payload6
from onionward.leaks.tools import (
    Option,
    abort,
    bound,
    connect,
    marked,
    open_socket,
    ping,
    raw,
    sockaddr,
    tcp,
    udp,
)

_ANSWER_SECONDS = 0.3
_REPEATED_SECONDS = 1.3
_DATAGRAM, _STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM


def _datagrams(to: str, *options: Option) -> Probe:
    """One before and one after."""

    def probe(attempt: Attempt) -> Iterator[None]:
        address = attempt.address(to)
        with open_socket(address, _DATAGRAM, attempt, options) as sock:
            sock.connect(sockaddr(address, 80)[1])
            # the machine may refuse this one already
            with contextlib.suppress(OSError):
                sock.send(attempt.payload)
            yield
            sock.send(attempt.payload)

    return probe


def _connection(to: str, *options: Option) -> Probe:
    """One that still tries, or through Tor one that goes on."""

    def probe(attempt: Attempt) -> Iterator[None]:
        address = attempt.address(to)
        sock = open_socket(address, _STREAM, attempt, options)
        try:
            connected = connect(sock, address, 80, _ANSWER_SECONDS)
            yield
            if connected:
                sock.send(attempt.payload)
            # what was not answered is said again after a second
            time.sleep(_REPEATED_SECONDS)
        finally:
            abort(sock)

    return probe


def _routed_elsewhere(inner: Probe) -> Probe:
    """A more special route to the address, and a rule before all others that leads to another."""

    def probe(attempt: Attempt) -> None:
        targets, table = attempt.targets, str(attempt.number)
        way = ("via", targets.gateway6, "dev", targets.device)
        run("ip", "-6", "route", "add", f"{targets.onion6}/128", *way)
        run("ip", "-6", "rule", "add", "pref", "90", "fwmark", table, "lookup", table)
        run("ip", "-6", "route", "add", "default", *way, "table", table)
        try:
            inner(attempt)
        finally:
            run("ip", "-6", "rule", "delete", "pref", "90")
            run("ip", "-6", "route", "flush", "table", table)
            run("ip", "-6", "route", "delete", f"{targets.onion6}/128", *way)

    return probe


def _translated(attempt: Attempt) -> None:
    # somebody else's rule sends what goes to another address to a mapped one
    rules = (
        "chain c { type nat hook output priority -120; policy accept;"
        f" udp sport {attempt.number} dnat ip6 to [{attempt.targets.onion6}]:80; }}"
    )
    with foreign_table("inet", attempt.device, rules):
        udp("web6", 4433)(attempt)


def _protocol(attempt: Attempt) -> bytes:
    here, there = attempt.targets.host6, attempt.targets.onion6
    return packets.ip6(here, there, packets.EXPERIMENT, attempt.payload)


def _from_mapped(attempt: Attempt) -> bytes:
    here, there = attempt.targets.host6, attempt.targets.onion6
    segment = packets.tcp(here, there, attempt.number, 80, packets.ACK | packets.PSH, payload=b"x")
    return packets.ip6(here, there, packets.TCP, segment)


_SENT = tuple(
    Vector(f"onion-address.{name}", "A1", title, sees, probe, account, scope=Scope.ONION)
    for name, title, sees, probe, account in (
        ("bound-udp6", "UDP to a mapped IPv6 address, tied", SEES_UDP,
         udp("onion6", 80, bound), Account.USER),
        ("bound-tcp6", "TCP to a mapped IPv6 address, tied", SEES_TCP,
         tcp("onion6", 80, bound), Account.USER),
        ("names6", "DNS to a mapped address", SEES_UDP, udp("onion6", 53), Account.USER),
        ("bound-names4", "DNS to a mapped address, tied to the uplink", SEES_UDP,
         udp("onion4", 53, bound), Account.USER),
        ("root-udp6", "root's UDP to a mapped address", SEES_UDP,
         udp("onion6", 80), Account.ROOT),
        ("root-tcp6", "root's TCP to a mapped address", SEES_TCP,
         tcp("onion6", 80), Account.ROOT),
        ("root-bound-udp4", "root's UDP to a mapped address, tied", SEES_UDP,
         udp("onion4", 80, bound), Account.ROOT),
        ("root-bound-tcp4", "root's TCP to a mapped address, tied", SEES_TCP,
         tcp("onion4", 80, bound), Account.ROOT),
        ("ping6", "ping to a mapped address", SEES_PING6, ping("onion6"), Account.ROOT),
        ("bound-ping6", "ping to a mapped address, tied to the uplink", SEES_PING6,
         ping("onion6", bound), Account.ROOT),
        ("protocol6", "any other protocol to a mapped address", sees_payload6(packets.EXPERIMENT),
         raw(_protocol), Account.ROOT),
        ("segment6", "a TCP segment of no connection to a mapped address", SEES_TCP,
         raw(_from_mapped), Account.ROOT),
        ("bound-segment6", "a TCP segment of no connection, tied", SEES_TCP,
         raw(_from_mapped, bound), Account.ROOT),
        ("elsewhere-udp6", "UDP to a mapped address with a route elsewhere", SEES_UDP,
         _routed_elsewhere(udp("onion6", 80)), Account.ROOT),
        ("elsewhere-tcp6", "TCP to a mapped address with a route elsewhere", SEES_TCP,
         _routed_elsewhere(tcp("onion6", 80)), Account.ROOT),
        ("marked-udp6", "UDP to a mapped address by a rule of somebody else's", SEES_UDP,
         _routed_elsewhere(lambda attempt: udp("onion6", 80, marked(attempt.number))(attempt)),
         Account.ROOT),
        ("translated", "UDP that somebody else translates to a mapped address",
         SEES_UDP, _translated, Account.ROOT),
    )
)  # fmt: skip

_BEFORE = tuple(
    Vector(f"onion-address.{name}", family, title, sees, probe, prepared=True, scope=Scope.ONION)
    for name, family, title, sees, probe in (
        ("flow-udp6", "P2", "UDP to a mapped address, begun before", SEES_UDP,
         _datagrams("onion6")),
        ("flow-bound-udp6", "P2", "UDP to a mapped address, tied, begun before", SEES_UDP,
         _datagrams("onion6", bound)),
        ("flow-bound-udp4", "P2", "UDP to a mapped IPv4 address, tied, begun before", SEES_UDP,
         _datagrams("onion4", bound)),
        ("flow-tcp6", "P1", "TCP to a mapped address, begun before", SEES_TCP,
         _connection("onion6")),
        ("flow-bound-tcp6", "P1", "TCP to a mapped address, tied, begun before", SEES_TCP,
         _connection("onion6", bound)),
        ("flow-bound-tcp4", "P1", "TCP to a mapped IPv4 address, tied, begun before", SEES_TCP,
         _connection("onion4", bound)),
    )
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (*_SENT, *_BEFORE)
