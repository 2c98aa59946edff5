"""Which vectors mean something in which scope.

Most of what a routed host must not send, an account or a client of its must not send either. What
is left out here is left out for a reason.
"""

from __future__ import annotations

from onionward.leaks.model import Account, Needs, Place, Scope, Vector

_NOT_OF_AN_ACCOUNT = (
    "root.",  # the account's own are tried
    "dns.stub-",  # there the stub belongs to the account; `stub.` is what it asks of another's
    # frames are judged only where all that leaves is
    "frame.",
    "dhcp.other-frame",
    # what the administrator sets up, and the kernel sends under no name
    "stacked.",
    "guest.",
    "copy.",
    "foreign.dup",
    "forward.",
    "tunnel.",
    # the kernel tells which groups it listens to, for whomever
    "group.",
    # nobody's answer to the far end of what is cut, as every machine gives it that is not routed
    "before.server-speaks",
    "before.fin-wait",
    "before.unreachable",
)

_NOT_OF_A_CLIENT = (
    # the client's router is the gateway itself, where these end
    "tcp.gateway",
    "tcp.router",
    "udp.gateway",
    "udp.router",
    "ping.router",
    "dns.gateway",
    "dns.router",
    "dns.bound-router",
    # to groups and to everybody of a link: no router forwards them
    "cast.",
    "ping.all-nodes",
    "dns.broadcast",
    "group.",
    "raw.ospf",
    "raw.pim",
    "raw.vrrp",
    "raw.igmp",
    "raw.mld",
    "raw.router-",
    "dhcp.",
    # the first hop is the gateway
    "udp.ttl",
    "ping.ttl",
    "forward.ttl",
    # to a neighbour without asking a router: a client has no such neighbour
    "chosen.dontroute",
    # from or to loopback: no router believes it
    "bound.loopback-",
    "bound.mapped-onion-",
    "spoof.loopback",
    "copy.",
    "foreign.dnat-loopback",
    "foreign.dup",
    # frames without an IP packet: a router has no use for them
    *(
        f"frame.{name}"
        for name in (
            *("vlan", "qinq", "pppoe", "mpls", "lldp", "experiment", "eapol", "preauth", "lacp"),
            *("rarp", "loop", "llc", "snap", "other-mac", "arp-stuffed"),
        )
    ),
    "guest.",
    # how a client puts an IP packet on its own wire is no matter to its router
    "stacked.",
)

# all that is sent to where names under .onion are mapped
_OF_ONION = ("onion.virtual6", "bound.mapped-onion")


def applies(vector: Vector, scope: Scope) -> bool:
    """Whether a vector is a way out in a scope."""
    if vector.scope is not Scope.HOST or scope is Scope.HOST:
        return vector.scope is scope
    if vector.limit or vector.place is not Place.HOST or vector.account is Account.TOR:
        return False
    if scope is Scope.USER:
        return vector.needs is not Needs.BYPASS and not vector.id.startswith(_NOT_OF_AN_ACCOUNT)
    if scope is Scope.LAN:
        # nothing is bypassed for clients, and none is in a control group of the gateway's
        return vector.needs is Needs.NOTHING and not vector.id.startswith(_NOT_OF_A_CLIENT)
    return vector.id.startswith(_OF_ONION)
