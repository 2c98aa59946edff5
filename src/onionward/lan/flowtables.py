"""Flowtables of other programs: connections that pass no rule any more (nft(8), FLOWTABLES).

A gateway may hand established connections over to a table at its devices' ingress, where packets
are forwarded before any hook of the IP layer sees them. What was handed over before the rules came
goes on in clear until it ends, and conntrack(8) does not delete it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from onionward.errors import CommandError
from onionward.system import System

_INTERFACES = Path("/sys/class/net")


class Flowtable(NamedTuple):
    """One of them: family and name of its table, its own name, and the devices it is hooked to."""

    family: str
    table: str
    name: str
    devices: tuple[str, ...]

    def words(self) -> str:
        """As nft is told of it."""
        return f"{self.family} {self.table} {self.name}"


def present(system: System) -> tuple[Flowtable, ...]:
    """All that there are; none where the kernel knows none."""
    try:
        shown = system.query(["nft", "-j", "list", "flowtables"])
    except CommandError:
        return ()
    return parse(shown)


def parse(shown: str) -> tuple[Flowtable, ...]:
    """Flowtables as `nft -j list flowtables` prints them; a single device is no list there."""
    found = []
    for entry in json.loads(shown)["nftables"]:
        if (table := entry.get("flowtable")) is None:
            continue
        devices = table.get("dev", ())
        names = (devices,) if isinstance(devices, str) else tuple(devices)
        found.append(Flowtable(table["family"], table["table"], table["name"], names))
    return tuple(found)


def beneath(interface: str) -> frozenset[str]:
    """An interface, and those that carry it: ports of a bridge, the device of a VLAN (sysfs)."""
    found: set[str] = set()
    waiting = [interface]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            lower = (_INTERFACES / name).glob("lower_*")
            waiting += [path.name.removeprefix("lower_") for path in lower]
    return frozenset(found)
