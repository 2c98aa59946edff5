"""The machine and its tor, read when something about them has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from onionward import applied, state, status
from onionward.config.parse import parse_with_network
from onionward.errors import OnionwardError, TorError, words_of
from onionward.facts import gather
from onionward.paths import Paths
from onionward.policy import derive
from onionward.status import Status
from onionward.system import System
from onionward.tor.session import Session
from onionward.watch.ledger import Ledger
from onionward.watch.owners import Owner, Owners
from onionward.watch.view import refused

_SOONEST = 1.0  # seconds from one reading to the next
_MOVING = 2.0  # while packets are being stopped
_LATEST = 10.0  # while nothing happens
_PLACED_AT_ONCE = 8  # relays whose countries are asked for in one go


class Machine:
    """What `status` says, and how fast packets are stopped."""

    def __init__(self, system: System, paths: Paths) -> None:
        self._system = system
        self._paths = paths
        self._read = -_LATEST
        self._fingerprint: tuple[int, ...] = ()
        self._journal = 0
        self.may_ask = os.geteuid() == 0
        self.status: Status | None = None
        self.owners = Owners()
        self.rates: Mapping[Owner, float] = {}
        self.trouble = ""  # why the status is an old one

    def look(self) -> None:
        """Read it again if that may show something new; costs little otherwise."""
        now = time.monotonic()
        since = now - self._read
        if not self.may_ask or since < _SOONEST:
            return
        fingerprint = tuple(map(_changed, self._telling()))
        patience = _MOVING if any(self.rates.values()) else _LATEST
        if fingerprint == self._fingerprint and since < patience:
            return
        before, self._read, self._fingerprint = self.status, now, fingerprint
        try:
            self.status = status.gather(self._system, self._paths)
            if fingerprint[0] != self._journal:
                self.owners = self._owners()
        except (OnionwardError, OSError) as error:
            # rules or programs may have gone while they were read
            self.trouble = f"not known at the moment: {words_of(error)[0]}"
            return
        self.trouble, self._journal = "", fingerprint[0]
        self.rates = {} if before is None else _rates(refused(before), refused(self.status), since)

    def _telling(self) -> tuple[Path, ...]:
        """Files that change when something does."""
        paths = self._paths
        return (paths.journal, paths.attempts, paths.guard_record, paths.control_socket)

    def _owners(self) -> Owners:
        """Who is routed, by the configuration in force."""
        journal, text = state.load(self._paths), applied.load(self._paths)
        if journal is None or text is None:
            return Owners()
        config = parse_with_network(text, journal.config)
        facts = gather(self._system, config)
        return Owners.of(derive(config, facts, tor_uid=0, tor_cgroup=None))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _rates(
    before: Mapping[Owner, int], after: Mapping[Owner, int], seconds: float
) -> dict[Owner, float]:
    """Packets in a second; counts begin anew when rules are loaded."""
    return {
        owner: (count - earlier) / seconds
        for owner, count in after.items()
        if count > (earlier := before.get(owner, 0))
    }


def begin(tor: Session, ledger: Ledger) -> bool:
    """What tor has open already; returns whether it knows countries."""
    ledger.begin(tor.info("stream-status"))
    try:
        return tor.info("ip-to-country/ipv4-available") == ("1",)
    except TorError:
        return False


def look_at_circuits(tor: Session, ledger: Ledger, *, countries: bool) -> None:
    """Ask for circuits again if events have told of a change, and where their relays are."""
    if ledger.circuits_changed:
        ledger.look(tor.info("circuit-status"))
    for fingerprint in ledger.unplaced()[:_PLACED_AT_ONCE] if countries else ():
        ledger.place(fingerprint, _country(tor, fingerprint))


def _country(tor: Session, fingerprint: str) -> str:
    try:
        lines = tor.info(f"ns/id/{fingerprint}")
        # r nickname identity digest date time address ports (dir-spec, 3.4.1)
        address = next(line.split()[6] for line in lines if line.startswith("r "))
        found = tor.info(f"ip-to-country/{address}")[0]
    except (TorError, StopIteration, IndexError):
        return ""
    return "" if found == "??" else found.upper()
