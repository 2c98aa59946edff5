"""Screens of `watch` are the ones that were reviewed, whatever the size, with and without colours.

`pytest tests/unit/test_watch_screens.py --update-goldens` writes what is rendered now; review it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.watch.ledger import Bytes, Circuit, Hop, News, Stream
from onionward.watch.owners import Owner
from onionward.watch.plain import changes
from onionward.watch.screen import Painter
from onionward.watch.text import render
from onionward.watch.view import Chooser, ScopeRow, Typed, View

FOLDER = Path(__file__).parent / "watch_screens"
NOON = 1_790_510_400.0
ALICE, CLIENT = Owner("user", "alice"), Owner("lan", "eth1", "198.18.8.11")
IPV6 = "[2001:db8:80::1]:443"


def circuit(number: int, owner: Owner | None, streams: int = 0, **changes: str) -> Circuit:
    hops = (Hop("A" * 40, "guard1"), Hop("B" * 40, "middle1", "DE"), Hop("C" * 40, "exit1", "SE"))
    return Circuit(number, owner, hops, streams, changes.get("state", "BUILT"))


QUIET = View(
    state="routed",
    since=NOON,
    tor="tor 100 %",
    guard="running",
    total=Bytes(),
    scopes=(ScopeRow("host", Bytes(), 0, 0, 0.0),),
    circuits=(circuit(1, None),),
    streams=(),
    attempts=(),
    news=(),
    problems=(),
    typed=Typed(),
)
BUSY = replace(
    QUIET,
    total=Bytes(1_234_567, 98_765),
    scopes=(
        ScopeRow("host", Bytes(999, 1), 3, 12, 0.0),
        ScopeRow("account alice", Bytes(1_200_000, 80_000), 2, 40_312, 17.5),
        ScopeRow("account bob", Bytes(), 0, 0, 0.0, "paused"),
        ScopeRow("clients behind eth1", Bytes(2_500_000_000, 1000), 1, 7, 0.0),
    ),
    circuits=(
        circuit(31, ALICE, 2),
        circuit(30, CLIENT, 1),
        circuit(12, Owner("host")),
        *(circuit(number, None, state="EXTENDED") for number in range(40, 52)),
    ),
    streams=(
        Stream(9, ALICE, "www.example.test:443", 31),
        Stream(8, ALICE, "name www.example.test", 31),
        Stream(7, CLIENT, IPV6, 30),
        Stream(6, Owner("host"), "198.18.80.1:80", 0),
    ),
    attempts=(
        "a program of bob tried ping → 192.0.2.1, once: refused",
        "firefox (alice) tried UDP 443 → 1.2.3.4, 20 times: QUIC, refused; it falls back to TCP",
    ),
    news=(
        News(NOON + 1, "notice", "Bootstrapped 100% (done): Done"),
        News(NOON + 2, "guard", "packet rules were gone by another's doing: put back"),
        News(NOON + 3, "warn", "Your system clock just jumped 100 seconds forward"),
    ),
)
VIEWS = {
    "busy": BUSY,
    "quiet": QUIET,
    "off": replace(QUIET, state="off", since=None, tor="tor does not run", guard="", scopes=()),
    "blocked": replace(
        QUIET,
        state="blocked",
        tor="tor 45 %: Loading relay descriptors",
        problems=("tor is not running: traffic is blocked; `onionward up` starts it again",),
    ),
    "open": replace(QUIET, state="open", problems=("NOT PROTECTED: the rules are gone",)),
    "message": replace(BUSY, typed=Typed("paused: alice gets nothing through until noon")),
    "chooser": replace(BUSY, typed=Typed(chooser=Chooser("pause", ("alice", "bob", "carol"), 1))),
    "help": replace(
        QUIET, state="unknown", typed=Typed(help=True, refused=(("p", "only root may"),))
    ),
}
SIZES = ((80, 24), (120, 40), (60, 10), (30, 5))
SCREENS = [
    *(("busy", size, colours) for size in SIZES[:2] for colours in (False, True)),
    *(("busy", size, False) for size in SIZES[2:]),
    *((name, SIZES[0], False) for name in VIEWS if name != "busy"),
]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("name", "size", "colours"), SCREENS)
def test_screens_are_as_reviewed(
    name: str, size: tuple[int, int], colours: bool, request: pytest.FixtureRequest
) -> None:
    painter = Painter(colours=colours)
    lines = [painter.paint(line) if colours else line.plain for line in render(VIEWS[name], *size)]
    text = "".join(f"{line}\n" for line in lines)
    kind = ".ansi" if colours else ""
    golden = FOLDER / f"{name}-{size[0]}x{size[1]}{kind}.txt"
    if request.config.getoption("--update-goldens"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_there_is_no_screen_that_nobody_compares() -> None:
    names = {
        f"{name}-{size[0]}x{size[1]}{'.ansi' if colours else ''}.txt"
        for name, size, colours in SCREENS
    }
    assert {path.name for path in FOLDER.iterdir()} == names


@given(st.sampled_from(sorted(VIEWS)), st.integers(1, 200), st.integers(1, 80))
def test_a_screen_fills_its_terminal_and_no_more(name: str, width: int, height: int) -> None:
    lines = render(VIEWS[name], width, height)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width
    painter = Painter(colours=True)
    assert not any("\n" in painter.paint(line) for line in lines)


def test_colours_say_nothing_that_words_do_not() -> None:
    one, other = Painter(colours=True), Painter(colours=False)
    for view in VIEWS.values():
        for line in render(view, 80, 24):
            assert "\x1b[3" not in other.paint(line)
            assert line.plain in one.paint(line) or "\x1b[" in one.paint(line)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    painter = Painter(colours=False, unicode=False)
    for line in render(BUSY, 80, 24):
        assert painter.paint(line).isascii()
    assert "guard1 > middle1" in painter.paint(render(BUSY, 80, 24)[7])


def test_what_programs_call_themselves_is_no_markup() -> None:
    view = replace(QUIET, attempts=("[red]evil[/] tried TCP 1 → 1.2.3.4, once: refused",))
    assert any("[red]evil[/]" in line.plain for line in render(view, 80, 24))


def test_plain_lines_tell_what_has_changed() -> None:
    first = changes(None, QUIET)
    assert first == ("state routed; tor 100 %", "scope host")
    assert changes(BUSY, BUSY) == ()
    told = changes(QUIET, BUSY)
    assert "scope account bob (paused)" in told
    assert "circuit 31 of alice: guard1 → middle1 → exit1" in told
    assert "warn Your system clock just jumped 100 seconds forward" in told
    # where connections go is for the screen alone
    assert not any("www.example.test" in line for line in told)
    resumed = replace(BUSY, scopes=tuple(row._replace(note="") for row in BUSY.scopes))
    assert changes(BUSY, resumed) == ("account bob resumed",)
    blocked = VIEWS["blocked"]
    assert changes(QUIET, blocked)[0] == "state blocked; tor 45 %: Loading relay descriptors"
    assert changes(blocked, QUIET)[1].startswith("solved tor is not running")


def test_an_attempt_is_told_once_however_often_it_is_repeated() -> None:
    once = replace(QUIET, attempts=("bob tried UDP 1 → 1.2.3.4, once: refused",))
    often = replace(QUIET, attempts=("bob tried UDP 1 → 1.2.3.4, 9 times: refused",))
    assert changes(QUIET, once) == once.attempts
    assert changes(once, often) == ()
