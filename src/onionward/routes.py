"""Networks and addresses that are made local to this machine while it routes.

What is not redirected in a local network cannot leave; what tor listens on must be an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from onionward import iproute2
from onionward.networks import Address, Network
from onionward.system import System

_ON_LOOPBACK = ("dev", "lo")
_IN_TABLE = (*_ON_LOOPBACK, "table", "local")


class Saved(TypedDict):
    """How to remove them; JSON in the journal."""

    networks: list[str]
    addresses: list[str]


def survey(
    system: System,
    networks: Iterable[Network],
    addresses: Iterable[Address],
    earlier: Saved | None = None,
) -> Saved:
    """Those that are not local yet: what is somebody else's stays theirs.

    Args:
        system: the seam.
        networks: to be made local.
        addresses: the same.
        earlier: an earlier survey that is in force; what it has stays part of this one.

    """
    before = earlier or Saved(networks=[], addresses=[])
    present = _addresses(system)
    ours = {*before["networks"], *before["addresses"]}
    wanted_networks, wanted_addresses = [*map(str, networks)], [*map(str, addresses)]
    return Saved(
        networks=[
            *(n for n in wanted_networks if n in ours or not _exists(system, n)),
            *(n for n in before["networks"] if n not in wanted_networks),
        ],
        addresses=[
            *(a for a in wanted_addresses if a in ours or a not in present),
            *(a for a in before["addresses"] if a not in wanted_addresses),
        ],
    )


def parted(saved: Saved, wanted: Iterable[str]) -> tuple[Saved | None, Saved | None]:
    """Of what was surveyed, what is wanted still and what is not; None for nothing."""
    names = set(wanted)
    parts = []
    for stays in (True, False):
        part = Saved(
            networks=[n for n in saved["networks"] if (n in names) is stays],
            addresses=[a for a in saved["addresses"] if (a in names) is stays],
        )
        parts.append(part if part["networks"] or part["addresses"] else None)
    return parts[0], parts[1]


def apply(system: System, saved: Saved) -> None:
    """Add them (ip-route(8), type local; ip-address(8))."""
    present = _addresses(system)
    for address in saved["addresses"]:
        if address not in present:
            system.change(["ip", "address", "add", address, *_ON_LOOPBACK, "scope", "host"])
    for network in saved["networks"]:
        system.change([*_route(network, "replace"), "local", network, *_IN_TABLE])


def restore(system: System, saved: Saved) -> str:
    """Remove them; nothing happens to those that are gone already."""
    present = _addresses(system)
    for network in saved["networks"]:
        if _exists(system, network):
            system.change([*_route(network, "del"), "local", network, *_IN_TABLE])
    for address in saved["addresses"]:
        if address in present:
            system.change(["ip", "address", "del", f"{address}/{_length(address)}", *_ON_LOOPBACK])
    return ""


def missing(system: System, saved: Saved) -> list[str]:
    """Those that are not there."""
    present = _addresses(system)
    return [
        *(network for network in saved["networks"] if not _exists(system, network)),
        *(address for address in saved["addresses"] if address not in present),
    ]


def _addresses(system: System) -> frozenset[str]:
    shown = iproute2.entries(system.query(["ip", "-j", "address", "show", *_ON_LOOPBACK]))
    return frozenset(a.get("local", "") for link in shown for a in link.get("addr_info", ()))


def _exists(system: System, network: str) -> bool:
    shown = [*_route(network, "show"), "table", "local", "type", "local", network]
    return bool(system.query(shown).strip())


def _route(network: str, verb: str) -> tuple[str, ...]:
    return ("ip", "-6" if ":" in network else "-4", "route", verb)


def _length(address: str) -> int:
    return 128 if ":" in address else 32
