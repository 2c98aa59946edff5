"""Names without a look-up: each gets an address of this run alone, and tor is given the name back.

The exit resolves the name when something is connected to, so `.onion` works like any other, no
query waits for Tor, and no answer can be a lie of the exit's. What is asked for: A and AAAA by a
virtual address, PTR of a virtual address from the table, PTR of any other address by tor.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections import OrderedDict
from enum import IntEnum
from typing import NamedTuple

from onionward.networks import UNROUTABLE, Address, contains

NETWORK4 = ipaddress.IPv4Network("10.192.0.0/10")
NETWORK6 = ipaddress.IPv6Network("fd5a:7011::/96")
"""The last 32 bits are the IPv4 address of the same name."""

_TTL = 60  # seconds; the table remembers longer
_LONGEST_NAME = 253
_HEADER = struct.Struct("!HHHHHH")
_QUESTION_END = struct.Struct("!HH")
_IN, _A, _PTR, _AAAA = 1, 1, 12, 28
_RESPONSE, _AVAILABLE, _RECURSION, _OPCODE = 0x8000, 0x0080, 0x0100, 0x7800
_TO_THE_QUESTION = 0xC00C  # a pointer to the name in the question (RFC 1035, 4.1.4)
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)  # RFC 6891, 6.1.2
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}\Z")
_LOCAL = {_A: ipaddress.ip_address("127.0.0.1"), _AAAA: ipaddress.ip_address("::1")}
# RFC 6761, RFC 6762; the last tells Firefox to leave names to its host (its canary domain)
_NOWHERE = ("invalid", "local", "use-application-dns.net")


class Code(IntEnum):
    """Response codes of RFC 1035."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4


class VirtualNames:
    """Names and their addresses, those that were used last.

    A name that was forgotten gets another address when it is asked for again; its old one is given
    to no other name before all of the network has been used.

    Args:
        first: where to begin in the network, any number: an address that a program has kept from an
            earlier run is then no other name's.
        size: how many names are remembered.

    """

    def __init__(self, first: int, size: int = 16384) -> None:
        self._room = NETWORK4.num_addresses - 2
        self._next = first % self._room
        self._size = size
        self._places: OrderedDict[str, int] = OrderedDict()
        self._names: dict[int, str] = {}

    def place(self, name: str) -> int:
        """The number of a name's addresses in both networks; a new one if it has none."""
        name = name.lower()
        found = self._places.get(name)
        if found is not None:
            self._places.move_to_end(name)
            return found
        if len(self._places) >= self._size:
            _, forgotten = self._places.popitem(last=False)
            del self._names[forgotten]
        while self._next in self._names:
            self._next = (self._next + 1) % self._room
        place, self._next = self._next, (self._next + 1) % self._room
        self._places[name] = place
        self._names[place] = name
        return place

    def address4(self, name: str) -> ipaddress.IPv4Address:
        """The IPv4 address that stands for a name."""
        return NETWORK4[1 + self.place(name)]

    def address6(self, name: str) -> ipaddress.IPv6Address:
        """The IPv6 address that stands for a name."""
        return NETWORK6[int(self.address4(name))]

    def name(self, address: Address) -> str | None:
        """The name that an address stands for, or None."""
        if address in NETWORK6:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address not in NETWORK4:
            return None
        name = self._names.get(int(address) - int(NETWORK4.network_address) - 1)
        if name is not None:
            self._places.move_to_end(name)
        return name


def is_virtual(address: Address) -> bool:
    """Whether an address is in one of the two networks, be there a name for it or not."""
    return address in NETWORK4 or address in NETWORK6


class Query(NamedTuple):
    """A DNS query with one question.

    Attributes:
        number: its identification.
        flags: of its header.
        question: bytes of the question, which the answer repeats.
        name: what is asked for, in lower case; None if that cannot be a host name.
        kind: the type of what is wanted.
        extended: whether whoever asks knows EDNS (RFC 6891).

    """

    number: int
    flags: int
    question: bytes
    name: str | None
    kind: int
    extended: bool


