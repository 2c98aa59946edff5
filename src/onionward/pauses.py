"""Paused accounts: who gets nothing through, since when and until when; kept in the journal.

A pause is part of an activation: `down` forgets it with the journal, and every `up` meanwhile, the
guard's and that of a boot as well, renders it into the rules again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from onionward.paths import Paths
from onionward.policy import User
from onionward.state import Journal

STEP = "paused"
"""Under which name the journal has them."""


class Pause(NamedTuple):
    """One account's.

    Attributes:
        name: of the account.
        uids: ranges of user ids: its own, and the subordinate ones, when the pause began.
        since: seconds since the epoch.
        until: the same, of its end; None: until `onionward resume`.

    """

    name: str
    uids: tuple[tuple[int, int], ...]
    since: float
    until: float | None

    def lasts(self, now: float) -> bool:
        """Whether it has not ended by itself."""
        return self.until is None or now < self.until

    def user(self) -> User:
        """The account as a policy has it."""
        return User(self.name, self.uids)


def noted(journal: Journal | None) -> tuple[Pause, ...]:
    """Those of the journal, by name; also those that have just ended."""
    entry = {} if journal is None else journal.undo.get(STEP, {})
    return tuple(_read(one) for one in entry.get("accounts", ()))


def lasting(journal: Journal | None) -> tuple[Pause, ...]:
    """Those that have not ended by themselves."""
    now = time.time()
    return tuple(pause for pause in noted(journal) if pause.lasts(now))


def next_end(journal: Journal | None) -> float | None:
    """When the next one ends by itself, in seconds since the epoch."""
    return min((p.until for p in noted(journal) if p.until is not None), default=None)


def undo_with(undo: Mapping[str, Any], pauses: Iterable[Pause]) -> dict[str, Any]:
    """What a journal has under `undo`, with these in the place of the pauses before."""
    rest = {name: how for name, how in undo.items() if name != STEP}
    accounts = [_to_json(pause) for pause in sorted(pauses)]
    return {**rest, STEP: {"accounts": accounts}} if accounts else rest


def paused_users(paths: Paths) -> tuple[User, ...]:
    """Who is paused now; nobody when the journal cannot be read by whoever asks."""
    from onionward import state
    from onionward.errors import JournalError

    try:
        return tuple(pause.user() for pause in lasting(state.load(paths)))
    except (JournalError, PermissionError):
        return ()


def _to_json(pause: Pause) -> dict[str, Any]:
    return {**pause._asdict(), "uids": [list(uids) for uids in pause.uids]}


def _read(entry: Mapping[str, Any]) -> Pause:
    uids = tuple((int(first), int(last)) for first, last in entry["uids"])
    return Pause(entry["name"], uids, entry["since"], entry["until"])
