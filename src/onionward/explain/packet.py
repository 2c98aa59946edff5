"""A packet, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onionward.networks import Address
from onionward.rules import Rule

State = Literal["blocked", "routed"]
Outcome = Literal["trans-port", "dns-port", "full-dns", "local", "direct", "refused", "dropped"]

_OUTCOMES = {
    "trans-port": "through Tor",
    "dns-port": "to tor's resolver",
    "full-dns": "to unbound, which asks through Tor",
    "local": "stays on this machine",
    "direct": "leaves directly",
    "refused": "refused at once",
    "dropped": "dropped in silence",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that opens an exchange: sent by a program here, or by a client of a LAN.

    Attributes:
        protocol: "tcp", "udp", "icmp", "ipv6-icmp" or another name of /etc/protocols.
        destination: where to.
        port: destination port of TCP and UDP, otherwise None.
        uid: account that made the socket; without meaning for a client's packet.
        source_port: of TCP and UDP when it matters (DHCP, kept connections), otherwise None.
        source: its address when it matters (kept connections, clients), otherwise None.
        from_tor: whether the socket was made in tor's control group.
        opens: whether it opens a connection, as the first packet of TCP does; others may belong to
            a kept one.
        interface: where it arrives when somebody else sends it (a client of a LAN, a container),
            otherwise None.
        is_echo: whether it is an echo request, if it is ICMP.
        onion_name: whether it is a query for a version 3 name under .onion, bare or with one label
            before it.

    """

    protocol: str
    destination: Address
    port: int | None
    uid: int
    source_port: int | None = None
    source: Address | None = None
    from_tor: bool = False
    opens: bool = True
    interface: str | None = None
    is_echo: bool = True
    onion_name: bool = False

    @property
    def is_query(self) -> bool:
        """Whether it asks for a name."""
        return self.protocol == "udp" and self.port == 53


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of it.

    Attributes:
        outcome: "trans-port" and "dns-port" go to tor, "local" stays on this machine, "direct"
            leaves as it is, "refused" gets an error at once, "dropped" gets nothing.
        reason: the rule in words.
        chain: the chain of the ruleset that decides.
        rule: the comment of the rule that decides.

    """

    outcome: Outcome
    reason: str
    chain: str
    rule: Rule

    def words(self) -> str:
        """One line for people."""
        return f'{_OUTCOMES[self.outcome]}: {self.reason} (chain {self.chain}, rule "{self.rule}")'
