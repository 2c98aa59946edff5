"""What the groups of rules share."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onionward.networks import NAME_PORTS
from onionward.policy import Flow, Policy
from onionward.render.pf.rule import PfRule, Redirect
from onionward.rules import Rule

LOOPBACK4 = ipaddress.ip_address("127.0.0.1")
LOOPBACK6 = ipaddress.ip_address("::1")
NAMES = f"{{ {', '.join(map(str, sorted(NAME_PORTS)))} }}"
BOTH = ("tcp", "udp")
LINK_LOCAL = "fe80::/10"
# no state is there to be found: one is made of what comes first
_KEPT: Mapping[str, Any] = {
    "protocols": ("tcp",),
    "options": "flags A/A keep state (sloppy)",
    "rule": Rule.KEPT,
}


def families(policy: Policy) -> tuple[int, ...]:
    """Families over which tor can be reached on loopback."""
    return (4, 6) if policy.ipv6 else (4,)


def to_dns_port(policy: Policy, family: int) -> Redirect:
    """Tor's resolver."""
    return Redirect(
        LOOPBACK4 if family == 4 else LOOPBACK6, policy.dns_port, keeps_destination=False
    )


def to_trans_port(policy: Policy, family: int) -> Redirect:
    """Tor's transparent proxy."""
    return Redirect(
        LOOPBACK4 if family == 4 else LOOPBACK6, policy.trans_port, keeps_destination=True
    )


def kept_in(into: PfRule, flows: Iterable[Flow]) -> Iterator[PfRule]:
    """What peers send over connections from before."""
    for flow in flows:
        yield into._replace(
            **_KEPT,
            family=flow.peer.version,
            source=str(flow.peer),
            source_port=str(flow.peer_port),
            to=str(flow.local),
            port=str(flow.local_port),
        )


def kept_out(out: PfRule, flows: Iterable[Flow]) -> Iterator[PfRule]:
    """What this machine sends over them."""
    for flow in flows:
        yield out._replace(
            **_KEPT,
            family=flow.peer.version,
            source=str(flow.local),
            source_port=str(flow.local_port),
            to=str(flow.peer),
            port=str(flow.peer_port),
        )
