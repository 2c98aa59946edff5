"""Interfaces of a LAN that somebody makes ports of a bridge: their clients are blocked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from onionward.errors import CommandError
from onionward.policy import Lan
from onionward.render.nftables import bridge_ports
from onionward.system import System, find_tool
from onionward.tables import BRIDGE_TABLE, remove_bridge

_NAME = " ".join(BRIDGE_TABLE)


class Saved(TypedDict):
    """What `restore` needs; JSON in the journal."""

    known: bool


def survey(system: System) -> Saved:
    """Whether this kernel can judge what passes bridges (CONFIG_NF_TABLES_BRIDGE)."""
    try:
        system.query(["nft", "--check", f"add table {_NAME}"])
    except CommandError:
        return Saved(known=False)
    return Saved(known=True)


def apply(system: System, saved: Saved, lans: Iterable[Lan]) -> None:
    """Replace the rules; nothing happens where the kernel has none for bridges."""
    if saved["known"]:
        words = "nft -f -  # ports of bridges"
        system.change(["nft", "-f", "-"], stdin=bridge_ports.render(lans), words=words)


def restore(system: System, saved: Saved) -> str:
    """Remove them; nothing happens to those that are gone already."""
    if saved["known"]:
        words = "nft -f -  # no ports of bridges"
        system.change(["nft", "-f", "-"], stdin=remove_bridge(), words=words)
    return ""


def recognised(system: System) -> bool:
    """Whether an activation has left the table."""
    if find_tool("nft") is None:
        return False
    return f"table {_NAME}" in system.query(["nft", "list", "tables"]).splitlines()


def covered(system: System, interfaces: Iterable[str]) -> frozenset[str]:
    """Of these interfaces those whose clients no bridge carries."""
    try:
        held = system.query(["nft", "list", "table", *BRIDGE_TABLE])
    except CommandError:
        return frozenset()
    return frozenset(name for name in interfaces if bridge_ports.named(name) in held)
