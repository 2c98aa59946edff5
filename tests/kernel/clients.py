"""Packets that clients of a LAN send, as frames of their own making."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

from onionward.app.root.places import TOR4, TOR6
from onionward.explain import Packet
from onionward.facts import Link
from onionward.leaks import packets as raw
from onionward.networks import Address, Network, contains
from onionward.policy import CIRCUITS4, CIRCUITS6, RELAY4, RELAY6, Lan, Policy
from tests.kernel.cases import ACK, ECHO, SYN, Send, is_group
from tests.kernel.policies import DEVICES, PLACES, edges
from tests.support import addr, net

HARDWARE = "02:00:5e:00:01:01"
_SEQUENCE = 1000
_EVERYBODY = "ff:ff:ff:ff:ff:ff"
# of the machine, by the interface that a frame for it arrives at
_MACHINE = {device.name: device.hardware for device in DEVICES}

_LINK_LOCAL = addr("fe80::c")
_SPOOFED_TEXT = """
    1.1.1.1 2606:4700::1111 198.18.0.9 2001:db8:18::9 127.0.0.1 ::1 0.0.0.0 :: 0.0.0.5
    255.255.255.255 224.0.0.1 240.0.0.1 fe80:0:0:1::c 198.18.8.9 192.168.44.9 2001:db8:8::9
    fd00:44::9 198.18.8.255 2001:db8:8::
