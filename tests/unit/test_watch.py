"""What `watch` makes of tor's events and of keys, and that a terminal gets back what it was."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from dataclasses import replace

import pytest

from onionward.config import parse
from onionward.policy import CIRCUITS4, CIRCUITS6
from onionward.status import Status
from onionward.watch.ledger import Bytes, Circuit, Hop, Ledger, News, Stream
from onionward.watch.owners import Owner, Owners
from onionward.watch.screen import Painter, Screen, named
from onionward.watch.view import Chooser, Typed, compose
from tests.support import net

OWNERS = Owners("host", ("alice", "bob"), (("eth1", (net("198.18.8.0/24"),)),))
GUARD, MIDDLE, EXIT = "A" * 40, "B" * 40, "C" * 40
PATH = f"${GUARD}~guard,${MIDDLE}~middle,${EXIT}~exit"
CIRCUITS = (
    f"3 BUILT {PATH} BUILD_FLAGS=NEED_CAPACITY PURPOSE=CONFLUX_LINKED CONFLUX_ID=XY",
    f"4 BUILT {PATH} BUILD_FLAGS=NEED_CAPACITY PURPOSE=CONFLUX_LINKED CONFLUX_ID=XY",
    f"5 EXTENDED ${GUARD} PURPOSE=GENERAL",
    f"6 BUILT ${GUARD}~guard BUILD_FLAGS=ONEHOP_TUNNEL,IS_INTERNAL PURPOSE=GENERAL",
    "7 LAUNCHED PURPOSE=GENERAL",
)
STATUS = Status(
    format=1,
    state="routed",
    since=1.0,
    config="o.toml",
    scopes=(),
    tor="running",
    tor_pid=7,
    resolver="tor",
    interfaces=(),
    forwarded={},
    counters={"refused": 5},
    problems=(),
    tor_bootstrap=100,
)


@pytest.mark.parametrize(
    ("source", "purpose", "owner"),
    [
        (f"{CIRCUITS4[1]}:5", "USER", Owner("user", "alice")),
        (f"{CIRCUITS4[2]}:5", "DNS_REQUEST", Owner("user", "bob")),
        (f"[{CIRCUITS6[1 << 16]}]:5", "USER", Owner("user", "alice")),
        (f"{CIRCUITS4[9]}:5", "USER", Owner("host")),
        ("127.0.0.1:5", "USER", Owner("host")),
        ("198.18.8.11:5", "USER", Owner("lan", "eth1", "198.18.8.11")),
        ("169.254.96.7:5", "USER", Owner("run")),
        ("(Tor_internal):0", "USER", Owner("run")),
        ("(Tor_internal):0", "DIR_FETCH", Owner("tor")),
        ("", "", Owner("")),
    ],
)
def test_whose_a_stream_is(source: str, purpose: str, owner: Owner) -> None:
    assert OWNERS.of_source(source, purpose) == owner


def heard(*events: str) -> Ledger:
    ledger = Ledger(OWNERS)
    for event in events:
        ledger.hear((event,), 9.0)
    return ledger


def test_a_stream_gives_its_circuit_an_owner_and_so_the_other_leg() -> None:
    new = f"STREAM 8 NEW 0 127.192.0.1:80 SOURCE_ADDR={CIRCUITS4[1]}:4000 PURPOSE=USER"
    ledger = heard(new, "STREAM 8 REMAP 0 abc.onion:80", "STREAM 8 SENTCONNECT 3 abc.onion:80")
    ledger.look(CIRCUITS)
    ledger.place(EXIT, "SE")
    told = ledger.told()
    alice = Owner("user", "alice")
    hops = (Hop(GUARD, "guard"), Hop(MIDDLE, "middle"), Hop(EXIT, "exit", "SE"))
    assert told.streams == (Stream(8, alice, "abc.onion:80", 3),)
    assert told.circuits[:2] == (
        Circuit(3, alice, hops, 1, "BUILT"),
        Circuit(4, alice, hops, 0, "BUILT"),
    )
    # one hop to a directory is no way for traffic; a nameless relay has its fingerprint
    assert [(c.number, c.owner) for c in told.circuits[2:]] == [(5, None), (7, None)]
    assert told.circuits[2].hops[0].name == "A" * 8
    assert set(ledger.unplaced()) == {GUARD, MIDDLE}
    ledger.hear(("STREAM 8 CLOSED 3 abc.onion:80 REASON=DONE",), 9.0)
    assert ledger.told().streams == ()


def test_bytes_are_those_of_the_last_second() -> None:
    new = f"STREAM 8 NEW 0 1.2.3.4:80 SOURCE_ADDR={CIRCUITS4[2]}:4000 PURPOSE=USER"
    ledger = heard(new, "STREAM_BW 8 10 200 now", "STREAM_BW 99 1 1 now", "BW 700 80")
    assert ledger.told().total == Bytes(700, 80)
    assert ledger.told().by == {Owner("user", "bob"): Bytes(200, 10)}
    ledger.hear(("BW 0 0",), 10.0)
    assert ledger.told().by == {}


def test_messages_are_kept_but_for_those_it_causes_itself() -> None:
    ledger = heard("NOTICE New control connection opened.", "WARN \x1b[2Jevil", "SIGNAL NEWNYM")
    (news,) = ledger.told().news
    assert news == News(9.0, "warn", news.words)
    assert "\x1b" not in news.words
    assert ledger.identities == 1


def test_streams_from_before_are_nobodys() -> None:
    ledger = Ledger(OWNERS)
    ledger.begin(["8 SUCCEEDED 3 1.2.3.4:80", "9 NEW 0 www.example.test:0"])
    owners = {stream.owner for stream in ledger.told().streams}
    assert owners == {Owner("")}
    assert ledger.told().streams[0].target == "name www.example.test"


def test_stopped_packets_belong_to_scopes() -> None:
    def one(scope: str, account: str | None, interface: str = "") -> dict[str, object]:
        return {"scope": scope, "account": account, "interface": interface, "packets": 3}

    stopped = (one("user", "alice"), one("user", "100001 of alice"), one("lan", None, "eth1"))
    status = replace(STATUS, stopped=stopped, paused=({"account": "alice"}, {"account": "carol"}))
    view = compose(status, OWNERS, Ledger(OWNERS).told(), {Owner("user", "alice"): 2.0}, Typed())
    rows = {row.name: row for row in view.scopes}
    assert (rows["account alice"].refused, rows["account alice"].rate) == (6, 2.0)
    assert rows["account alice"].note == rows["account carol"].note == "paused"
    assert rows["clients behind eth1"].refused == 3
    assert rows["host"].refused == 0


def test_what_is_nobodys_has_a_line_of_its_own() -> None:
    view = compose(STATUS, OWNERS, Ledger(OWNERS).told(), {}, Typed())
    assert {row.name: row.refused for row in view.scopes if row.refused} == {"senders not known": 5}


def test_who_may_not_ask_sees_what_tor_says() -> None:
    told = heard("BW 1 2").told()
    view = compose(None, Owners(), told, {}, Typed(refused=(("p", "only root may"),)))
    assert (view.state, view.total) == ("unknown", Bytes(1, 2))


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("q", ("q",)),
        ("\x1b[A\x1b[Bj\r", ("up", "down", "down", "enter")),
        ("\x1bOA", ("up",)),
        ("\x1b", ("escape",)),
        ("\x1b[15~n", ("n",)),
        ("\x1b[1;5Cq", ("q",)),
        ("\x1b[200~", ()),
        ("éq", ("é", "q")),
    ],
)
def test_keys_have_names(typed: str, keys: tuple[str, ...]) -> None:
    assert named(typed) == keys


def test_a_choice_stays_within_its_list() -> None:
    chooser = Chooser("pause", ("alice", "bob"))
    assert [chooser.moved(by).marked for by in (-1, 1, 5)] == [0, 1, 1]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_a_terminal_is_put_back_when_something_fails(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    screen = Screen(slave, slave, Painter(colours=False))

    def fail() -> None:
        with screen:
            assert termios.tcgetattr(slave) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert termios.tcgetattr(slave) == before
    written = b""
    while not written.endswith(b"\x1b[?25h\x1b[?1049l"):
        written += os.read(master, 4096)  # the test's time limit ends it


def test_configurations_name_owners() -> None:
    from onionward.policy import derive
    from tests.support import FACTS

    policy = derive(parse("[host]", "o.toml"), FACTS, tor_uid=1, tor_cgroup=None)
    assert Owners.of(policy).scopes() == (Owner("host"),)
