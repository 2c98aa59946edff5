"""What `verify` does not try on a machine that somebody uses, and why.

The lab tries all of it (`make test`), on machines that are nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass

from onionward.leaks.model import Needs, Place, Vector

_SETTINGS = "it would change rules, routes, devices or settings of this machine for a moment"
_RESOLVER = "it would take the address of this machine's own resolver"
_DISTURBS = "it could disturb other machines or the switch of this link; --all tries it"
_ASKS = "it is aimed at addresses of a network that this machine is not in"
_BLIND = "tcpdump of the same machine does not see frames that pass the queues by"
_BEFORE = "it must begin before protection does"
_WIRE = "it comes from the cable: another machine must send it"
_LIMIT = "it is not promised to be stopped (docs/security.md)"
_PEER = "it needs a server far away that answers"

_NEVER: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        _SETTINGS,
        (
            *("ping.socket", "mark.route", "mark.foreign", "route.", "foreign.", "bypass.dnat"),
            *("group.new-address", "group.router", "stacked.", "copy.", "guest.", "forward."),
            *("tunnel.", "onion-address.elsewhere-", "onion-address.marked-"),
            "onion-address.translated",
        ),
    ),
    (_RESOLVER, ("dns.stub-53 ", "stub.")),
    (_ASKS, ("asking.",)),
    (_BLIND, ("frame.bypass", "frame.experiment-bypass")),
    (_PEER, ("forgotten.", "bypass.repaired-")),
)

_DISTURBING = (
    *("frame.pppoe", "frame.lldp", "frame.eapol", "frame.preauth", "frame.lacp", "frame.rarp"),
    *("frame.loop", "frame.other-mac", "frame.arp-stuffed", "dhcp.other-frame"),
    *("raw.ospf", "raw.pim", "raw.vrrp", "raw.router-advert", "raw.nd-redirect", "raw.nd-hops"),
    "spoof.neighbour",
)


@dataclass(frozen=True)
class Surroundings:
    """What the machine's network has, without which some vectors mean nothing.

    Args:
        router4: whether the router's IPv4 address is known.
        router6: whether an IPv6 address of the router is known.
        router6_global: whether one of them is not link-local.
        router6_local: whether its link-local address is known.
        broadcast: whether the network has a broadcast address.
        ethernet: whether the uplink carries Ethernet frames.
        bypassed4: whether the IPv4 router is in a bypassed network.
        bypassed6: whether the IPv6 router is.
        subordinate: whether the account has subordinate user ids.
        disturb: whether vectors that may disturb others are wanted.

    """

    router4: bool = True
    router6: bool = True
    router6_global: bool = True
    router6_local: bool = True
    broadcast: bool = True
    ethernet: bool = True
    bypassed4: bool = False
    bypassed6: bool = False
    subordinate: bool = True
    disturb: bool = False


def reason_against(vector: Vector, around: Surroundings) -> str:
    """Why a vector is not tried on this machine; "" when it is."""
    if vector.place is Place.WIRE:
        return _WIRE
    if vector.limit:
        return _LIMIT
    if vector.prepared:
        return _BEFORE
    for reason, names in _NEVER:
        # a space at the end of a name marks a whole one
        if f"{vector.id} ".startswith(names):
            return reason
    if vector.id in _DISTURBING and not around.disturb:
        return _DISTURBS
    if vector.needs is Needs.BYPASS and not _is_bypassed(vector.id, around):
        return "no bypassed network has this machine's router in it"
    if vector.needs is Needs.NOTHING and _is_allowed(vector.id, around):
        return "this machine's router is in a bypassed network, and may be spoken to"
    return _lacking(vector.id, around)


def _is_bypassed(name: str, around: Surroundings) -> bool:
    return around.bypassed6 if "6" in name or "segment" in name else around.bypassed4


def _is_allowed(name: str, around: Surroundings) -> bool:
    theme, _, what = name.partition(".")
    if theme in ("dns", "onion-name"):
        return False
    if around.bypassed6 and ("neighbour6" in what or "router6" in what):
        return True
    at4 = ("neighbour4" in what, "gateway4" in what, name in _ON_LINK4)
    return around.bypassed4 and any(at4)


def _lacking(name: str, around: Surroundings) -> str:
    what = name.partition(".")[2]
    if not around.ethernet and name.startswith(("frame.", "dhcp.other-frame")):
        return "the uplink carries no Ethernet frames"
    if not around.subordinate and name.startswith("subordinate."):
        return "the account has no subordinate user ids (subuid(5))"
    if not around.broadcast and (name in _TO_ALL or "broadcast" in what):
        return "the link has no broadcast address"
    if not around.router6_local and "router6" in what:
        return "the router's link-local address is not known"
    if not around.router6 and "neighbour6" in what:
        return "this machine has no IPv6 router"
    if not around.router6_global and name in _BY_GLOBAL6:
        return "no IPv6 address of the router is known but a link-local one"
    if not around.router4 and ("neighbour4" in what or "gateway4" in what or name in _BY_ROUTER4):
        return "this machine has no IPv4 router"
    return ""


_TO_ALL = ("cast.netbios", "cast.browser")
_ON_LINK4 = ("chosen.dontroute", "cast.broadcast", "cast.browser")
_BY_ROUTER4 = ("chosen.dontroute", "spoof.neighbour")
_BY_GLOBAL6 = ("bypass.segment-route", "raw.nd-hops", "raw.nd-redirect")
