"""All that the screen shows, as one frozen value."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from onionward.printable import printable
from onionward.status import Status
from onionward.watch.ledger import Bytes, Circuit, News, Stream, Told
from onionward.watch.owners import Owner, Owners


class ScopeRow(NamedTuple):
    """A scope.

    Attributes:
        name: in words.
        moved: bytes through tor in the last second.
        streams: how many are open.
        refused: packets stopped since the rules were loaded.
        rate: packets stopped in a second, lately.
        note: "paused", or "".

    """

    name: str
    moved: Bytes
    streams: int
    refused: int
    rate: float
    note: str = ""


class Chooser(NamedTuple):
    """A list to choose from: what for, the names, and the place of the one that is marked."""

    title: str
    names: tuple[str, ...]
    marked: int = 0

    def moved(self, by: int) -> Chooser:
        """With another one marked."""
        return self._replace(marked=max(0, min(len(self.names) - 1, self.marked + by)))


class Typed(NamedTuple):
    """What keys have brought about.

    Attributes:
        message: what has become of the last one.
        chooser: what is to be chosen, or None.
        help: whether keys are explained.
        refused: keys that do nothing for whoever looks, and why.

    """

    message: str = ""
    chooser: Chooser | None = None
    help: bool = False
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A moment.

    Attributes:
        state: as `Status` has it, or "unknown" for who may not ask.
        since: seconds since the epoch of its last change, or None.
        tor: how tor is.
        guard: how the guard is.
        total: bytes that tor has moved in the last second, cells and all.
        scopes: who is routed.
        circuits: for traffic: those that carry something, then the latest, then unused ones.
        streams: the latest first.
        attempts: who was stopped, in words, the latest last.
        news: messages of tor and of the guard, the latest last.
        problems: what is not as it should be.
        typed: what keys have brought about.

    """

    state: str
    since: float | None
    tor: str
    guard: str
    total: Bytes
    scopes: tuple[ScopeRow, ...]
    circuits: tuple[Circuit, ...]
    streams: tuple[Stream, ...]
    attempts: tuple[str, ...]
    news: tuple[News, ...]
    problems: tuple[str, ...]
    typed: Typed


def compose(
    status: Status | None,
    owners: Owners,
    told: Told,
    rates: Mapping[Owner, float],
    typed: Typed,
) -> View:
    """A view of what was read.

    Args:
        status: of the machine; None for who may not ask.
        owners: who is routed.
        told: what tor has said.
        rates: packets stopped in a second, by scope.
        typed: what keys have brought about.

    """
    used = [c for c in told.circuits if c.owner is not None]
    used.sort(key=lambda circuit: (-circuit.streams, -circuit.number))
    spare = (c for c in told.circuits if c.owner is None)
    return View(
        state="unknown" if status is None else status.state,
        since=None if status is None else status.since,
        tor=_tor(status),
        guard="" if status is None else status.guard,
        total=told.total,
        scopes=_scopes(status, owners, told, rates),
        circuits=(*used, *spare),
        streams=tuple(s for s in told.streams if s.owner.kind != "tor"),
        attempts=() if status is None else tuple(printable(a["words"]) for a in status.attempts),
        news=_news(status, told),
        problems=() if status is None else status.problems,
        typed=typed,
    )


def refused(status: Status) -> dict[Owner, int]:
    """Packets stopped since the rules were loaded, by scope."""
    found: dict[Owner, int] = {}
    for one in status.stopped:
        owner = stopped_owner(one)
        found[owner] = found.get(owner, 0) + one["packets"]
    # the kernel's own, those of sockets that are gone; with iptables, all
    if (others := sum(status.counters.values()) - sum(found.values())) > 0:
        found[Owner("others")] = others
    return found


def stopped_owner(one: Mapping[str, Any]) -> Owner:
    """Whose a count is."""
    match one["scope"]:
        case "user":
            # "ID of NAME" for subordinate ids
            return Owner("user", (one["account"] or "").rpartition(" of ")[2])
        case "lan" | "forwarded":
            return Owner(one["scope"], one["interface"])
        case kind:
            return Owner(kind)


def _tor(status: Status | None) -> str:
    if status is None:
        return "tor"
    if status.tor != "running":
        return "tor does not run"
    if status.tor_bootstrap is None:
        return "tor does not answer"
    done = status.tor_bootstrap >= 100
    return f"tor {status.tor_bootstrap} %" + ("" if done else f": {status.tor_phase}")


def _scopes(
    status: Status | None, owners: Owners, told: Told, rates: Mapping[Owner, float]
) -> tuple[ScopeRow, ...]:
    stopped = {} if status is None else refused(status)
    paused = set() if status is None else {one["account"] for one in status.paused}
    streams: dict[Owner, int] = {}
    for stream in told.streams:
        streams[stream.owner.scope] = streams.get(stream.owner.scope, 0) + 1
    known = owners.scopes()
    others = {*stopped, *streams, *(o for o, moved in told.by.items() if any(moved))}
    rows = [*known, *sorted(o for o in others - {*known} if o.kind != "tor")]
    found = [
        ScopeRow(
            _name(owner),
            told.by.get(owner, Bytes()),
            streams.get(owner, 0),
            stopped.get(owner, 0),
            rates.get(owner, 0.0),
            "paused" if owner.kind == "user" and owner.name in paused else "",
        )
        for owner in rows
    ]
    # accounts of a routed host, whose packets are the host's
    shown = {owner.name for owner in rows if owner.kind == "user"}
    found += [
        ScopeRow(f"account {name}", Bytes(), 0, 0, 0.0, "paused") for name in sorted(paused - shown)
    ]
    return tuple(found)


def _name(owner: Owner) -> str:
    match owner.kind:
        case "user":
            return f"account {owner.name}"
        case "lan":
            return f"clients behind {owner.name}"
        case "forwarded":
            return f"behind {owner.name}"
        case "":
            return "from before this screen"
        case "others":
            return "senders not known"
        case _:
            return owner.words()


def _news(status: Status | None, told: Told) -> tuple[News, ...]:
    guard = () if status is None else status.guard_events
    found = (News(e["time"], "guard", printable(e["words"])) for e in guard)
    return tuple(sorted((*told.news, *found)))


def moment(seconds: float) -> str:
    """A time of day, for people."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))
