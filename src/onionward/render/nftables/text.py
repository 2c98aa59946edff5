"""What a ruleset is made of, and what several chains have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from onionward.networks import NAME_PORTS

NAMES = f"{{ {', '.join(map(str, sorted(NAME_PORTS)))} }}"
DISCOVERY_PORTS = "{ 137, 138, 1900, 5353, 5355 }"
FLAGS = "tcp flags & (fin | syn | rst | ack)"
SYN_ONLY = f"{FLAGS} == syn"


class Chain(NamedTuple):
    """A chain: its hook (or "" for one that is only jumped to) and its rules."""

    name: str
    hook: str
    rules: tuple[str, ...]


class Ruleset(NamedTuple):
    """What a transaction puts in place.

    Attributes:
        state: "blocked" or "routed".
        text: for `nft -f -`.
        chains: names of (table, chain) and the number of rules each must hold.
        devices: interfaces whose egress is watched.

    """

    state: str
    text: str
    chains: tuple[tuple[str, str, int], ...]
    devices: tuple[str, ...]


def print_chain(chain: Chain) -> str:
    """A chain as nft reads it."""
    head = [f"\t\t{chain.hook}"] if chain.hook else []
    return "\n".join([f"\tchain {chain.name} {{", *head, *(f"\t\t{r}" for r in chain.rules), "\t}"])


def print_set(
    name: str, kind: str, elements: Iterable[str], flags: str = "", *, word: str = "set"
) -> list[str]:
    """A set or map as nft reads it."""
    listed = ",\n\t\t\t".join(elements)
    body = f"type {kind}; {f'flags {flags}; ' if flags else ''}".rstrip()
    contents = f"elements = {{\n\t\t\t{listed}\n\t\t}}" if listed else ""
    return [f"\t{word} {name} {{", f"\t\t{body}", *([f"\t\t{contents}"] if contents else []), "\t}"]


def for_families(text: str) -> tuple[str, str]:
    """A rule about addresses, once for each family: {ip} and {n} are filled in."""
    return (text.format(ip="ip", n=4), text.format(ip="ip6", n=6))
