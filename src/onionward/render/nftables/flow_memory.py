"""How long, and how many, connections the rules remember."""

from __future__ import annotations

MOST = 65535
"""Of each family; the memory for one is some 200 bytes."""
CLOSING = "5m"
"""After the last packet of one that the client itself has closed."""
FLAGS = f"dynamic,timeout; timeout 2h; size {MOST}"
"""Of a set; the time counts from the last packet."""
FLAGS_CLOSING = f"dynamic,timeout; timeout {CLOSING}; size {MOST}"
