"""Rules of other programs: whom they would stop, and whom they would not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onionward.config import parse
from onionward.errors import CommandError
from onionward.foreign_rules import iptables_save, limits, trace
from tests.support import FACTS, ScriptedSystem

JSON = "nft --json --terse list ruleset"
LAN = '[[lan]]\ninterface = "eth0"\n'

Expression = list[dict[str, Any]]


def match(key: str, right: Any, operator: str = "==") -> dict[str, Any]:
    kind, name = key.split()
    left: dict[str, Any] = (
        {kind: {"key": name}}
        if kind in ("meta", "ct")
        else {"payload": {"protocol": kind, "field": name}}
    )
    return {"match": {"op": operator, "left": left, "right": right}}


def verdict(kind: str, target: str = "") -> dict[str, Any]:
    return {kind: {"target": target} if target else None}


ACCEPT, DROP, RETURN = verdict("accept"), verdict("drop"), verdict("return")
COUNTER = {"counter": {"packets": 1, "bytes": 2}}


def ruleset(
    rules: Sequence[Expression],
    *,
    hook: str = "output",
    policy: str = "accept",
    family: str = "inet",
    table: str = "theirs",
    priority: int = 0,
    **called: Sequence[Expression],
) -> str:
    """What nft prints of a table with one base chain and those that it calls."""
    place = {"family": family, "table": table}
    base = {"hook": hook, "type": "filter", "prio": priority, "policy": policy}
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": family, "name": table}},
        {"chain": {**place, "name": "base", **base}},
    ]
    handle = 10
    for name, listed in {"base": rules, **called}.items():
        if name != "base":
            objects.append({"chain": {**place, "name": name}})
        for expression in listed:
            objects.append({"rule": {**place, "chain": name, "handle": handle, "expr": expression}})
            handle += 1
    return json.dumps({"nftables": objects})


def found(text: Any, config: str = "", **answers: Any) -> tuple[str, ...]:
    """What is said of a ruleset."""
    system = ScriptedSystem({JSON: text, "nft --handle list chain": "", **answers})
    said = limits.limits(system, parse(config, "x.toml"), FACTS)
    assert system.effects == []
    return said


def of_tor(text: str) -> str:
    """What becomes of tor's packets: "stopped", "may", or "" when nothing is said."""
    said = [words for words in found(text) if words.startswith("what tor sends")]
    assert len(said) <= 1
    if not said:
        return ""
    return "may" if " may be stopped " in said[0] else "stopped"


TOR = 947


