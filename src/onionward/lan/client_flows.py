"""TCP connections of clients through tor: known while the rules are in force, ended before they go.

A client holds its end for as long as it likes, also when tor's end is long gone. Its next packet,
or its FIN, would be forwarded to the true destination once nothing turns it away. No command resets
the far end of a connection, so each client is provoked: a SYN/ACK in the name of its destination
makes it tell what it expects (RFC 5961, section 4.2), the redirection leads that to where no tor
listens any more, and the kernel answers with the reset that the client must believe.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from onionward.errors import CommandError
from onionward.policy import Flow
from onionward.render.nftables.flow_memory import MOST
from onionward.render.nftables.marks import MARK_CLIENT
from onionward.tables import TABLE

if TYPE_CHECKING:
    from onionward.backend import PacketFilter
    from onionward.networks import Address
    from onionward.system import System

_ROUNDS = 4  # who has not answered after these is asleep, or away
_ROUND = (
    0.55  # seconds; a client repeats such an answer after half a second (tcp_invalid_ratelimit)
)
_LOOK = 0.05
_SYN_ACK = 0x12
_TCP = 6
_TRACKED = re.compile(
    r"^tcp +6 \d+ (\w+) src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", re.MULTILINE
)
# begun with a packet that is yet to come, or over at the client
_NOT_OPEN = frozenset({"SYN_SENT", "SYN_RECV", "TIME_WAIT", "CLOSE"})


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


def remember(system: System, flows: Iterable[Flow]) -> None:
    """Add connections to what the rules know."""
    by_version: dict[int, list[str]] = {}
    for f in flows:
        element = f"{f.peer} . {f.peer_port} . {f.local} . {f.local_port}"
        by_version.setdefault(f.peer.version, []).append(element)
    text = "".join(
        f"add element {' '.join(TABLE)} client_flows{version} {{ {', '.join(elements)} }}\n"
        for version, elements in by_version.items()
    )
    words = f"nft -f -  # {sum(map(len, by_version.values()))} connections of clients"
    system.change(["nft", "-f", "-"], stdin=text, words=words)


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


def catch_up(system: System, rules: PacketFilter[Any]) -> None:
    """Remember connections that began when the rules were being replaced.

    The new rules were written before, and see nothing of a client that is silent since; connection
    tracking has it.
    """
    known = frozenset(rules.client_flows(system))
    missing: list[Flow] = []
    for version in (4, 6):
        show = ["conntrack", "-L", "-f", f"ipv{version}", "-p", "tcp", "-m", str(MARK_CLIENT)]
        tracked = parse_tracked(system.query(show))
        room = MOST - sum(flow.peer.version == version for flow in known)
        missing += [flow for flow in tracked if flow not in known][:room]
    if missing:
        rules.remember(system, missing)


def parse_tracked(shown: str) -> tuple[Flow, ...]:
    """Connections that a client may hold, as conntrack(8) lists them: its own tuple comes first."""
    import ipaddress

    found = []
    for entry in _TRACKED.finditer(shown):
        state, client, destination, client_port, port = entry.groups()
        if state not in _NOT_OPEN:
            peer, local = ipaddress.ip_address(client), ipaddress.ip_address(destination)
            found.append(Flow(peer, int(client_port), local, int(port)))
    return tuple(found)


def end(
    system: System, known: Callable[[System], tuple[Flow, ...]], stamp: int
) -> tuple[Flow, ...]:
    """Have the kernel reset every client's end; tor must be stopped, and the rules in force.

    Args:
        system: the seam.
        known: reads the connections that the rules remember.
        stamp: the packet mark by which the rules know what is ours.

    Returns:
        Connections whose client has not answered.

    """
    left = known(system)
    for _ in range(_ROUNDS):
        if not left:
            break
        provoke(system, left, stamp)
        # rounds are counted, not seconds: on a busy machine a look may take longer than a round
        over = time.monotonic() + _ROUND
        while left and time.monotonic() < over:
            time.sleep(_LOOK)
            left = known(system)
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
