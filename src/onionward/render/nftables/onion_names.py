"""Names under .onion inside of a DNS query: where they stand, and how nft is asked for them.

A query for a version 3 onion service begins with a label of 56 letters and ends with the label
"onion" (rend-spec-v3; RFC 1035, 4.1.2), bare or after one label more (www). nft compares bytes at
fixed places, so there is one match for each length of that label. Letters may be of either case.
"""

from __future__ import annotations

_QUESTION = 8 + 12  # bytes of the UDP and the DNS header
_ADDRESS_LABEL = 56
_LONGEST_LABEL = 63
_ONION = int.from_bytes(b"\x05ONION\x00", "big")
_EITHER_CASE = 0xFF_DF_DF_DF_DF_DF_FF


def in_query() -> tuple[str, ...]:
    """Matches of UDP queries for such names, the bare name first; the port is judged before."""
    starts = (_QUESTION, *(_QUESTION + 1 + length for length in range(1, _LONGEST_LABEL + 1)))
    return tuple(_match(start) for start in starts)


def _match(start: int) -> str:
    label = "" if start == _QUESTION else f"@th,{_QUESTION * 8},8 {start - _QUESTION - 1} "
    suffix = start + 1 + _ADDRESS_LABEL
    return (
        f"{label}@th,{start * 8},8 {_ADDRESS_LABEL} "
        f"@th,{suffix * 8},56 & {_EITHER_CASE:#x} == {_ONION:#x}"
    )
