"""Addresses, names and files of runs; all of it fixed, so that nothing has to be looked up."""

from __future__ import annotations

from onionward.tables import RUN_INTERFACE

INTERFACE = RUN_INTERFACE
DEVICE = "tor0"
"""The other end of it, in the run."""
TOR4, TOR6 = "169.254.94.9", "fd5a:7010::9"
"""Where tor takes what runs send: on loopback, where no router forwards to (RFC 3927, RFC 4193)."""
RUNS4, RUNS6 = "169.254.96.0/19", "fd5a:7010:1::/64"
"""A run's own addresses; each is somebody else to tor, and so has circuits of its own."""
MOST = 8190
"""Runs at once, and how many follow each other before an address is another one's."""
ROUTE_PROTOCOL = 94
"""By which our routes are found (rtnetlink(7), rtm_protocol)."""
RUNTIME = "/run/onionward-runs"
"""`paths.OF_RUNS` has the same."""
SOCKET = f"{RUNTIME}/keeper"
FORGET_AFTER = 600.0
"""Seconds without a run after which tor is not kept any longer."""


def address4(number: int) -> str:
    """A run's IPv4 address."""
    return f"169.254.{96 + (number >> 8)}.{number & 255}"


def address6(number: int) -> str:
    """A run's IPv6 address."""
    return f"fd5a:7010:1::{number:x}"
