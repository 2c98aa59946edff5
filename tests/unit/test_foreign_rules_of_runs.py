"""Rules of other programs that would cut runs of root off from tor, and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onionward.foreign_rules import limits, of_runs
from onionward.foreign_rules.of_runs import Stop
from tests.support import ScriptedSystem
from tests.unit.test_foreign_rules import ACCEPT, DROP, match, ruleset

NOTHING = json.dumps({"nftables": []})
UFW = """*filter
:INPUT DROP [0:0]
:OUTPUT ACCEPT [0:0]
:before - [0:0]
:user - [0:0]
-A INPUT -j before
-A INPUT -j user
-A before -i lo -j ACCEPT
-A before -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A before -m conntrack --ctstate INVALID -j DROP
{user}
COMMIT
"""


def stops(
    answer: str, saved: dict[str, str] | None = None, *, ipv6: bool = True
) -> tuple[Stop, ...]:
    answers: dict[str, Any] = {"nft --json": answer, "nft --handle": ""}
    return of_runs.stops(ScriptedSystem({**answers, **(saved or {})}), 940, 941, ipv6=ipv6)


@pytest.mark.parametrize(
    ("user", "is_stopped"),
    [
        ("", True),
        ("-A user -p tcp -m tcp --dport 22 -j ACCEPT", True),
        ("-A user -i eth0 -j ACCEPT", True),
        ("-A user -s 192.168.0.0/16 -j ACCEPT", True),
        ("-A user -i owr+ -j ACCEPT", False),
        ("-A user -i owr+ -d 169.254.94.9/32 -j ACCEPT", False),
        ("-A user -d 169.254.94.9/32 -j ACCEPT", False),
        ("-A user -m conntrack --ctstate DNAT -j ACCEPT", False),
        ("-A user -m conntrack --ctstate RELATED,DNAT -j ACCEPT", False),
        ("-A user -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", True),
        ("-A user -s 169.254.96.0/19 -j ACCEPT", False),
    ],
)
def test_ufw(user: str, is_stopped: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("filter\n")
    monkeypatch.setattr(limits, "_LEGACY", {"ip": names, "ip6": tmp_path / "none"})
    monkeypatch.setattr(limits, "find_tool", lambda name: name)
    found = stops(NOTHING, {"iptables-legacy-save": UFW.format(user=user)})
    assert [stop.is_all for stop in found] == ([True] if is_stopped else [])
    for stop in found:
        assert "what runs send to tor is stopped" in stop.words
        assert stop.words.endswith("chain INPUT (iptables-legacy), its policy: drop")
        assert "TCP port 940 and UDP port 941" in stop.advice


@pytest.mark.parametrize(
    ("rules", "hook", "fates"),
    [
        ([[match("meta iifname", "lo"), ACCEPT]], "input", [True]),
        ([[match("ct status", "dnat", "in"), ACCEPT]], "input", []),
        # TCP passes, names do not
        ([[match("meta l4proto", "tcp"), ACCEPT]], "input", [False]),
        # IPv6 is another family's affair
        ([[match("meta nfproto", "ipv4"), ACCEPT]], "input", [False]),
        ([[match("ct state", ["established", "related"], "in"), ACCEPT]], "output", []),
        ([[match("meta oifname", ["lo", "eth0"], "=="), ACCEPT]], "output", [True]),
    ],
)
def test_a_policy_that_drops(rules: list[Any], hook: str, fates: list[bool]) -> None:
    found = stops(ruleset(rules, hook=hook, policy="drop"))
    assert [stop.is_all for stop in found] == fates


def test_a_rule_that_may_hold_is_no_certainty() -> None:
    text = ruleset([[match("meta mark", 7), ACCEPT], [DROP]], hook="input")
    (found,) = stops(text, ipv6=False)
    assert "may be stopped" in found.words
    assert not found.is_all


def test_before_runs_are_turned_to_tor_destinations_are_anybodys() -> None:
    drops = [[match("ip daddr", "169.254.94.9"), DROP]]
    assert stops(ruleset(drops, hook="prerouting", priority=-300)) == ()
    assert [s.is_all for s in stops(ruleset(drops, hook="prerouting", priority=-100))] == [True]


def test_what_cannot_be_read_is_said() -> None:
    (found,) = stops("no JSON")
    assert "cannot be read" in found.words
    assert not found.is_all
