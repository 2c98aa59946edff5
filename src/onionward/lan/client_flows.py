"""TCP connections of clients through tor: known while the rules are in force, ended before they go.

A client holds its end for as long as it likes, also when tor's end is long gone. Its next packet,
or its FIN, would be forwarded to the true destination once nothing turns it away. No command resets
the far end of a connection, so each client is provoked: a SYN/ACK in the name of its destination
makes it tell what it expects (RFC 5961, section 4.2), the redirection leads that to where no tor
listens any more, and the kernel answers with the reset that the client must believe.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from onionward.errors import CommandError
from onionward.policy import Flow
from onionward.tables import TABLE

if TYPE_CHECKING:
    from onionward.networks import Address
    from onionward.system import System

_PATIENCE = 1.5  # seconds; one that does not answer by then is asleep, or away
_ROUND = 0.55  # a client repeats such an answer after half a second (tcp_invalid_ratelimit)
_LOOK = 0.05
_SYN_ACK = 0x12
_TCP = 6


def remembered(system: System) -> tuple[Flow, ...]:
    """Connections of clients that may still be open at their end; the peer is the client."""
    found: list[Flow] = []
    for version in (4, 6):
        try:
            shown = system.query(["nft", "-j", "list", "set", *TABLE, f"client_flows{version}"])
        except CommandError as error:
            if "No such file or directory" not in error.stderr:
                raise
            continue
        found += parse(shown)
    return tuple(found)


def parse(shown: str) -> tuple[Flow, ...]:
    """The elements of such a set, as `nft -j` prints it."""
    import ipaddress
    import json

    found = []
    for entry in json.loads(shown)["nftables"]:
        for element in entry.get("set", {}).get("elem", ()):
            peer, peer_port, local, local_port = element["elem"]["val"]["concat"]
            client, destination = ipaddress.ip_address(peer), ipaddress.ip_address(local)
            found.append(Flow(client, peer_port, destination, local_port))
    return tuple(found)


def end(system: System, stamp: int) -> tuple[Flow, ...]:
    """Have the kernel reset every client's end; tor must be stopped, and the rules in force.

    Args:
        system: the seam.
        stamp: the packet mark by which the rules know what is ours.

    Returns:
        Connections whose client has not answered.

    """
    left = remembered(system)
    begun = time.monotonic()
    provoked = begun - _ROUND
    while left and time.monotonic() - begun < _PATIENCE:
        if time.monotonic() - provoked >= _ROUND:
            provoked = time.monotonic()
            provoke(system, left, stamp)
        time.sleep(_LOOK)
        left = remembered(system)
    return left


def provoke(system: System, flows: Iterable[Flow], stamp: int) -> None:
    """Send each client a SYN/ACK in the name of its destination."""
    packets = [(segment(flow), str(flow.peer)) for flow in flows]
    words = f"ask {len(packets)} connections of clients for their state"
    system.send_packets(packets, mark=stamp, words=words)


def segment(flow: Flow) -> bytes:
    """An IP packet with a SYN/ACK from `flow.local` to `flow.peer` (RFC 9293, 3.1)."""
    numbers = struct.unpack("!II", os.urandom(8))
    source, target = flow.local.packed, flow.peer.packed
    header = struct.pack(
        "!HHIIBBHHH", flow.local_port, flow.peer_port, *numbers, 5 << 4, _SYN_ACK, 65535, 0, 0
    )
    summed = checksum(source + target + struct.pack("!IHBB", len(header), 0, 0, _TCP) + header)
    header = header[:16] + struct.pack("!H", summed) + header[18:]
    return _ip(flow.local, flow.peer, len(header)) + header


def _ip(source: Address, target: Address, length: int) -> bytes:
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, _TCP, 64) + source.packed + target.packed
    # the kernel fills in length, identification and checksum (raw(7))
    start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, _TCP, 0)
    return start + source.packed + target.packed


def checksum(data: Sequence[int] | bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", bytes(data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
