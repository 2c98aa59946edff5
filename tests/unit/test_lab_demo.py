"""What the demonstrations make of what they saw; nothing here runs a command."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onionward.cli.lab import lab
from onionward.lab import Lab
from onionward.lab.control import Control
from onionward.lab.demo import SCENES, circuits, everything, host, lan, onion, tables, user
from onionward.lab.demo.stage import BY_NAME, ONION, Asker, Stage, Visits
from onionward.leaks.wire import Capture, Packet
from onionward.system import System

LAB = Lab("test", Path("/lab"), {}, ("x.onion",), (("198.18.1.1", 9001),), ("198.18.3.1",))
STAGE = Stage(System(), LAB, Console(file=io.StringIO()), Path())
OWN, EXIT, TOR = LAB.gateway4, "198.18.3.1", "127.0.0.1"
CLEAR = {BY_NAME: OWN, ONION: ""}
HIDDEN = {BY_NAME: EXIT, ONION: TOR}
MIXED = {BY_NAME: OWN, ONION: TOR}

EVENTS = """\
STREAM 1 NEW 0 198.18.80.1:80 SOURCE_ADDR=198.18.8.11:4000 PURPOSE=USER
STREAM 2 NEWRESOLVE 0 a.test:0 SOURCE_ADDR=[2001:db8:8::11]:4001 PURPOSE=DNS_REQUEST
STREAM 3 NEW 0 198.18.80.1:80 SOURCE_ADDR=127.64.0.1:4000 PURPOSE=USER
CIRC 9 BUILT
STREAM 1 SENTCONNECT 5 198.18.80.1:80
STREAM 2 SENTRESOLVE 7 a.test:0
STREAM 3 SENTCONNECT 5 198.18.80.1:80
STREAM 1 CLOSED 5 198.18.80.1:80 REASON=DONE
STREAM 4 SENTCONNECT 6 198.18.80.1:80
""".splitlines()


# -- circuits --------------------------------------------------------------------------------------


def test_circuits_by_who_asked() -> None:
    found = circuits.by_source(EVENTS)
    assert found == {
        "198.18.8.11": frozenset({"5"}),
        "2001:db8:8::11": frozenset({"7"}),
        "127.64.0.1": frozenset({"5"}),
    }
    assert circuits.shared(found) == (("198.18.8.11", "127.64.0.1"),)
    client = ("198.18.8.11", "2001:db8:8::11", "198.18.8.12")
    assert circuits.merged(found, client) == {"5", "7"}


def test_an_ipv6_address_may_come_without_brackets() -> None:
    events = ["STREAM 2 NEW 0 a:80 SOURCE_ADDR=2001:db8:8::13:20066", "STREAM 2 SENTCONNECT 7 a:80"]
    assert circuits.by_source(events) == {"2001:db8:8::13": frozenset({"7"})}


def test_events_before_an_answer_are_kept(tmp_path: Path) -> None:
    asked = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "c"))
    listening.listen()

    def answer() -> None:
        answers = (b"", b"650 STREAM 1 NEW\r\n650 STREAM 1 CLOSED\r\n", b"")
        with listening, listening.accept()[0] as peer:
            for events in answers:
                asked.append(peer.recv(1000))
                peer.sendall(events + b"250 OK\r\n")
            peer.sendall(b"650 STREAM 2 NEW\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with Control(tmp_path / "c", cookie=b"\x01\xff") as control:
        assert control.ask("GETINFO version") == "OK"
        assert control.heard == ["STREAM 1 NEW", "STREAM 1 CLOSED"]
        control.ask("GETINFO version")
        events = control.events()
        assert [next(events) for _ in range(3)] == [
            *("STREAM 1 NEW", "STREAM 1 CLOSED", "STREAM 2 NEW"),
        ]
    thread.join()
    assert asked[0] == b"AUTHENTICATE 01ff\r\n"


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problems", "escaped", "status"), [([], 0, 0), (["one"], 0, 1), ([], 3, 1)]
)
def test_status(problems: list[str], escaped: int, status: int) -> None:
    words = io.StringIO()
    assert tables.verdict(Console(file=words), problems, "packets:", escaped) == status
    told = [f"problem: {problem}" for problem in problems]
    assert words.getvalue().splitlines() == [*told, "packets:", str(escaped)]


def test_whom_a_server_saw() -> None:
    client = STAGE.clients()[0]
    fates = {
        "": "nobody",
        LAB.client4(1): "itself",
        LAB.client6(1): "itself",
        EXIT: "Tor",
        TOR: "Tor",
        OWN: "somebody else",
        LAB.client4(2): "somebody else",
    }
    assert {seen: STAGE.fate(client, seen) for seen in fates} == fates


def test_host() -> None:
    asker = Asker("this machine", "host", (LAB.host4, LAB.host6))
    off = host.Observation({}, "", {"udp.quic4": 1}, 1, 9)
    on = host.Observation(HIDDEN, "198.18.80.1", {"udp.quic4": 0}, 0, 0)

    def problems(before: host.Observation, after: host.Observation) -> list[str]:
        return host.problems(STAGE, asker, before, after)

    assert problems(off, on) == []
    assert problems(replace(off, leaks={"udp.quic4": 0}), on) == [
        "the witness did not see udp.quic4 with protection off"
    ]
    seen = {BY_NAME: LAB.host4, ONION: ""}
    assert problems(off, replace(on, pages=seen, name="")) == [
        f"page by name: the server saw {LAB.host4}",
        "onion service: no answer through Tor",
        "no name was resolved through Tor",
    ]


def clients(visits: Mapping[int, Mapping[str, str]]) -> Visits:
    return {f"client{number}": seen for number, seen in visits.items()}


def test_lan() -> None:
    numbers = (1, 2, 3)
    before = clients({n: {BY_NAME: LAB.client4(n), ONION: ""} for n in numbers})
    after = clients(dict.fromkeys(numbers, HIDDEN))
    used = {f"client{n}": frozenset({str(n)}) for n in numbers}
    off = lan.Observation(before, {"ping.any4": 3}, 1, 1, {}, OWN)
    on = lan.Observation(after, {"ping.any4": 0}, 0, 0, used, OWN)
    assert lan.problems(STAGE, off, on) == []

    # the gateway hides them behind its own address
    wrong = clients({1: HIDDEN, 2: {BY_NAME: OWN, ONION: TOR}, 3: {BY_NAME: "", ONION: TOR}})
    worse = replace(on, visits=wrong, gateway=EXIT)
    assert lan.problems(STAGE, replace(off, leaks={"ping.any4": 0}), worse) == [
        "the witness did not see ping.any4 with protection off",
        "on: client2, page by name: the server saw somebody else, not Tor",
        "on: client3, page by name: the server saw nobody, not Tor",
        f"on: the gateway's own program was seen as {EXIT}",
    ]
    one = frozenset({"1"})
    shared = replace(on, circuits={"client1": one, "client2": one, "client3": frozenset()})
    assert lan.problems(STAGE, off, shared) == [
        "client3 has no circuit",
        "client1 and client2 share a circuit",
    ]


def test_user() -> None:
    clear = user.Observation(CLEAR, {}, {"ping.any4": 1}, 1, 5, frozenset())
    hidden = user.Observation(HIDDEN, {}, {"ping.any4": 0}, 0, 0, frozenset({"1"}))
    off = dict.fromkeys(("alice", "bob", "carol"), clear)
    on = {"alice": hidden, "bob": replace(hidden, circuits=frozenset({"2"})), "carol": clear}
    assert user.problems(STAGE, off, on) == []

    assert user.problems(STAGE, off, {**on, "bob": hidden}) == ["alice and bob share a circuit"]
    blocked = replace(clear, leaks={"ping.any4": 0}, visits={BY_NAME: "", ONION: ""})
    assert user.problems(STAGE, off, {**on, "bob": clear, "carol": blocked}) == [
        "the witness did not see ping.any4 with protection off",
        "on: bob, page by name: the server saw itself, not Tor",
        "on: bob, onion service: the server saw nobody, not Tor",
        "on: carol, page by name: the server saw nobody, not itself",
        "bob has no circuit",
    ]
    assert user.problems(STAGE, off, {**on, "carol": replace(hidden, visits=CLEAR)}) == [
        "the witness did not see ping.any4 with protection off",
        "carol goes through Tor",
    ]


def three(seen: Mapping[str, str]) -> Visits:
    return dict.fromkeys(("the gateway", "alice", "carol"), seen)


def test_onion() -> None:
    off = onion.Observation(three(CLEAR), "", 4, 5)
    on = onion.Observation(three(MIXED), "127.192.0.1", 0, 5)
    dead = onion.Observation(three(CLEAR), "", 0, 5)
    assert onion.problems(STAGE, off, on, dead) == []

    assert onion.problems(STAGE, replace(off, onion_queries=0), on, dead) == [
        "the witness did not see a query for an onion name with protection off"
    ]
    hidden = replace(on, visits={**three(MIXED), "alice": HIDDEN}, other_queries=0)
    assert onion.problems(STAGE, off, hidden, replace(dead, visits=three(MIXED))) == [
        "on: alice, page by name: the server saw Tor, not itself",
        "on: other names are not asked for as before",
        *(
            f"tor killed: {name}, onion service: the server saw Tor, not nobody"
            for name in ("the gateway", "alice", "carol")
        ),
    ]
    assert onion.problems(STAGE, off, replace(on, foreign=""), dead) == [
        "on: a resolver of one's own choice knows nothing of the onion name"
    ]


def test_onion_queries_are_told_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("4660+ A? abc.onion. (68)", "1+ AAAA? www.ABC.OnIon. (9)", "2+ A? onions.test. (9)")

    def packets(_: Capture, expression: str) -> tuple[Packet, ...]:
        assert expression == "port 53"
        return tuple(Packet(0.0, text) for text in words)

    monkeypatch.setattr(Capture, "packets", packets)
    assert onion.onion_queries(Capture(Path("none"))) == 2


def test_everything() -> None:
    accounts = ("the gateway", "alice", "bob", "carol")

    def visits(routed: tuple[str, ...], rest: Mapping[str, str]) -> Visits:
        hidden = {name: HIDDEN for name in accounts if name in routed}
        own = {n: {BY_NAME: LAB.client4(n), ONION: ""} if not routed else HIDDEN for n in (1, 2, 3)}
        return {**dict.fromkeys(accounts, rest), **hidden, **clients(own)}

    used = {"127.64.0.1": frozenset({"1"}), "198.18.8.11": frozenset({"2"})}
    some, whole = everything.SOME, everything.ALL
    found = {
        everything.OFF: everything.Observation(visits((), CLEAR), 0, 9, 2, {}),
        some: everything.Observation(visits(some.routed, MIXED), 0, 9, 0, used),
        whole: everything.Observation(visits(whole.routed, MIXED), 0, 9, 0, used),
    }
    assert everything.problems(STAGE, found) == []

    same = dict.fromkeys(used, frozenset({"1"}))
    wrong = replace(found[some], circuits=same, visits=visits(some.routed, CLEAR))
    assert everything.problems(STAGE, {**found, some: wrong}) == [
        *(
            f"{some.title}: {name}, onion service: the server saw nobody, not Tor"
            for name in ("the gateway", "bob", "carol")
        ),
        f"{some.title}: 127.64.0.1 and 198.18.8.11 share a circuit",
    ]
    blind = replace(found[whole], others=0, circuits={})
    assert everything.problems(STAGE, {**found, whole: blind}) == [
        f"{whole.title}: the witness saw nothing of those who are not routed",
        f"{whole.title}: tor used no circuit",
    ]


def test_both_addresses_of_a_sender_are_one_sender() -> None:
    one = frozenset({"1"})
    addresses = (LAB.client4(1), LAB.client6(1), "127.0.0.1", "::1", "127.64.0.1", "fd5a:7010::1:0")
    used = dict.fromkeys(addresses, one)
    assert everything.senders(STAGE, used) == ("alice", "client1", "the gateway")


def test_the_command_knows_every_scope() -> None:
    option = lab.commands["demo"].params[0]
    assert list(option.type.choices) == list(SCENES)  # type: ignore[attr-defined]
