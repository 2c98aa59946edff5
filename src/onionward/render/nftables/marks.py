"""Marks that connection tracking keeps for a flow: who it belongs to."""

from __future__ import annotations

MARK_REDIRECTED = 0x746F7200
"""A program of this machine is connected to tor."""
MARK_TOR = 0x746F7201
"""Tor is connected to a relay."""
MARK_INBOUND = 0x746F7202
"""A peer that the policy admits has opened it, or a client a service."""
MARK_CLIENT = 0x746F7203
"""A client of a LAN is connected to tor."""
MARK_USER = 0x746F7204
"""A routed account's, not redirected."""
MARK_DIRECT = 0x746F7205
"""A bypassed account's."""
MARK_RUN = 0x746F7207
"""An application of `onionward run` is connected to tor."""

MARKS_OF_TOR = (MARK_REDIRECTED, MARK_CLIENT, MARK_RUN)
"""Flows whose other end is tor: they must never be seen on an uplink."""