@pytest.mark.parametrize(
    ("rules", "fate"),
    [
        ([], "stopped"),
        ([[COUNTER, ACCEPT]], ""),
        ([[match("meta skuid", TOR), ACCEPT]], ""),
        ([[match("meta skuid", 0), ACCEPT]], "stopped"),
        ([[match("meta skuid", {"range": [900, 999]}), ACCEPT]], ""),
        ([[match("meta skuid", {"set": [0, TOR]}), ACCEPT]], ""),
        ([[match("meta skuid", {"set": [0, TOR]}, "!="), ACCEPT]], "stopped"),
        ([[match("meta skuid", "@mine"), ACCEPT]], "may"),
        ([[match("meta oifname", "lo"), ACCEPT]], "stopped"),
        ([[match("meta oifname", "lo", "!="), ACCEPT]], ""),
        ([[match("meta oif", "eth0"), ACCEPT]], ""),
        ([[match("meta oifname", "eth*"), ACCEPT]], ""),
        ([[match("meta oifname", {"set": ["wlan0", "eth*"]}), ACCEPT]], ""),
        ([[match("meta skuid", 900, ">="), ACCEPT]], ""),
        ([[match("meta skuid", 900, "<"), ACCEPT]], "stopped"),
        # where packets leave it has no name
        ([[match("meta iifname", "lo", "!="), ACCEPT]], ""),
        ([[match("meta iifname", "lo"), ACCEPT]], "stopped"),
        ([[match("ct state", ["established", "related"], "in"), ACCEPT]], "stopped"),
        ([[match("ct state", ["new", "established"], "in"), ACCEPT]], ""),
        ([[match("ct state", {"set": ["new", "related"]}), ACCEPT]], ""),
        ([[match("ct state", "invalid", "!="), ACCEPT]], ""),
        ([[match("ct status", "dnat", "in"), ACCEPT]], "stopped"),
        ([[match("ct mark", 7), ACCEPT]], "may"),
        ([[match("tcp dport", {"set": [443, 9001]}), ACCEPT]], "may"),
        ([[match("udp dport", 53), ACCEPT]], "stopped"),
        ([[match("udp dport", 53, "!="), ACCEPT]], "stopped"),
        ([[match("ip daddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT]], "may"),
        ([[match("ip6 daddr", "::1"), ACCEPT]], "stopped"),
        ([[match("meta l4proto", {"set": ["tcp", "udp"]}), ACCEPT]], ""),
        ([[match("ip protocol", "tcp"), ACCEPT]], ""),
        ([[match("meta nfproto", "ipv6"), ACCEPT]], "stopped"),
        ([[{"limit": {"rate": 5, "per": "second"}}, ACCEPT]], "may"),
        ([[{"xt": {"type": "match", "name": "string"}}, ACCEPT]], "may"),
        ([[{"something new": 1}, ACCEPT]], "may"),
        ([[{"log": {"prefix": "x"}}], [{"mangle": {}}]], "stopped"),
        ([[{"queue": {"num": 1}}]], ""),
        ([[verdict("jump", "sub")], [ACCEPT]], ""),
        ([[verdict("jump", "lets")]], ""),
        ([[verdict("jump", "drops")], [ACCEPT]], "stopped"),
        ([[verdict("goto", "sub")], [ACCEPT]], "stopped"),
        ([[match("ct mark", 1), verdict("jump", "lets")]], "may"),
        ([[match("ct mark", 1), verdict("jump", "drops")], [ACCEPT]], ""),
        ([[verdict("jump", "back")], [ACCEPT]], ""),
        ([[RETURN], [ACCEPT]], "stopped"),
        ([[match("meta skuid", 0), RETURN], [ACCEPT]], ""),
        ([[verdict("jump", "nowhere")]], "may"),
        ([[verdict("jump", "loop")]], "may"),
    ],
)
def test_a_policy_that_drops(rules: list[Expression], fate: str) -> None:
    text = ruleset(
        rules,
        policy="drop",
        sub=[[match("meta skuid", 0), DROP]],
        lets=[[match("ct state", "new", "in"), ACCEPT]],
        drops=[[DROP]],
        back=[[RETURN], [DROP]],
        loop=[[verdict("jump", "loop")]],
    )
    assert of_tor(text) == fate


@pytest.mark.parametrize(
    ("rules", "fate"),
    [
        ([[DROP]], "stopped"),
        ([[{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]], "stopped"),
        ([[{"reject": {"type": "tcp reset"}}]], "stopped"),
        ([[{"reject": {"type": "icmpv6", "expr": "no-route"}}]], ""),
        ([[match("meta l4proto", "tcp"), DROP]], "stopped"),
        ([[match("meta l4proto", "udp"), DROP]], ""),
        ([[match("ct state", "invalid", "in"), DROP]], ""),
        ([[match("ct state", "new", "in"), DROP]], "stopped"),
        ([[match("meta skuid", 0, "!="), DROP]], "stopped"),
        ([[match("tcp dport", 1, "!="), ACCEPT], [DROP]], "may"),
        # what holds for some relays only starves nobody
        ([[match("ip daddr", "192.0.2.1"), DROP]], ""),
        ([[match("tcp dport", 443, "!="), DROP]], ""),
        ([[{"limit": {"rate": 5, "inv": True, "per": "second"}}, DROP]], ""),
    ],
)
def test_a_rule_that_drops(rules: list[Expression], fate: str) -> None:
    assert of_tor(ruleset(rules)) == fate


def test_flags_of_a_first_packet() -> None:
    def flags(mask: list[str], wanted: str, operator: str = "==") -> Expression:
        left = {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, mask]}
        return [{"match": {"op": operator, "left": left, "right": wanted}}, DROP]

    all_four = ["fin", "syn", "rst", "ack"]
    assert of_tor(ruleset([flags(all_four, "syn")])) == "stopped"
    assert of_tor(ruleset([flags(all_four, "syn", "!=")])) == ""
    assert of_tor(ruleset([flags(["syn", "rst"], "rst")])) == ""


@pytest.mark.parametrize(
    ("key", "data", "fate"),
    [
        ({"ct": {"key": "state"}}, [["established", ACCEPT], ["new", DROP]], "stopped"),
        ({"ct": {"key": "state"}}, [["established", ACCEPT], ["invalid", DROP]], ""),
        ({"meta": {"key": "l4proto"}}, [["tcp", verdict("jump", "drops")]], "stopped"),
        ({"meta": {"key": "mark"}}, [[1, DROP]], ""),
        ({"meta": {"key": "oifname"}}, [["lo", ACCEPT], ["eth0", verdict("goto", "drops")]],
         "stopped"),
    ],
)  # fmt: skip
def test_verdict_maps(key: dict[str, Any], data: list[Any], fate: str) -> None:
    rule = {"vmap": {"key": key, "data": {"set": data}}}
    assert of_tor(ruleset([[rule]], drops=[[DROP]])) == fate


def test_a_named_map_may_hold_anything() -> None:
    rule = {"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@verdicts"}}
    assert of_tor(ruleset([[rule]], policy="drop")) == "may"


@pytest.mark.parametrize(
    ("family", "hook", "table", "fate"),
    [
        ("ip", "output", "x", "stopped"),
        ("ip", "postrouting", "x", "stopped"),
        ("inet", "forward", "x", ""),
        ("ip6", "output", "x", ""),
        ("bridge", "output", "x", ""),
        ("inet", "output", "onionward", ""),
        ("inet", "output", "onionward_trace", ""),
    ],
)
def test_where_tor_passes(family: str, hook: str, table: str, fate: str) -> None:
    text = ruleset([[DROP]], family=family, hook=hook, table=table)
    assert of_tor(text) == fate


def test_over_ipv6_alone_it_counts_where_there_is_nothing_else() -> None:
    text = ruleset([[DROP]], family="ip6")
    (link,) = FACTS.links
    only6 = replace(
        FACTS, links=(link._replace(addresses=tuple(a for a in link.addresses if a.version == 6)),)
    )
    system = ScriptedSystem({JSON: text, "nft --handle list chain": ""})
    said = limits.limits(system, parse("", "x"), only6)
    assert any(words.startswith("what tor sends is stopped") for words in said)


def test_answers_of_relays() -> None:
    lets_new_in = ruleset([[match("ct state", "new", "in"), ACCEPT]], hook="input", policy="drop")
    assert any("relays answer" in words for words in found(lets_new_in))
    usual = [
        [match("ct state", ["established", "related"], "in"), ACCEPT],
        [match("meta iifname", "lo"), ACCEPT],
    ]
    assert found(ruleset(usual, hook="input", policy="drop")) == ()


def redirected(text: str, config: str = "") -> list[str]:
    return [words for words in found(text, config) if "programs send" in words]


def test_what_programs_send_is_still_on_its_way_to_the_uplink_in_output() -> None:
    tor_may_leave = [match("meta skuid", TOR), ACCEPT]
    loopback = [match("meta oifname", "lo"), ACCEPT]
    text = ruleset([tor_may_leave, loopback], policy="drop")
    assert any("TCP port 940" in words for words in redirected(text))
    port = match("tcp dport", 940)
    there = match("ip daddr", {"prefix": {"addr": "127.0.0.0", "len": 8}})
    there6 = match("ip6 daddr", "::1")
    text = ruleset(
        [tor_may_leave, loopback, [there, port, ACCEPT], [there6, port, ACCEPT]], policy="drop"
    )
    assert found(text) == ()
    # before our translation it is none of loopback's packets yet
    assert redirected(ruleset([[DROP]], priority=-300)) == []
    assert redirected(ruleset([tor_may_leave], policy="drop"), '[[user]]\nname = "bob"') != []
    assert redirected(ruleset([tor_may_leave], policy="drop"), LAN) == []


def test_loopback_that_is_not_let_in() -> None:
    states = [match("ct state", ["established", "related"], "in"), ACCEPT]
    assert redirected(ruleset([states], hook="input", policy="drop")) != []


def test_clients_of_a_lan() -> None:
    usual = [
        [match("ct state", ["established", "related"], "in"), ACCEPT],
        [match("meta iifname", "lo"), ACCEPT],
    ]
    text = ruleset(usual, hook="input", policy="drop")
    assert found(text) == ()
    (first, *_) = found(text, LAN)
    assert "clients behind eth0" in first
    assert "169.254.94.8" in first
    # as firewalld does it
    translated = [match("ct status", "dnat", "in"), ACCEPT]
    assert found(ruleset([*usual, translated], hook="input", policy="drop"), LAN) == ()


UFW = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT {policy} [0:0]
:ufw-before-input - [0:0]
:ufw-before-output - [0:0]
:ufw-after-output - [0:0]
:ufw-reject-output - [0:0]
:ufw-user-output - [0:0]
-A INPUT -j ufw-before-input
-A OUTPUT -j ufw-before-output
-A OUTPUT -j ufw-after-output
-A OUTPUT -j ufw-reject-output
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-output -o lo -j ACCEPT
-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-output -j ufw-user-output
-A ufw-after-output -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[a {{ b] "
{user}
COMMIT
"""
EXTENDED = json.dumps(
    {
        "nftables": [
            {"chain": {"family": "ip", "table": "filter", "name": "OUTPUT", "hook": "output"}},
            {
                "rule": {
                    "family": "ip",
                    "table": "filter",
                    "chain": "OUTPUT",
                    "handle": 4,
                    "expr": [{"xt": {"type": "match", "name": "owner"}}, DROP],
                }
            },
        ]
    }
)


def ufw(monkeypatch: pytest.MonkeyPatch, user: str = "", policy: str = "DROP") -> str:
    monkeypatch.setattr(limits, "find_tool", lambda name: name if "nft" in name else None)
    text = UFW.format(user=user, policy=policy)
    said = found(EXTENDED, **{"iptables-nft-save": text})
    (words,) = [w for w in said if w.startswith("what tor sends")] or [""]
    return words


def test_ufw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ufw(monkeypatch, policy="ACCEPT") == ""
    words = ufw(monkeypatch)
    assert "is stopped" in words
    assert "table ip filter, chain OUTPUT (iptables-nft), its policy: drop" in words
    assert "onionward-tor (947)" in words
    some = "-A ufw-user-output -p tcp -m multiport --dports 80,443,9000:9100 -j ACCEPT"
    assert "may be stopped" in ufw(monkeypatch, some)
    owner = "-A ufw-user-output -m owner --uid-owner {} -p tcp -j ACCEPT"
    assert ufw(monkeypatch, owner.format(947)) == ""
    assert "is stopped" in ufw(monkeypatch, owner.format(1000))
    assert ufw(monkeypatch, owner.format("900-999")) == ""
    assert "is stopped" in ufw(monkeypatch, "-A ufw-user-output -p udp -j ACCEPT")
    assert ufw(monkeypatch, "-A ufw-user-output ! -o lo -j ACCEPT") == ""
    assert ufw(monkeypatch, "-A ufw-user-output -o eth+ -p tcp --syn -j ACCEPT") == ""
    reject = "-A ufw-reject-output -p tcp -j REJECT --reject-with tcp-reset"
    assert f"its rule: {reject}" in ufw(monkeypatch, reject)
    assert "may be" in ufw(monkeypatch, "-A ufw-user-output -m string --hex x -j ACCEPT")
    assert "may be" in ufw(monkeypatch, "-A ufw-user-output -m set --match-set a dst -j ACCEPT")


def test_legacy_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = tmp_path / "ip_tables_names"
    monkeypatch.setattr(limits, "_LEGACY", {"ip": names, "ip6": tmp_path / "none"})
    monkeypatch.setattr(limits, "find_tool", lambda name: name)
    empty = json.dumps({"nftables": []})
    names.write_text("")
    assert found(empty) == ()
    names.write_text("filter\n")
    text = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT ! -o lo -j DROP\nCOMMIT\n"
    said = found(empty, **{"iptables-legacy-save": text})
    assert "chain OUTPUT (iptables-legacy), its rule: -A OUTPUT ! -o lo -j DROP" in said[0]


def test_a_rule_is_named_by_its_text() -> None:
    listed = (
        "table inet theirs {\n\tchain base { # handle 1\n\t\ttype filter hook output priority 0;\n"
        "\t\tmeta l4proto tcp counter packets 7 bytes 9 drop # handle 10\n\t}\n}\n"
    )
    text = ruleset([[match("meta l4proto", "tcp"), COUNTER, DROP]])
    said = found(text, **{"nft --handle list chain inet theirs base": listed})
    assert "table inet theirs, chain base, its rule: meta l4proto tcp counter drop;" in said[0]


@pytest.mark.parametrize(
    "answer",
    [CommandError(["nft"], 1, "no"), "not JSON", '{"nftables": [{"rule": {"family": "ip"}}]}'],
)
def test_what_cannot_be_read_is_said(answer: Any) -> None:
    (words,) = found(answer)
    assert "cannot be read" in words


def test_an_nft_that_crashes_is_asked_again() -> None:
    text = ruleset([[match("meta l4proto", "tcp"), COUNTER, DROP]])
    crashes = [CommandError(["nft"], -11, "")] * 2

    def answer(_: str) -> str:
        if crashes:
            raise crashes.pop()
        return text

    assert found(answer) == found(text)


def test_one_that_always_crashes_is_said() -> None:
    (words,) = found(CommandError(["nft"], -11, ""))
    assert "status -11" in words


def test_without_root_nothing_is_read() -> None:
    facts = replace(FACTS, effective_uid=1000)
    assert limits.limits(ScriptedSystem(), parse("", "x"), facts) == ()


TRACE = """\
trace id a1 inet onionward_trace first_out packet: oif "eth0" ip saddr 198.18.9.1 tcp dport 80
trace id a1 inet onionward_trace first_out rule meta skuid 947 meta nftrace set 1 (verdict continue)
trace id a1 inet onionward_trace first_out policy accept
trace id a1 inet onionward output policy accept
{}
"""
ARRIVED = "trace id a1 inet onionward_trace last_out policy accept"


@pytest.mark.parametrize(
    ("lines", "stop"),
    [
        ("trace id a1 ip filter OUTPUT policy drop ", ("ip filter OUTPUT", "")),
        (
            "trace id a1 inet bad sub rule tcp dport 80 counter packets 3 bytes 9 drop "
            "(verdict drop)",
            ("inet bad sub", "tcp dport 80 counter drop"),
        ),
        ("trace id a1 inet onionward output rule counter drop (verdict drop)", None),
        (ARRIVED, None),
        (f"{ARRIVED}\ntrace id b2 inet onionward_trace first_in policy accept", None),
        ("", ("", "")),
    ],
)  # fmt: skip
def test_what_the_kernel_says(lines: str, stop: tuple[str, str] | None) -> None:
    found_stops = trace.stops(TRACE.format(lines).splitlines())
    assert found_stops == (() if stop is None else (trace.Stop(*stop),))


def test_the_trace_is_taken_away_whatever_happens() -> None:
    system = ScriptedSystem(
        {"nft --file -": "", "timeout": CommandError(["nft", "monitor"], 1, "no")}
    )
    with pytest.raises(CommandError):
        trace.stopped(system, 947)
    assert [e for e in system.effects if "trace" in e] == [
        "nft --file -  # trace",
        "nft --file -  # end of trace",
    ]
    assert trace.words(()) == ""
    assert "iptables-legacy" in trace.words((trace.Stop("", ""),))


DNAT = verdict("dnat")


@pytest.mark.parametrize(
    ("rules", "priority", "said"),
    [
        ([[match("tcp dport", 80), DNAT]], -150, "is given"),
        ([[verdict("redirect")]], -110, "may be given"),
        ([[verdict("redirect")]], -100, ""),  # ours has done it by then
        ([[match("meta oifname", "lo"), DNAT]], -150, ""),
        ([[match("meta l4proto", "udp"), ACCEPT], [match("meta l4proto", "sctp"), DNAT]], -150, ""),
        ([[ACCEPT], [DNAT]], -150, ""),
        ([[verdict("jump", "more")]], -150, "is given"),
    ],
)
def test_who_translates_before_ours(rules: list[Expression], priority: int, said: str) -> None:
    text = ruleset(rules, priority=priority, more=[[DNAT]])
    words = [one for one in found(text) if "another destination" in one]
    assert bool(words) == bool(said)
    assert not said or f"what programs send {said} another destination" in words[0]
    assert not said or "table inet theirs, chain " in words[0]


def test_who_translates_before_iptables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = tmp_path / "ip_tables_names"
    names.write_text("nat\n")
    monkeypatch.setattr(limits, "_LEGACY", {"ip": names, "ip6": tmp_path / "none"})
    monkeypatch.setattr(limits, "find_tool", lambda name: name)
    docker = "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n"
    rule = "-A OUTPUT -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.9"
    text = f"*nat\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n{docker}{rule}\nCOMMIT\n"
    empty = json.dumps({"nftables": []})
    for backend, others in (("iptables-nft", True), ("iptables-legacy", False)):
        config = f'[firewall]\nbackend = "{backend}"\n'
        said = found(empty, config, **{"iptables-legacy-save": text})
        # in the same chain ours are the first
        assert [rule in one for one in said] == ([True] if others else [])


def test_our_own_iptables_rules_are_nobody_elses() -> None:
    text = (
        "*filter\n:OUTPUT ACCEPT [0:0]\n:onionward-output - [0:0]\n-A OUTPUT -j onionward-output\n"
        "-A onionward-output -j DROP\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n"
    )
    read = iptables_save.chains(text, "iptables-save", "ip")
    assert [rule.name for chain in read for rule in chain.rules] == ["-A OUTPUT -p tcp -j DROP"]
