"""The names of our nftables tables, and the text that removes them.

Apart from the renderer, because `status` needs the names in a hurry and nothing else.
"""

from __future__ import annotations

TABLE = ("inet", "onionward")
EGRESS_TABLE = ("netdev", "onionward_l2")
BOOT_TABLE = ("inet", "onionward_boot")
"""Holds from the boot until `up` has loaded its own block."""


def remove() -> str:
    """Text that removes both tables in one transaction, whether or not they exist."""
    return "".join(_replace(family, name) for family, name in (TABLE, EGRESS_TABLE))


def remove_boot() -> str:
    """Text that removes the table of the boot, whether or not it exists."""
    return _replace(*BOOT_TABLE)


def _replace(family: str, name: str) -> str:
    # `destroy` is younger than nft 1.0.6; adding first makes the deletion succeed always
    return f"table {family} {name}\ndelete table {family} {name}\n"
