"""nft: check, apply, verify, remove. Knows one tool and no policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from onionward.backend import fingerprint
from onionward.errors import CommandError, RefusedError, VerifyError
from onionward.system import System, at_once
from onionward.tables import (
    BOOT_TABLE,
    EGRESS_TABLE,
    LOCK_TABLE,
    TABLE,
    TRACE_TABLE,
    remove,
    remove_boot,
    remove_trace,
)

if TYPE_CHECKING:
    from onionward.policy import Flow, Policy
    from onionward.render.nftables import Ruleset

NAME = "nftables"
_TABLES = (TABLE, EGRESS_TABLE)


def block(policy: Policy) -> Ruleset:
    """The rules of the state "blocked"."""
    from onionward.render import nftables

    return nftables.block(policy)


def route(policy: Policy) -> Ruleset:
    """The rules of the state "routed"."""
    from onionward.render import nftables

    return nftables.route(policy)


def check(system: System, *rulesets: Ruleset) -> None:
    """Have nft and the kernel read rulesets, one after the other, without putting them in place.

    Raises:
        RefusedError: they do not accept one; with nft's words.

    """
    text = "".join(ruleset.text for ruleset in rulesets)
    try:
        system.query(["nft", "--check", "--file", "-"], stdin=text, timeout=60)
    except CommandError as error:
        states = " and ".join(ruleset.state for ruleset in rulesets)
        raise RefusedError(
            f"nft does not accept the rules for the states {states}: {error.stderr.strip()}",
            "nothing was changed; see the text with: onionward show nftables",
        ) from error


def apply(system: System, ruleset: Ruleset) -> None:
    """Replace both tables, and the one that blocks since the boot, in one transaction.

    Raises:
        CommandError: nft refused it; what was there before is still there.

    """
    words = f"nft --file -  # {ruleset.state}"
    _load(system, remove_boot() + ruleset.text, words)


def text(ruleset: Ruleset) -> str:
    """Rules as `put_back` takes them."""
    return ruleset.text


def put_back(system: System, text: str) -> None:
    """As `apply`, for rules that were in force before.

    Raises:
        CommandError: nft refused them.

    """
    _load(system, text, "nft --file -  # put back")


def _load(system: System, text: str, words: str) -> None:
    system.change(["nft", "--file", "-"], stdin=text, timeout=60, words=words)


def remove_tables(system: System) -> None:
    """Remove all of our tables in one transaction; nothing happens when there are none."""
    if _present(system) - {LOCK_TABLE}:
        words = "nft --file -  # remove"
        _load(system, remove_boot() + remove_trace() + remove(), words)


def verify(system: System, ruleset: Ruleset) -> str:
    """Read back what the kernel holds and compare it with what was loaded.

    Returns:
        A digest of it, to compare with `digest` later.

    Raises:
        VerifyError: something is missing or more than was asked for.

    """
    held = read(system)
    if held is None:
        raise VerifyError("the kernel does not hold the rules that were loaded")
    try:
        counted = _rules_per_chain(_objects(system))
    except CommandError as error:
        raise VerifyError(
            f"the kernel does not hold the rules that were loaded: {error}"
        ) from error
    expected = {(table, chain): rules for table, chain, rules in ruleset.chains}
    wrong = sorted(
        f"{table} {chain}: {counted.get((table, chain), 0)} rules instead of "
        f"{expected.get((table, chain), 0)}"
        for table, chain in counted.keys() | expected.keys()
        if counted.get((table, chain)) != expected.get((table, chain))
    )
    if watched_devices(held) != ruleset.devices:
        wrong.append(f"watched interfaces: {watched_devices(held)} instead of {ruleset.devices}")
    if wrong:
        raise VerifyError(f"the kernel holds other rules than were loaded: {'; '.join(wrong)}")
    return digest(held)


def any_table(system: System) -> bool:
    """Whether one of the tables that `up` loads exists."""
    return bool(_present(system) & set(_TABLES))


def blocked_since_boot(system: System) -> bool:
    """Whether the table is in force that blocks from the boot until `up`."""
    return BOOT_TABLE in _present(system)


def is_guarded(system: System) -> bool:
    """Whether the guard holds its own table, which ends with it."""
    # one that nobody owns is somebody's restored copy: it guards nothing
    listed = system.query(["nft", "--terse", "list", "table", *LOCK_TABLE], accept=(0, 1))
    return "flags owner" in listed


def _present(system: System) -> set[tuple[str, str]]:
    tables = system.query(["nft", "list", "tables"]).splitlines()
    ours = (*_TABLES, LOCK_TABLE, BOOT_TABLE, TRACE_TABLE)
    return {pair for pair in ours if f"table {' '.join(pair)}" in tables}


def read(system: System) -> str | None:
    """Our tables as nft prints them, or None when the one that routes is missing.

    Without the table below IP the machine still routes; the digest tells the difference.
    """
    routing, egress = at_once(lambda: _list(system, *TABLE), lambda: _list(system, *EGRESS_TABLE))
    return None if routing is None else routing + (egress or "")


def _list(system: System, family: str, name: str) -> str | None:
    # one call for each table: nft 1.0.6 fails to list two families in one
    try:
        return system.query(["nft", "list", "table", family, name], timeout=60)
    except CommandError as error:
        if "No such file or directory" in error.stderr:
            return None
        raise


def held_state(held: str) -> Literal["blocked", "routed"] | None:
    """The state whose rules these are, by the comment that each table carries."""
    if '"onionward: routed"' in held:
        return "routed"
    return "blocked" if '"onionward: blocked"' in held else None


def ahead(held: str) -> tuple[str, ...]:
    """None: our chains hold our rules only, and others' chains cannot let pass what ours drop."""
    del held
    return ()