"""
_SPOOFED = tuple(map(addr, _SPOOFED_TEXT.split()))
_PUBLIC = tuple(map(addr, ("1.1.1.1", "2606:4700::1111", "198.18.200.1", "2001:db8:ff::1")))
# others have checksums of their own, without which connection tracking takes them for nothing
_OTHERS = ["gre", "esp", "igmp"]
_SERVICES = (("tcp", 22), ("tcp", 8080), ("tcp", 443), ("udp", 69), ("udp", 8080), (None, None))
_TCP_PORTS = (443, 443, 53, 22, 8080, 80, 853, 940, 941, 137, 65535)
_UDP_PORTS = (53, 53, 53, 443, 67, 69, 137, 547, 940, 941, 1900, 5353, 8080)


def client(
    interface: str,
    source: Address,
    to: Address,
    protocol: str,
    port: int | None = None,
    source_port: int | None = None,
    *,
    kind: int | None = None,
) -> Send:
    """A packet of a client; TCP opens a connection and ICMP is an echo unless `kind` says else."""
    chosen = (SYN if protocol == "tcp" else ECHO[to.version]) if kind is None else kind
    packet = Packet(
        protocol,
        to,
        port,
        0,
        source_port,
        source,
        opens=protocol != "tcp" or chosen == SYN,
        interface=interface,
        is_echo=chosen == ECHO[to.version],
    )
    return Send(packet, interface, protocol != "tcp" or chosen != SYN, chosen)


@st.composite
def packets_of_clients(draw: st.DrawFn, links: tuple[Link, ...], policy: Policy) -> Send:
    """Packets that arrive at the interface of a LAN, believable or not."""
    lan = draw(st.sampled_from(policy.lans))
    is_honest = draw(st.sampled_from([True, True, True, True, False]))
    source = draw(st.sampled_from(_honest(lan) if is_honest else _spoofed(links, policy)))
    version = source.version
    own = [a for a in lan.addresses if a.version == version]
    places = [a for a in _destinations(links, policy, lan) if a.version == version]
    public = [a for a in _PUBLIC if a.version == version]
    match draw(st.sampled_from(["web", "name", "onion", "service", "dhcp", *["any"] * 4])):
        case "web":
            return client(lan.interface, source, draw(st.sampled_from(public)), "tcp", 443)
        case "name":
            to = draw(st.sampled_from([*own, *public, *places]))
            return client(lan.interface, source, to, "udp", 53)
        case "onion":
            to = policy.virtual4[5] if version == 4 else policy.virtual6[5]
            return client(lan.interface, source, to, "tcp", 80)
        case "service" if own:
            protocol, port = draw(st.sampled_from(_SERVICES))
            chosen = protocol or ("icmp" if version == 4 else "ipv6-icmp")
            return client(lan.interface, source, draw(st.sampled_from(own)), chosen, port)
        case "dhcp":
            ports = draw(st.sampled_from([(68, 67), (546, 547), (67, 68)]))
            to = draw(st.sampled_from([*_servers(lan, version), *places]))
            return client(lan.interface, source, to, "udp", ports[1], ports[0])
        case _:
            to = draw(st.sampled_from(places))
            return draw(_anything(links, lan, source, to))


@st.composite
def _anything(
    draw: st.DrawFn, links: tuple[Link, ...], lan: Lan, source: Address, to: Address
) -> Send:
    icmp = "icmp" if to.version == 4 else "ipv6-icmp"
    protocol = draw(st.sampled_from(["tcp"] * 4 + ["udp"] * 4 + [icmp] * 2 + _OTHERS))
    port = kind = None
    if protocol == "tcp":
        port = draw(st.sampled_from(_TCP_PORTS))
        networks = [n for link in links for n in link.networks]
        closed = is_group(networks, to) or draw(st.integers(0, 2)) == 2
        kind = draw(st.sampled_from([ACK, SYN])) if closed else SYN
    if protocol == "udp":
        port = draw(st.sampled_from(_UDP_PORTS) | st.integers(1, 65535))
    if protocol == icmp:
        kind = draw(st.sampled_from((8, 13) if to.version == 4 else (128, 139)))
    return client(lan.interface, source, to, protocol, port, kind=kind)


def _honest(lan: Lan) -> list[Address]:
    """Addresses that clients of a LAN may have."""
    large = [n for n in lan.networks if n.num_addresses > 16 and not n.is_link_local]
    found = [a for n in large for a in (n[9], n[-2]) if a not in lan.addresses]
    return [*found, _LINK_LOCAL]


def _spoofed(links: tuple[Link, ...], policy: Policy) -> list[Address]:
    own = [a for link in links for a in link.addresses]
    return [
        *_SPOOFED,
        *own,
        RELAY4,
        RELAY6,
        CIRCUITS4[1],
        CIRCUITS6[9],
        *(n[5] for n in policy.virtual),
    ]


def _destinations(links: tuple[Link, ...], policy: Policy, lan: Lan) -> list[Address]:
    # the addresses of the LAN and of tor's relay weigh as much as everything else together
    near = [*lan.addresses, *_honest(lan), *edges(lan.networks), RELAY4, RELAY6]
    near += [addr(TOR4), addr(TOR6)]
    near += [n[5] for n in policy.virtual] + [n[-1] for n in policy.virtual]
    own = [a for link in links for a in link.addresses]
    networks = [n for link in links for n in link.networks]
    far = [*PLACES, *own, *edges(networks), *edges(policy.bypass), *edges(policy.unroutable)]
    far += [CIRCUITS4[1], CIRCUITS6[9]]
    silent = [net("ff00::/16"), net("ff01::/16")]
    times = max(1, len(far) // len(near))
    return [a for a in (*near * times, *far) if not contains(silent, a)]


def _servers(lan: Lan, version: int) -> list[Address]:
    """Where DHCP clients look for a server."""
    if version == 6:
        return [addr("ff02::1:2"), *(a for a in lan.addresses if a.version == 6)]
    broadcast = [n.broadcast_address for n in lan.networks if n.version == 4]
    return [addr("255.255.255.255"), *broadcast, *(a for a in lan.addresses if a.version == 4)]


def frame(send: Send, source_port: int, token: str, networks: Sequence[Network] = ()) -> bytes:
    """The Ethernet frame of a packet.

    Args:
        send: the packet.
        source_port: the port, or the identifier of ICMP.
        token: by which it is known again.
        networks: those of the machine, for their broadcast addresses.

    """
    packet = send.packet
    source, to = str(packet.source), str(packet.destination)
    payload = token.encode()
    match packet.protocol:
        case "tcp":
            assert packet.port is not None
            body = raw.tcp(
                source,
                to,
                source_port,
                packet.port,
                send.kind,
                sequence=_SEQUENCE,
                payload=payload,
            )
        case "udp":
            assert packet.port is not None
            body = raw.udp(source, to, source_port, packet.port, payload)
        case "icmp":
            body = raw.icmp(send.kind, 0, source_port << 16 | 1, payload)
        case "ipv6-icmp":
            body = raw.icmp6(source, to, send.kind, 0, source_port << 16 | 1, payload)
        case _:
            body = _with_checksum(send, payload)
    return _ethernet(send, raw.ip(source, to, send.number, body), networks)


def _with_checksum(send: Send, payload: bytes) -> bytes:
    """What has no checksum that is right, as ICMP has it, is told to nobody."""
    packet = send.packet
    assert packet.source is not None
    assert len(payload) % 2 == 0
    ends = b""
    if packet.destination.version == 6:
        ends = packet.source.packed + packet.destination.packed
        ends += struct.pack("!IHBB", len(payload) + 2, 0, 0, send.number)
    return payload + struct.pack("!H", raw.checksum(ends + payload))


def acknowledgement(send: Send, source_port: int, their_sequence: int) -> bytes:
    """What completes a connection that was answered."""
    packet = send.packet
    assert packet.port is not None
    source, to = str(packet.source), str(packet.destination)
    body = raw.tcp(
        source,
        to,
        source_port,
        packet.port,
        ACK,
        sequence=_SEQUENCE + 1,
        acknowledge=(their_sequence + 1) % 2**32,
    )
    return _ethernet(send, raw.ip(source, to, send.number, body), ())


def _ethernet(send: Send, packet: bytes, networks: Sequence[Network]) -> bytes:
    to = send.packet.destination
    kind = raw.ETH_IP4 if to.version == 4 else raw.ETH_IP6
    if to.is_multicast:
        target = raw.multicast_mac(str(to))
    elif is_group(networks, to):
        target = _EVERYBODY
    else:
        target = _MACHINE[send.account]
    return raw.ethernet(HARDWARE, target, kind, packet)
