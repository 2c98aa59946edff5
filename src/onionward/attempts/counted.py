"""What the rules have counted, by sender (`onionward.render.nftables.accounting`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# a set as nft prints it: reason, side, elements
_SET = re.compile(
    r"set (\w+)_(by|from[46]) \{[^{}]*flags dynamic[^{}]*elements = \{([^{}]*)\}", re.DOTALL
)
_BY = re.compile(r"(\d+) \. (\S+) .*?counter packets (\d+)", re.DOTALL)
_FROM = re.compile(r'"([^"]*)" \. (\S+) \. (\S+) .*?counter packets (\d+)', re.DOTALL)


class Count(NamedTuple):
    """Packets of one sender that were stopped for one reason.

    Attributes:
        reason: the named counter that they are in.
        uid: of the account; None when they came from elsewhere.
        client: address of the client or container; "" when this machine sent them.
        interface: where they came in; "" when this machine sent them.
        protocol: as nft names it ("tcp", "udp", "icmp", "ipv6-icmp"), or the type of a frame.
        packets: how many, since the rules were loaded.

    """

    reason: str
    uid: int | None
    client: str
    interface: str
    protocol: str
    packets: int


def read(held: str) -> tuple[Count, ...]:
    """The counts in tables as nft lists them, the largest first."""
    return tuple(sorted(_counts(held), key=lambda count: (-count.packets, count)))


def _counts(held: str) -> Iterator[Count]:
    for reason, side, elements in _SET.findall(held):
        # no element has a comma of its own
        for element in elements.split(","):
            if side == "by" and (found := _BY.match(element.strip())):
                yield Count(reason, int(found[1]), "", "", found[2], int(found[3]))
            elif side != "by" and (found := _FROM.match(element.strip())):
                yield Count(reason, None, found[2], found[1], found[3], int(found[4]))
