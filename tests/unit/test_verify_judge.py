"""From sightings to verdicts, and what programs and people read of them."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from onionward.leaks.model import Scope
from onionward.leaks.vectors import CATALOGUE
from onionward.verify import page, relays, text, timeline
from onionward.verify.judge import is_six, judge
from onionward.verify.report import Marks, Sighting, Verdict, count, summary, to_json
from tests.unit.verify_values import SEEN, evidence, planned, report, result_of

PLAN = planned()
QUIC = ("udp.quic4", "nobody")
QUIC6 = ("udp.quic6", "nobody")
BROKEN = "broken: OSError: [Errno 98] Address already in use"


def verdict(key: tuple[str, str], **changes: object) -> tuple[Verdict, str]:
    found = result_of(judge(PLAN, evidence(PLAN, **changes)), key)
    return found.verdict, found.why


def one(key: tuple[str, str], value: object, name: str) -> dict[tuple[str, str], object]:
    return {**getattr(evidence(PLAN), name), key: value}


def test_what_the_control_shows_and_the_wire_does_not_is_closed() -> None:
    assert verdict(QUIC) == ("closed", "")


def test_what_the_wire_shows_is_open_whatever_else_is_wrong() -> None:
    changes = {"uplink": {QUIC: SEEN}, "control": {}, "said": one(QUIC, BROKEN, "said")}
    assert verdict(QUIC, **changes) == ("open", "")


def test_what_the_control_does_not_show_is_not_proven() -> None:
    known, why = verdict(QUIC, control=one(QUIC, Sighting(0), "control"))
    assert known == "not proven"
    assert "control" in why


def test_without_a_watcher_nothing_is_closed() -> None:
    unwatched = verdict(QUIC, uplink=None, unwatched="nobody watched")
    assert unwatched == ("not proven", "nobody watched")


def test_an_attempt_that_failed_by_itself_proves_nothing() -> None:
    known, why = verdict(QUIC, said=one(QUIC, BROKEN, "said"))
    assert known == "not proven"
    assert "in use" in why


def test_without_a_route_of_that_family_it_was_not_really_tried() -> None:
    said = one(QUIC6, "refused: [Errno 101] Network is unreachable", "said")
    assert verdict(QUIC6, said=said, routes6=False) == (
        "not tried", "this machine has no IPv6 route",
    )  # fmt: skip
    # with one, it is the rules that say so
    assert verdict(QUIC6, said=said) == ("closed", "")
    # a frame needs no route
    assert verdict(("frame.udp6", "root"), routes6=False) == ("closed", "")


@pytest.mark.parametrize(
    "name", ["udp.quic6", "raw.hop-by-hop", "raw.mld", "raw.nd-advert", "ping.all-nodes",
             "onion-name.udp6-root", "asking.tcp6", "raw.tcp6-ack", "dns.tcp6"]
)  # fmt: skip
def test_ways_out_over_ipv6_are_known(name: str) -> None:
    assert is_six(CATALOGUE[name])


def test_whatever_has_ipv6_in_its_filter_is_one() -> None:
    for trial in PLAN.trials:
        sees = trial.filter
        if re.search(r"\bip6\b|icmp6", sees) and "icmp " not in sees:
            assert is_six(trial.vector) or trial.vector.scope is not Scope.HOST, trial.vector.id


@pytest.mark.parametrize("name", ["udp.quic4", "ping.any4", "raw.gre4", "frame.llc", "mark.all"])
def test_others_are_not_taken_for_them(name: str) -> None:
    assert not is_six(CATALOGUE[name])


def test_every_trial_and_every_reason_is_in_the_results() -> None:
    results = judge(PLAN, evidence(PLAN))
    assert len(results) == len(PLAN.trials) + len(PLAN.untried)
    assert len({(result.id, result.who) for result in results}) == len(results)


@pytest.mark.parametrize(
    ("changes", "known", "status", "first"),
    [
        ({}, "closed", 0, "closed"),
        ({"uplink": {QUIC: SEEN}}, "open", 1, "OPEN: 1 left"),
        ({"uplink": None}, "not proven", 1, "NOT PROVEN"),
        ({"control": {}, "uplink": {QUIC: SEEN}}, "open", 1, "OPEN"),
    ],
)
def test_the_worst_decides(changes: dict[str, object], known: str, status: int, first: str) -> None:
    made = report(results=judge(PLAN, evidence(PLAN, **changes)))
    assert made.verdict == known
    assert made.exit_status == status
    assert summary(made).startswith(first)


def test_a_report_of_nothing_proves_nothing() -> None:
    assert report(results=()).exit_status == 1


def test_the_json_says_what_the_report_does() -> None:
    made = report()
    document = json.loads(to_json(made))
    assert (document["format"], document["verdict"]) == (1, "closed")
    assert document["counts"] == count(made.results)
    assert len(document["results"]) == len(made.results)


def shown(**changes: object) -> str:
    stream = io.StringIO()
    text.show(report(**changes), Console(file=stream, width=80))
    return stream.getvalue()


def test_the_summary_comes_first_and_themes_follow() -> None:
    lines = shown().splitlines()
    assert lines[0].startswith("closed: nothing left this machine in clear")
    assert any("ordinary sockets" in line for line in lines)
    assert any("not tried, because it comes from the cable" in line for line in lines)


def test_what_left_is_told_in_tcpdumps_words_for_the_account_that_sent_it() -> None:
    results = judge(PLAN, evidence(PLAN, uplink={QUIC: SEEN}))
    words = " ".join(shown(results=results).split())
    assert "OPEN: 1 packet on eth0" in words


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    assert "[bold]x[/]" in shown(notes=("[bold]x[/]",))


# -- the page --------------------------------------------------------------------------------------


def test_nothing_in_the_page_is_taken_for_html() -> None:
    evil = '<script>alert("x")</script>'
    made = report(machine=evil, kernel=evil, policy=(evil,), scopes=(evil,), notes=(evil,))
    first = replace(made.results[0], title=evil, why=evil, said=evil, who=evil, filter=evil,
                    uplink=Sighting(1, 1.0, evil, evil))  # fmt: skip
    words = page.render(replace(made, results=(first,), tools=(evil,), watched=(evil,)))
    assert "<script" not in words
    assert words.count("&lt;script&gt;") >= 10


def test_the_page_needs_nothing_else() -> None:
    words = page.render(report())
    assert "src=" not in words
    assert "href=" not in words
    assert "url(" not in words
    assert "@import" not in words
    # a name, which nobody fetches
    assert re.findall(r"https?://[^\"]*", words) == ["http://www.w3.org/2000/svg"]


def test_every_packet_has_its_place_in_the_picture() -> None:
    marks = (Marks("canary", ((1008.0, 5),)), Marks("control", ((1002.5, 1),)))
    drawn = timeline.draw(report(traffic=marks))
    assert drawn.count('<rect class="canary"') == 1
    assert drawn.count('<rect class="control"') == 1
    assert drawn.count('<rect class="tor"') == 0
    assert "5 packets" in drawn


# -- whom tor speaks to ----------------------------------------------------------------------------


def test_far_ends_of_tors_connections_are_read_from_the_kernel() -> None:
    line = "0: 020012C6:D2F0 010212C6:2329 01 0:0 00:0 00000000 995 0 1"
    other = "1: 020012C6:D2F1 010312C6:2329 01 0:0 00:0 00000000 1000 0 1"
    listening = "2: 0100007F:03AC 00000000:0000 0A 0:0 00:0 00000000 995 0 1"
    assert relays.of_account([line, other, listening], 995) == {("198.18.2.1", 9001)}


def test_far_ends_over_ipv6_too() -> None:
    far = "B80D0120000003000000000001000000"
    line = f"0: {far}:D2F0 {far}:2329 01 0:0 00:0 00000000 995 0 1"
    assert relays.of_account([line], 995) == {("2001:db8:3::1", 9001)}
