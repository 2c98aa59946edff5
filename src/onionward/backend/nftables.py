"""nft: check, apply, verify, remove. Knows one tool and no policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from onionward.errors import CommandError, RefusedError, VerifyError
from onionward.render.nftables import EGRESS_TABLE, TABLE, Ruleset, remove
from onionward.system import System

_TABLES = (TABLE, EGRESS_TABLE)


def check(system: System, ruleset: Ruleset) -> None:
    """Have nft and the kernel read a ruleset without putting it in place.

    Raises:
        RefusedError: they do not accept it; with nft's words.

    """
    try:
        system.query(["nft", "--check", "--file", "-"], stdin=ruleset.text, timeout=60)
    except CommandError as error:
        raise RefusedError(
            f"nft does not accept the rules for the state {ruleset.state}: {error.stderr.strip()}",
            "nothing was changed; see the text with: onionward show nftables",
        ) from error


def apply(system: System, ruleset: Ruleset) -> None:
    """Replace both tables in one transaction.

    Raises:
        CommandError: nft refused it; what was there before is still there.

    """
    system.effect(f"nft --file -  # {ruleset.state}")
    system.query(["nft", "--file", "-"], stdin=ruleset.text, timeout=60)


def remove_tables(system: System) -> None:
    """Remove both tables in one transaction; nothing happens when there are none."""
    if any(_read(system, family, name) is not None for family, name in _TABLES):
        system.effect("nft --file -  # remove")
        system.query(["nft", "--file", "-"], stdin=remove(), timeout=60)


def verify(system: System, ruleset: Ruleset) -> str:
    """Read back what the kernel holds and compare it with what was loaded.

    Returns:
        A digest of it, for `unchanged` later.

    Raises:
        VerifyError: something is missing or more than was asked for.

    """
    held = read(system)
    if held is None:
        raise VerifyError("the kernel does not hold the rules that were loaded")
    counted = _rules_per_chain(held)
    expected = {(table, chain): rules for table, chain, rules in ruleset.chains}
    if counted != expected:
        wrong = sorted(
            f"{table} {chain}: {counted.get((table, chain), 0)} rules instead of "
            f"{expected.get((table, chain), 0)}"
            for table, chain in counted.keys() | expected.keys()
            if counted.get((table, chain)) != expected.get((table, chain))
        )
        raise VerifyError(f"the kernel holds other rules than were loaded: {'; '.join(wrong)}")
    return digest(held)


def read(system: System) -> list[Mapping[str, Any]] | None:
    """Everything in our tables as nft's JSON objects, or None when a table is missing."""
    objects: list[Mapping[str, Any]] = []
    for family, name in _TABLES:
        listed = _read(system, family, name)
        if listed is None:
            return None
        objects += listed
    return objects


def _read(system: System, family: str, name: str) -> list[Mapping[str, Any]] | None:
    try:
        text = system.query(["nft", "--json", "list", "table", family, name], timeout=60)
    except CommandError as error:
        if "No such file or directory" in error.stderr:
            return None
        raise
    objects: list[Mapping[str, Any]] = json.loads(text)["nftables"]
    return [entry for entry in objects if "metainfo" not in entry]


def digest(objects: Iterable[Mapping[str, Any]]) -> str:
    """A fingerprint of rules, sets and hooks; counts and handles do not matter."""
    bare = [_without_volatile(entry) for entry in objects]
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_volatile(inner)
            for key, inner in value.items()
            if key not in ("handle", "packets", "bytes")
        }
    if isinstance(value, list):
        return [_without_volatile(inner) for inner in value]
    return value


def counters(objects: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Packets per named counter, summed over both tables."""
    found: dict[str, int] = {}
    for entry in objects:
        if counter := entry.get("counter"):
            name = counter["name"]
            found[name] = found.get(name, 0) + int(counter["packets"])
    return found


def watched_devices(objects: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Interfaces that the egress chain is hooked to."""
    for entry in objects:
        chain = entry.get("chain", {})
        if chain.get("hook") == "egress":
            device = chain.get("dev", ())
            return (device,) if isinstance(device, str) else tuple(device)
    return ()


def _rules_per_chain(objects: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    counted: dict[tuple[str, str], int] = {}
    for entry in objects:
        if chain := entry.get("chain"):
            counted.setdefault((chain["table"], chain["name"]), 0)
        elif rule := entry.get("rule"):
            key = (rule["table"], rule["chain"])
            counted[key] = counted.get(key, 0) + 1
    return counted