def digest(held: str) -> str:
    """A fingerprint of rules, sets, hooks and devices.

    Counts do not matter, nor what packets have put into a set (nft(8), flags dynamic).
    """
    fixed = re.sub(r"(flags [\w,]*dynamic[^{}]*?)\s*elements = \{[^{}]*\}", r"\1", held)
    return fingerprint(re.sub(r"packets \d+ bytes \d+", "", fixed))


def counters(held: str) -> dict[str, int]:
    """Packets per named counter, summed over both tables."""
    found: dict[str, int] = {}
    for name, packets in re.findall(r"counter (\w+) \{\s+packets (\d+) bytes", held):
        found[name] = found.get(name, 0) + int(packets)
    return found


def watched_devices(held: str) -> tuple[str, ...]:
    """Interfaces that the egress chain is hooked to; nft's JSON does not name them."""
    # one is printed as `device "eth0"`, several as `devices = { eth0, wlan0 }`
    found = re.search(r"hook egress devices? (?:= )?(.+?) priority", held)
    return tuple(sorted(re.findall(r'[^\s{},"]+', found[1]))) if found else ()


def client_flows(system: System) -> tuple[Flow, ...]:
    """Connections of clients that may still be open at their end; the peer is the client."""
    from onionward.lan import client_flows as of_clients

    return of_clients.remembered(system)


def remember(system: System, flows: Iterable[Flow]) -> None:
    """Add connections of clients to those that the rules in force know."""
    from onionward.lan import client_flows as of_clients

    of_clients.remember(system, flows)


def _objects(system: System) -> list[Mapping[str, Any]]:
    import json

    objects: list[Mapping[str, Any]] = []
    for family, name in _TABLES:
        text = system.query(["nft", "--json", "list", "table", family, name], timeout=60)
        objects += json.loads(text)["nftables"]
    return objects


def _rules_per_chain(objects: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    counted: dict[tuple[str, str], int] = {}
    for entry in objects:
        if chain := entry.get("chain"):
            counted.setdefault((chain["table"], chain["name"]), 0)
        elif rule := entry.get("rule"):
            key = (rule["table"], rule["chain"])
            counted[key] = counted.get(key, 0) + 1
    return counted
