"""SOCKS as tor speaks it: RFC 1928, RFC 1929, and tor's socks-extensions.txt. Pure functions."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from onionward.errors import TorError
from onionward.networks import Address

GREETING = b"\x05\x01\x02"
"""Version 5, one method: user name and password, by which tor tells circuits apart."""
CHOSEN = b"\x05\x02"
"""What answers it."""

_CONNECT, _RESOLVE_PTR = 0x01, 0xF1
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_LONGEST = 255


class Reply(NamedTuple):
    """What tor answers to a request.

    Attributes:
        status: 0 when it was granted, else a code of RFC 1928 or of tor's extensions.
        name: the host name that a look-up has found, or "".
        length: bytes of the answer; what follows them was sent by the other end.

    """

    status: int
    name: str
    length: int


def credentials(user: bytes, password: bytes) -> bytes:
    """The message of RFC 1929; streams with other ones never share a circuit.

    Raises:
        ValueError: one of them is empty or longer than 255 bytes.

    """
    if not (0 < len(user) <= _LONGEST and 0 < len(password) <= _LONGEST):
        raise ValueError("a user name and a password of 1 to 255 bytes are needed")
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


def connect(target: Address | str, port: int) -> bytes:
    """Ask for a connection to an address, or to a name that the exit resolves."""
    return _request(_CONNECT, target, port)


def resolve_ptr(address: Address) -> bytes:
    """Ask for the name of an address (socks-extensions.txt, RESOLVE_PTR)."""
    return _request(_RESOLVE_PTR, address, 0)


def _request(command: int, target: Address | str, port: int) -> bytes:
    if isinstance(target, str):
        raw = target.encode("ascii")
        where = bytes([_NAME, len(raw)]) + raw
    else:
        where = bytes([_IPV4 if target.version == 4 else _IPV6]) + target.packed
    return bytes([5, command, 0]) + where + struct.pack("!H", port)


def accepted(received: bytes | bytearray) -> int:
    """How many bytes answer the credentials, 0 while they are not there.

    Raises:
        TorError: tor does not accept them.

    """
    if len(received) < 2:
        return 0
    if received[0] != 1 or received[1] != 0:
        raise TorError(f"tor's SOCKS port refuses the circuit's name: {bytes(received[:2]).hex()}")
    return 2


def reply(received: bytes | bytearray) -> Reply | None:
    """The answer to a request, or None while it is not whole.

    Raises:
        TorError: it is none.

    """
    if len(received) < 5:
        return None
    if received[0] != 5 or received[3] not in (_IPV4, _NAME, _IPV6):
        raise TorError(f"tor's SOCKS port says what is not understood: {bytes(received[:8]).hex()}")
    kind = received[3]
    size = {_IPV4: 4, _IPV6: 16, _NAME: 1 + received[4]}[kind]
    length = 4 + size + 2
    if len(received) < length:
        return None
    name = bytes(received[5 : 4 + size]).decode("ascii", "replace") if kind == _NAME else ""
    return Reply(received[1], name, length)


def address_of(packed: bytes) -> Address:
    """An address from its bytes; IPv4 in IPv6 is IPv4 (RFC 4291, 2.5.5.2)."""
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
