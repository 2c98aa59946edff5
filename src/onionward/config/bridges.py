"""Bridge lines (tor(1), Bridge), read without tor: what is wrong is said before anything is done.

Only bridges whose every packet goes to the address in the line can be let through rules that let
nothing else through. Transports that look up names, or speak to addresses that nobody knows
beforehand, are refused with that reason.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import NamedTuple

from onionward.networks import Address, contains

PLAIN = ""
"""A bridge without a transport: Tor's own protocol to an address that no list has."""

_NAMES_FIRST = "it looks up names before there is Tor to ask"
_UNKNOWN_BEFOREHAND = f"it speaks UDP to addresses that nobody knows beforehand, and {_NAMES_FIRST}"
_REFUSED = {
    "snowflake": _UNKNOWN_BEFOREHAND,
    "conjure": _UNKNOWN_BEFOREHAND,
    "meek": _NAMES_FIRST,
    "meek_lite": _NAMES_FIRST,
    "webtunnel": _NAMES_FIRST,
}
# nobody's, IPv4 written as IPv6, and what means nothing without an interface
_NOBODYS = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "240.0.0.0/4", "::/96", "::ffff:0:0/96", "fe80::/10"),
    )
)
_CERT_BYTES = 52  # node id and public key (obfs4 specification, 5)
_ARGUMENT = re.compile(r'([A-Za-z0-9_-]+)=([^\s"#\\]+)')


class Bridge(NamedTuple):
    """A bridge.

    Attributes:
        transport: its pluggable transport, or `PLAIN`.
        address: of the bridge.
        port: TCP.
        fingerprint: of its identity key, 40 hexadecimal digits.
        arguments: of the transport.

    """

    transport: str
    address: Address
    port: int
    fingerprint: str
    arguments: tuple[tuple[str, str], ...]

    def line(self) -> str:
        """As tor reads it, put together anew."""
        where = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        words = [self.transport, f"{where}:{self.port}", self.fingerprint]
        return " ".join(
            filter(None, [*words, *(f"{key}={value}" for key, value in self.arguments)])
        )


class NoBridgeError(ValueError):
    """A line is no bridge that can be used; the message says why."""


def read(text: str) -> Bridge:
    """A bridge line.

    Raises:
        NoBridgeError: what is wrong.

    """
    words = text.split()
    if words and words[0].lower() == "bridge":
        raise NoBridgeError("leave out the word Bridge in front")
    transport = PLAIN if not words or _is_place(words[0]) else words.pop(0)
    _know(transport)
    if not words:
        raise NoBridgeError("has no address; write 192.0.2.1:443 or [2001:db8::1]:443")
    address, port = _place(words.pop(0))
    if not words or not re.fullmatch(r"[0-9A-Fa-f]{40}", words[0]):
        raise NoBridgeError(
            "has no fingerprint (40 hexadecimal digits) after the address: without it anybody at "
            "that address could pass as the bridge"
        )
    fingerprint = words.pop(0).upper()
    arguments = tuple(map(_argument, words))
    _check_arguments(transport, dict(arguments), len(arguments))
    return Bridge(transport, address, port, fingerprint, arguments)


def _is_place(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", word) is None


def _know(transport: str) -> None:
    if transport in _REFUSED:
        raise NoBridgeError(
            f"the transport {transport} is not supported: {_REFUSED[transport]}, and rules that "
            "allow it would let others out, too; use a bridge with obfs4"
        )
    if transport not in (PLAIN, "obfs4"):
        raise NoBridgeError(
            f"the transport {transport!r} is not known; known: obfs4, or none (the address first)"
        )


def _place(word: str) -> tuple[Address, int]:
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):(\d{1,5})", word, re.ASCII)
    if found is None:
        raise NoBridgeError(
            f"{word!r} is not an address with a port; write 192.0.2.1:443 or [2001:db8::1]:443"
        )
    text = found[1] or found[2] or ""
    try:
        address = ipaddress.IPv6Address(text) if found[1] else ipaddress.IPv4Address(text)
    except ValueError:
        raise NoBridgeError(
            f"{text!r} is not an address; names are not looked up before there is Tor"
        ) from None
    if address.is_loopback or address.is_multicast or contains(_NOBODYS, address) or "%" in text:
        raise NoBridgeError(f"{text} cannot be the address of a bridge")
    port = int(found[3])
    if not 1 <= port <= 65535:
        raise NoBridgeError(f"{port} is not a port; ports are 1 to 65535")
    return address, port


def _argument(word: str) -> tuple[str, str]:
    found = _ARGUMENT.fullmatch(word)
    if found is None:
        raise NoBridgeError(f"{word!r} is not an argument; arguments are written key=value")
    return found[1], found[2]


def _check_arguments(transport: str, arguments: dict[str, str], count: int) -> None:
    if len(arguments) != count:
        raise NoBridgeError("has an argument twice")
    if transport == PLAIN:
        if arguments:
            raise NoBridgeError(
                f"{next(iter(arguments))}= is for a transport, and the line names none"
            )
        return
    if unknown := arguments.keys() - {"cert", "iat-mode"}:
        raise NoBridgeError(f"{min(unknown)}= is not known; obfs4 takes cert= and iat-mode=")
    if _decoded(arguments.get("cert", "")) != _CERT_BYTES:
        raise NoBridgeError("cert= is missing or cut short: obfs4 takes 70 characters of base64")
    if arguments.get("iat-mode", "0") not in ("0", "1", "2"):
        raise NoBridgeError(f"iat-mode={arguments['iat-mode']} is not known; it is 0, 1 or 2")


def _decoded(cert: str) -> int:
    try:
        return len(base64.b64decode(cert + "=" * (-len(cert) % 4), validate=True))
    except (binascii.Error, ValueError):
        return 0
