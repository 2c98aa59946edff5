"""The names of our nftables tables, the text that removes them, and which names nft knows.

Apart from the renderer, because `status` needs the names in a hurry and nothing else.
"""

from __future__ import annotations

TABLE = ("inet", "onionward")
EGRESS_TABLE = ("netdev", "onionward_l2")
LOCK_TABLE = ("inet", "onionward_lock")
LOCK_EGRESS_TABLE = ("netdev", "onionward_lock_l2")
"""These two are owned by the guard: nobody else can change them, and they end with it."""
BOOT_TABLE = ("inet", "onionward_boot")
"""Holds from the boot until `up` has loaded its own block."""
BRIDGE_TABLE = ("bridge", "onionward_ports")
"""Of clients, and loaded apart: a kernel may have no rules for bridges."""
RUN_TABLE = ("inet", "onionward_run")
"""Of applications (`onionward run`); not the machine's, whether it is routed or not."""
RUN_LOCK_TABLE = ("inet", "onionward_run_lock")
"""The same once more, owned by the keeper of runs."""
TRACE_TABLE = ("inet", "onionward_trace")
"""Marks tor's packets for a moment, to see which rule drops them."""
RUN_INTERFACE = "owr"
"""The beginning of the names of applications' devices; a number follows."""
OURS = (
    *(TABLE, EGRESS_TABLE, BRIDGE_TABLE),
    *(LOCK_TABLE, LOCK_EGRESS_TABLE, BOOT_TABLE, TRACE_TABLE),
)


def is_speakable(interface: str) -> bool:
    """Whether nft can be told this name: it knows no quoting, and some letters mean more to it."""
    return all(letter.isascii() and (letter.isalnum() or letter in "_.@-") for letter in interface)


def is_of_run(interface: str) -> bool:
    """Whether a device is this machine's end of an application's (`onionward run`)."""
    return interface.startswith(RUN_INTERFACE) and interface[len(RUN_INTERFACE) :].isdecimal()


def remove() -> str:
    """Text that removes both tables in one transaction, whether or not they exist."""
    return "".join(_replace(family, name) for family, name in (TABLE, EGRESS_TABLE))


def remove_trace() -> str:
    """Text that removes what marks tor's packets, whether or not it exists."""
    return _replace(*TRACE_TABLE)


def remove_boot() -> str:
    """Text that removes the table of the boot, whether or not it exists."""
    return _replace(*BOOT_TABLE)


def remove_bridge() -> str:
    """Text that removes the table of ports of bridges, whether or not it exists."""
    return _replace(*BRIDGE_TABLE)


def _replace(family: str, name: str) -> str:
    # `destroy` is younger than nft 1.0.6; adding first makes the deletion succeed always
    return f"table {family} {name}\ndelete table {family} {name}\n"
