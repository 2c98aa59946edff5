"""What tor's log says of the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.paths import Paths
from onionward.tor import clock
from onionward.tor.clock import Skew


def said(what: str, source: str, side: str, time: str) -> str:
    other = "behind" if side == "ahead" else "ahead"
    return (
        f"Nov 27 10:58:19.000 [warn] Received {what} with skewed time ({source}): It seems that "
        f"our clock is {side} by {time}, or that theirs is {other}. Tor requires an accurate "
        "clock to work: please check your time, timezone, and date settings.\n"
    )


RELAY = said("NETINFO cell", "OR:198.18.1.3:9001", "ahead", "3 hours, 0 minutes")
DIRECTORY = said("directory", "DIRSERV:[2001:db8::1]:9001", "behind", "39 minutes, 46 seconds")
CONSENSUS = said("microdesc flavor consensus", "CONSENSUS", "behind", "2 days, 1 hours, 5 minutes")
JUMPED = (
    "Nov 27 07:58:20.000 [warn] Your system clock just jumped 10800 seconds backward; assuming "
    "established circuits no longer work.\n"
)
STARTED = "Nov 27 07:58:20.000 [notice] Tor 0.4.9.11 opening new log file.\n"
OTHERS = "Nov 27 07:58:20.000 [notice] Bootstrapped 100% (done): Done\n"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("", None),
        (OTHERS, None),
        (RELAY, Skew(10800, "the relay 198.18.1.3:9001")),
        (RELAY + OTHERS + DIRECTORY, Skew(-2386, "the directory [2001:db8::1]:9001")),
        (CONSENSUS, Skew(-176700, "the consensus")),
        (RELAY + JUMPED, None),
        (RELAY + STARTED, None),
        (JUMPED + RELAY, Skew(10800, "the relay 198.18.1.3:9001")),
    ],
)
def test_the_last_word_counts(log: str, found: Skew | None) -> None:
    assert clock.last(log) == found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (10800, "3 h 0 min ahead, says X; set it: "),
        (-2386, "39 min 46 s behind, says X; set it: "),
        (-176700, "2 d 1 h behind, says X; set it: "),
        (59, "59 s ahead, says X; set it: "),
    ],
)
def test_in_words(seconds: int, words: str) -> None:
    assert Skew(seconds, "X").words().startswith(words)


def test_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert clock.read(paths) is None
    paths.tor_log.parent.mkdir()
    paths.tor_log.write_text(RELAY + OTHERS * 10_000)
    assert clock.read(paths) is None
    paths.tor_log.write_text(OTHERS * 10_000 + RELAY)
    assert clock.read(paths) == Skew(10800, "the relay 198.18.1.3:9001")


def test_nothing_steers_a_terminal() -> None:
    assert clock.last(RELAY.replace("198.18", "\x1b[31m")) == Skew(
        10800, "the relay ?[31m.1.3:9001"
    )
