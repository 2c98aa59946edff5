"""Names under .onion inside of a DNS query, as a program that the kernel runs on the packet.

iptables compares bytes at fixed places only, so the question's labels are walked by a classic BPF
program (iptables-extensions(8), bpf; networking/filter in the kernel's documentation). What it
recognises is what the rules of nft do: a version 3 name, bare or after one label more.
"""

from __future__ import annotations

_QUESTION = 8 + 12  # bytes of the UDP and the DNS header
_ADDRESS_LABEL = 56
_LONGEST_LABEL = 63
_IP6_HEADER = 40

# codes of linux/filter.h
_LDX_HEADER = 0xB1  # X = 4 * (byte & 0xf)
_LDX = 0x01  # X = number
_LD_BYTE, _LD_WORD = 0x50, 0x40  # A = packet[X + number]
_AND, _ADD, _ADD_X, _TO_X = 0x54, 0x04, 0x0C, 0x07
_IF_EQUAL, _IF_GREATER = 0x15, 0x25
_RETURN = 0x06

Step = tuple[int, int, int, int]


def match(version: int) -> str:
    """The match of iptables or ip6tables; UDP and the port are judged beside it."""
    program = _program(version)
    code = ",".join(" ".join(map(str, step)) for step in program)
    return f'-m bpf --bytecode "{len(program)},{code}"'


def _program(version: int) -> list[Step]:
    start = (_LDX_HEADER, 0, 0, 0) if version == 4 else (_LDX, 0, 0, _IP6_HEADER)
    bare, below = _suffix(), _suffix()
    return [
        start,
        *bare,
        # X += length of the first label + 1, unless it is a pointer or the end
        (_LD_BYTE, 0, 0, _QUESTION),
        (_IF_EQUAL, len(below) + 4, 0, 0),
        (_IF_GREATER, len(below) + 3, 0, _LONGEST_LABEL),
        (_ADD, 0, 0, 1),
        (_ADD_X, 0, 0, 0),
        (_TO_X, 0, 0, 0),
        *below,
        (_RETURN, 0, 0, 0),
    ]


def _suffix() -> list[Step]:
    """At X: a label of 56 letters, then "onion" in either case and the end of the name."""
    end = _QUESTION + 1 + _ADDRESS_LABEL
    # what does not match goes on behind the return
    return [
        (_LD_BYTE, 0, 0, _QUESTION),
        (_IF_EQUAL, 0, 7, _ADDRESS_LABEL),
        (_LD_WORD, 0, 0, end),
        (_AND, 0, 0, 0xFFDFDFDF),
        (_IF_EQUAL, 0, 4, int.from_bytes(b"\x05ONI", "big")),
        (_LD_WORD, 0, 0, end + 3),
        (_AND, 0, 0, 0xDFDFDFFF),
        (_IF_EQUAL, 0, 1, int.from_bytes(b"ION\x00", "big")),
        (_RETURN, 0, 0, 0xFFFF),
    ]