def read(message: bytes) -> Query | bytes | None:
    """A query from its bytes; bytes that answer what is no question of ours, None for no answer."""
    try:
        number, flags, questions, _, _, additional = _HEADER.unpack_from(message)
        if flags & _RESPONSE:
            return None
        if flags & _OPCODE:
            return _empty(number, flags, Code.NOT_IMPLEMENTED)
        if questions != 1:
            return _empty(number, flags, Code.FORMAT_ERROR)
        labels, place = [], _HEADER.size
        while length := message[place]:
            if length > 63 or place > _HEADER.size + _LONGEST_NAME + 2:
                return _empty(number, flags, Code.FORMAT_ERROR)
            labels.append(message[place + 1 : place + 1 + length])
            place += 1 + length
        kind, group = _QUESTION_END.unpack_from(message, place + 1)
    except (struct.error, IndexError):
        return None
    question = message[_HEADER.size : place + 5]
    extended = additional > 0 and message[place + 5 : place + 8] == _OPT[:3]
    sound = group == _IN and all(map(_LABEL.match, labels))
    name = b".".join(labels).decode("ascii").lower() if sound else ""
    good = sound and len(name) <= _LONGEST_NAME
    return Query(number, flags, question, name if good else None, kind, extended)


def answer(query: Query, names: VirtualNames) -> bytes | Address:
    """The answer, or the address whose name has to be asked of tor."""
    name = query.name
    if query.kind not in (_A, _AAAA, _PTR):
        return refuse(query, Code.NOT_IMPLEMENTED)
    if name is None:
        return refuse(query, Code.NO_SUCH_NAME)
    if query.kind == _PTR:
        return _reverse(query, name, names)
    if name == "localhost" or name.endswith(".localhost"):
        return _whole(query, _LOCAL[query.kind].packed)
    if "." not in name or name.endswith((".arpa", *(f".{end}" for end in _NOWHERE))):
        return refuse(query, Code.NO_SUCH_NAME)
    if name in _NOWHERE:
        return refuse(query, Code.NO_SUCH_NAME)
    address = names.address4(name) if query.kind == _A else names.address6(name)
    return _whole(query, address.packed)


def _reverse(query: Query, name: str, names: VirtualNames) -> bytes | Address:
    address = reversed_address(name)
    if address is None:
        return refuse(query, Code.NO_SUCH_NAME)
    if address.is_loopback:
        return named(query, "localhost")
    if is_virtual(address):
        found = names.name(address)
        return named(query, found) if found else refuse(query, Code.NO_SUCH_NAME)
    if address.is_multicast or contains(UNROUTABLE, address):
        return refuse(query, Code.NO_SUCH_NAME)
    return address


def reversed_address(name: str) -> Address | None:
    """The address whose name is asked for under in-addr.arpa or ip6.arpa, or None."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None


def named(query: Query, name: str) -> bytes:
    """The answer that an address has this name."""
    labels = name.strip(".").split(".")
    raw = b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels)
    return _whole(query, raw + b"\0")


def refuse(query: Query, code: Code) -> bytes:
    """An answer without records."""
    return _answer(query, code, b"")


def _whole(query: Query, data: bytes) -> bytes:
    record = struct.pack("!HHHIH", _TO_THE_QUESTION, query.kind, _IN, _TTL, len(data))
    return _answer(query, Code.NO_ERROR, record + data)


def _answer(query: Query, code: Code, record: bytes) -> bytes:
    flags = _answering(query.flags) | code
    counts = (1, 1 if record else 0, 0, 1 if query.extended else 0)
    head = _HEADER.pack(query.number, flags, *counts)
    return head + query.question + record + (_OPT if query.extended else b"")


def _empty(number: int, flags: int, code: Code) -> bytes:
    return _HEADER.pack(number, _answering(flags) | code, 0, 0, 0, 0)


def _answering(flags: int) -> int:
    return _RESPONSE | _AVAILABLE | flags & (_RECURSION | _OPCODE)
