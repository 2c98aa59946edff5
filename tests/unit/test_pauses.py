"""Pauses as the journal has them, and who speaks with tor's port for runs."""

from __future__ import annotations

import time
from dataclasses import replace

from onionward import pauses
from onionward.app.rootless.closed_to import speakers
from onionward.pauses import Pause
from onionward.state import Journal

JOURNAL = Journal("routed", 1.0, "one", 2, undo={"rules": {"host": True}})
ALICE = Pause("alice", ((1000, 1000),), 5.0, None)
BOB = Pause("bob", ((1001, 1001), (100000, 165535)), 5.0, time.time() + 86400)
OVER = Pause("carol", ((1002, 1002),), 5.0, 6.0)

# as ss(8) of iproute2 6.1 prints it
SHOWN = """\
u_str ESTAB 0 0 /run/onionward/socks/ipv4 111 * 222 users:(("tor",pid=7,fd=9))
u_str ESTAB 0 0 /run/onionward/socks/ipv6 113 * 224 users:(("tor",pid=7,fd=10))
u_str ESTAB 0 0 * 222 * 111 users:(("python3",pid=30,fd=4),("python3",pid=31,fd=4))
u_str ESTAB 0 0 * 224 * 113 users:(("python3",pid=32,fd=5))
u_str ESTAB 0 0 * 333 * 444 users:(("other",pid=40,fd=5))
u_str ESTAB 0 0 * 555 * 666
"""


def test_the_journal_keeps_them() -> None:
    noted = replace(JOURNAL, undo=pauses.undo_with(JOURNAL.undo, [BOB, OVER, ALICE]))
    assert pauses.noted(noted) == (ALICE, BOB, OVER)
    assert pauses.lasting(noted) == (ALICE, BOB)
    assert pauses.next_end(noted) == 6.0
    assert noted.undo["rules"] == JOURNAL.undo["rules"]


def test_without_any_nothing_is_noted() -> None:
    paused = pauses.undo_with(JOURNAL.undo, [ALICE])
    assert pauses.undo_with(paused, []) == JOURNAL.undo
    assert pauses.noted(None) == pauses.noted(JOURNAL) == ()
    assert pauses.next_end(JOURNAL) is None


def test_who_speaks_with_the_port_for_runs() -> None:
    places = frozenset({"/run/onionward/socks/ipv4", "/run/onionward/socks/ipv6"})
    assert sorted(speakers(SHOWN, places)) == [30, 31, 32]
