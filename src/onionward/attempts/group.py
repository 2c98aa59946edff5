"""What the rules and the guard agree on."""

from __future__ import annotations

GROUP = 29807
"""The nflog group (nft(8), log statement): the two letters of "to", which nobody else uses."""
BYTES = 128
"""How much of a packet is told: its headers."""
PER_SENDER = "limit rate 10/second burst 20 packets"
"""How many packets of one account or client, of one protocol, are told."""
PER_REASON = "limit rate 100/second burst 200 packets"
"""How many are told at all, for each reason."""
