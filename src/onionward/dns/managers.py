"""Who may manage resolv.conf(5) on a machine, by name."""

from __future__ import annotations

from typing import Literal, get_args

Manager = Literal[
    "file",
    "resolved",
    "networkmanager",
    "resolvconf",
    "openresolv",
    "dhclient",
    "dhcpcd",
    "connman",
]
"""One program, or nobody ("file")."""
RESOLVERS: tuple[Manager, ...] = get_args(Manager)
