"""Which relays there are: those of tor's consensus, and where it begins without one.

The consensus is the file that tor keeps (dir-spec, 3.4.1, "r" and "a" lines; tor has checked its
signatures). Directory authorities and fallback directories are compiled into the program, or are
named by lines of torrc (tor(1), DirAuthority, FallbackDir). Clients speak to the OR ports of all of
them alone (tor-spec, BEGIN_DIR).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onionward.networks import Address

if TYPE_CHECKING:
    from onionward.config.values import Config

CONSENSUSES = ("cached-microdesc-consensus", "cached-consensus")
"""In tor's data directory; which of them a tor keeps depends on its options."""

Place = tuple[Address, int]
_PLACE4 = re.compile(r"(?<![\w.:\[])(\d{1,3}(?:\.\d{1,3}){3})(?::\d+)?(?= |$)")
_PLACE6 = re.compile(r"\[([0-9a-f:.]+)\]:(\d+)", re.IGNORECASE)
_OR_PORT = re.compile(r"\borport=(\d+)", re.IGNORECASE)
# an authority has an identity key, a fallback a fingerprint
_COMPILED_IN = re.compile(rb" orport=\d+ (?:v3ident|id)=[0-9A-Fa-f]{40}")
_NAMED = re.compile(r"(DirAuthority|DirServer|FallbackDir)\s", re.IGNORECASE)
_VALID_UNTIL = re.compile(r"^valid-until (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)$", re.MULTILINE)


class Directory(NamedTuple):
    """Where relays are.

    Attributes:
        first: OR ports of directory authorities and fallback directories.
        relays: OR ports of the relays of the consensus; () while there is none.
        valid_until: of the consensus, UTC; "" while there is none.

    """

    first: tuple[Place, ...] = ()
    relays: tuple[Place, ...] = ()
    valid_until: str = ""


def look(config: Config, data: Path, tor_path: str | None) -> Directory:
    """What is known of relays now; nothing where that does not matter.

    Args:
        config: with the lines of another network, if any.
        data: tor's data directory, which only root and tor may read.
        tor_path: the program.

    """
    if not config.tor.follows_relays:
        return Directory()
    relays: set[Place] = set()
    valid_until = ""
    for name in CONSENSUSES:
        found, until = parse_consensus(_text(data / name))
        relays |= found
        valid_until = max(valid_until, until)
    named = [line for line in config.network_lines if _NAMED.match(line)]
    first = places_of(named) if named else compiled_in(tor_path)
    return Directory(_sorted(first), _sorted(relays), valid_until)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def parse_consensus(text: str) -> tuple[frozenset[Place], str]:
    """OR ports of its relays, and until when it is valid.

    A line that is none is left out: what is not understood is not let out. A text without a time
    until which it is valid is no consensus.
    """
    until = _VALID_UNTIL.search(text)
    if until is None:
        return frozenset(), ""
    return frozenset(_relays(text.splitlines())), until[1]


def _relays(lines: Iterable[str]) -> Iterator[Place]:
    for line in lines:
        words = line.split(" ")
        if words[0] == "r" and len(words) >= 8:
            # the end is the same in each flavour: address, OR port, directory port
            yield from _place(words[-3], words[-2])
        elif words[0] == "a" and len(words) == 2:
            address, _, port = words[1].rpartition(":")
            yield from _place(address.strip("[]"), port)


def _place(address: str, port: str) -> Iterator[Place]:
    try:
        found, number = ipaddress.ip_address(address), int(port)
    except ValueError:
        return
    if 0 < number < 65536 and not (
        found.is_loopback or found.is_multicast or found.is_unspecified or found.is_link_local
    ):
        yield found, number


def places_of(lines: Iterable[str]) -> frozenset[Place]:
    """OR ports of authorities and fallbacks, one a line, as tor is told of them."""
    found: set[Place] = set()
    for line in lines:
        port = _OR_PORT.search(line)
        if port is None:
            continue
        for address in _PLACE4.findall(line):
            found.update(_place(address, port[1]))
        for address, own_port in _PLACE6.findall(line):
            found.update(_place(address, own_port))
    return frozenset(found)


def compiled_in(tor_path: str | None) -> frozenset[Place]:
    """Those that a program brings; none if it is missing or has none that are understood."""
    if tor_path is None:
        return frozenset()
    try:
        program = Path(tor_path).read_bytes()
    except OSError:
        return frozenset()
    found = (match.start() for match in _COMPILED_IN.finditer(program))
    ends = ((program.rfind(b"\0", 0, start) + 1, program.find(b"\0", start)) for start in found)
    return places_of(program[first:last].decode(errors="replace") for first, last in ends)


def _sorted(places: Iterable[Place]) -> tuple[Place, ...]:
    return tuple(sorted(places, key=lambda place: (place[0].version, place)))
