"""What `status` says of stopped packets: counted by the rules, and told to the guard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onionward.attempts import counted, known, names, words
from onionward.paths import Paths


def stopped(held: str, reach: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Counts by sender, the largest first.

    Args:
        held: the tables as nft lists them.
        reach: whom the rules are about (`flows.Reach.to_json`).

    """
    return tuple(
        {
            "scope": scope(reach, count.uid, count.interface),
            "account": _account(count.uid),
            **count._asdict(),
        }
        for count in counted.read(held)
    )


def attempts(paths: Paths, reach: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], ...], int]:
    """What was tried, the latest last, and how often the kernel had more to tell than fitted."""
    found = known.read(paths.attempts)
    return (
        tuple(
            {
                "scope": scope(reach, one.uid, one.interface),
                "account": _account(one.uid),
                **one._asdict(),
                "words": sentence(one),
            }
            for one in found.attempts
        ),
        found.lost,
    )


def sentence(one: known.Attempt) -> str:
    """An attempt in words."""
    sender = words.who(one.program, _account(one.uid) or "", one.unit, one.client, one.interface)
    target = words.target(one.protocol, one.port, one.address)
    outcome = words.outcome(one.protocol, one.port, one.reason)
    return f"{sender} tried {target}, {words.times(one.times)}: {outcome}"


def scope(reach: Mapping[str, Any], uid: int | None, interface: str) -> str:
    """Whose packets these are: "lan", "forwarded", "user", "host" or "onion"."""
    if interface:
        return "lan" if interface in reach.get("lans", ()) else "forwarded"
    if uid is not None and any(first <= uid <= last for first, last in reach.get("uids", ())):
        return "user"
    return "host" if reach.get("host", True) else "onion"


def _account(uid: int | None) -> str | None:
    return None if uid is None else names.account(uid)
