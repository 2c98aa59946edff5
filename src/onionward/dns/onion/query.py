"""One question to one resolver, as RFC 1035 has it: enough to see who answers for .onion."""

from __future__ import annotations

import secrets
import socket
import struct

PROBE = "does.it.onionwardasksforthisnametoseewhetheritgetstotoraaaaaaaad.onion"
"""Like a name below an onion service, which there is not; longer than what the packet rules know
and turn to tor by themselves."""

_TIMEOUT = 1.0
_TYPE_A, _CLASS_IN = 1, 1
_HEADER = struct.Struct("!HHHHHH")
_RECURSION_DESIRED = 0x0100


def address(server: str, port: int = 53, name: str = PROBE) -> str:
    """The first IPv4 address that a resolver gives for a name, or "" when it gives none in time.

    Args:
        server: an address of this machine.
        port: UDP.
        name: a host name.

    """
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    number = secrets.randbits(16)
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_TIMEOUT)
        try:
            asking.connect((server, port))
            asking.send(question(number, name))
            return answer(number, asking.recv(4096))
        except OSError:  # nobody there, or no answer
            return ""


def question(number: int, name: str) -> bytes:
    """A query for the IPv4 address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!HH", _TYPE_A, _CLASS_IN)


def answer(number: int, message: bytes) -> str:
    """The first IPv4 address in the answer to a query, or ""."""
    try:
        identity, _, questions, answers, _, _ = _HEADER.unpack_from(message)
        if identity != number:
            return ""
        place = _HEADER.size
        for _ in range(questions):
            place = _after_name(message, place) + 4
        for _ in range(answers):
            place = _after_name(message, place)
            kind, _, _, length = struct.unpack_from("!HHIH", message, place)
            place += 10
            if kind == _TYPE_A and length == 4:
                return socket.inet_ntoa(message[place : place + 4])
            place += length
    except (struct.error, IndexError, OSError):  # shorter than it says
        pass
    return ""


def _after_name(message: bytes, place: int) -> int:
    while length := message[place]:
        if length >= 0xC0:  # a pointer ends the name
            return place + 2
        place += 1 + length
    return place + 1
