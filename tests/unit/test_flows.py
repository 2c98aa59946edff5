"""Connections as ss(8) prints them, and which of them are cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onionward import flows
from onionward.accounts import User
from onionward.errors import CommandError, StepError
from onionward.facts import Account
from onionward.flows import Reach, Spared, parse_flows, parse_ports, parse_sockets
from tests.support import FACTS, ScriptedSystem, addr, flow, net, policy

# as ss of iproute2 6.1 prints them
LISTENING = """\
LISTEN 0      128      0.0.0.0%veth0:24    0.0.0.0:*
LISTEN 0      4096     127.0.0.53%lo:53    0.0.0.0:*
LISTEN 1      128    [fe80::9]%veth0:22       [::]:*
LISTEN 1      128                  *:23          *:*
LISTEN 0      511               [::]:80       [::]:*

LISTEN 0      128            0.0.0.0:8443  0.0.0.0:*
"""
ESTABLISHED = """\
0      0               192.0.2.2:22        198.51.100.7:57640
0      0         [fe80::9]%veth0:22           [fe80::a]:55972
0      0      [::ffff:192.0.2.2]:23  [::ffff:192.0.2.9]:57641
0      36          [2001:db8::2]:80       [2001:db8::7]:40000

"""


def test_listening_ports() -> None:
    assert parse_ports(LISTENING) == {24, 53, 22, 23, 80, 8443}
    assert parse_ports("") == frozenset()


def test_established_flows() -> None:
    assert parse_flows(ESTABLISHED) == (
        flow("198.51.100.7", 57640, "192.0.2.2", 22),
        flow("fe80::a", 55972, "fe80::9", 22),
        flow("192.0.2.9", 57641, "192.0.2.2", 23),
        flow("2001:db8::7", 40000, "2001:db8::2", 80),
    )
    assert parse_flows("") == ()


def test_what_is_open_inbound_is_what_something_listens_for() -> None:
    system = ScriptedSystem(
        {
            "ss -Hltn": "LISTEN 0 128 0.0.0.0:22 0.0.0.0:*",
            "ss -Htn state established": "0 0 192.0.2.2:22 192.0.2.9:5\n0 0 192.0.2.2:6 1.2.3.4:22",
        }
    )
    assert flows.open_inbound(system) == (flow("192.0.2.9", 5, "192.0.2.2", 22),)


def test_only_admitted_flows_from_outside_survive() -> None:
    admitted = flow("192.0.2.9", 5, "192.0.2.2", 22)
    candidates = [
        admitted,
        flow("127.0.0.1", 5, "127.0.0.1", 22),
        flow("::1", 5, "::1", 22),
        flow("192.0.2.2", 5, "192.0.2.2", 22),
        flow("198.51.100.7", 5, "192.0.2.2", 22),
    ]
    own = [addr("192.0.2.2")]
    assert flows.surviving(policy(), candidates, own) == (admitted,)
    everybody = policy('[host]\ninbound = "all"')
    assert flows.surviving(everybody, candidates, own) == (admitted, candidates[-1])
    nobody = policy('[host]\ninbound = "none"')
    assert flows.surviving(nobody, candidates, own) == ()


CONNECTED = """\
ESTAB     0 0          192.0.2.2:40000    198.51.100.7:443
ESTAB     0 0          127.0.0.1:40001       127.0.0.1:80
SYN-SENT  0 1      [2001:db8::2]:40002  [2001:db8::2]:80
TIME-WAIT 0 0          192.0.2.2:40003        10.9.8.7:80
ESTAB     0 0 [::ffff:192.0.2.2]:40004 [::ffff:10.0.0.1]:80
ESTAB     0 0          192.0.2.2:22          192.0.2.9:5
ESTAB     0 0          192.0.2.2:22          192.0.2.9:6
ESTAB     0 0    [fe80::9]%veth0:23           [fe80::a]:6
ESTAB     0 0      [2001:db8::2]:40005  [2001:db8:5::1]:80
"""
SPARED = Spared(
    own=(addr("192.0.2.2"), addr("2001:db8::2")),
    bypass=(net("10.0.0.0/8"), net("2001:db8:5::/48")),
    flows=(flow("192.0.2.9", 5, "192.0.2.2", 22), flow("fe80::a", 6, "fe80::9", 23)),
)


def test_what_is_spared() -> None:
    sockets = parse_sockets(CONNECTED)
    assert len(sockets) == 9
    assert [s.flow.local_port for s in SPARED.others(sockets)] == [40000, 22]
    everything = Spared((), (), ()).others(sockets)
    assert [s.flow.local_port for s in sockets if s not in everything] == [40001]
    assert parse_sockets("\n") == ()


def test_cutting_names_each_socket_that_ss_is_to_kill() -> None:
    system = ScriptedSystem({"ss -K": "", "ss -Htn state connected": CONNECTED})
    flows.cut_sockets(system, SPARED)
    assert system.asked[1:] == [
        "ss -K -Htn state connected ( ( src 192.0.2.2:40000 and dst 198.51.100.7:443 ) or "
        "( src 192.0.2.2:22 and dst 192.0.2.9:6 ) )"
    ]
    assert len(system.effects) == 1


def test_no_argument_grows_with_what_is_spared_or_cut() -> None:
    many = tuple(net(f"10.{n // 256}.{n % 256}.0/25") for n in range(10_000))
    lines = (f"ESTAB 0 0 192.0.2.2:{n} 198.51.100.7:443" for n in range(1, 1001))
    system = ScriptedSystem({"ss -K": "", "ss -Htn state connected": "\n".join(lines)})
    flows.cut_sockets(system, SPARED._replace(bypass=many))
    # MAX_ARG_STRLEN, execve(2)
    assert max(map(len, system.asked)) < 131_072 / 2
    assert sum(words.count(" and ") for words in system.asked) == 1000


# no connection has been opened from outside
NOBODY_INSIDE: dict[str, str | CommandError | Callable[[str], str]] = {
    "ss -Hltn": "",
    "ss -Htn state established": "",
}


def test_sockets_that_cannot_be_cut_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_PATIENCE", 0.0)
    left = "ESTAB 0 0 192.0.2.2:4 198.51.100.7:80"
    gone = "TIME-WAIT 0 0 192.0.2.2:5 198.51.100.7:80\n"
    system = ScriptedSystem(
        {
            **NOBODY_INSIDE,
            "ss -K": "",
            "ss -Htn state connected": f"{left}\n{gone}",
            "ss -Htnp state connected": f'{left} users:(("wget",pid=7,fd=3))\n{gone}',
        }
    )
    with pytest.raises(StepError, match=r"1 connections .*wget.*"):
        flows.cut_redirected(system, Reach.from_json({}), ())


def test_what_begins_after_tor_was_stopped_is_nobodys_tail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows, "_PATIENCE", 0.0)
    shown = iter(["ESTAB 0 0 192.0.2.2:4 198.51.100.7:80", "ESTAB 0 0 192.0.2.2:5 198.51.100.7:80"])
    system = ScriptedSystem(
        {
            **NOBODY_INSIDE,
            "ss -K": "",
            "ss -Htn state connected": lambda _stdin: next(shown),
        }
    )
    flows.cut_redirected(system, Reach.from_json({}), ())
    assert next(shown, None) is None


def test_cutting_waits_until_nothing_sends_any_more() -> None:
    states = iter(["ESTAB", "FIN-WAIT-1", "LAST-ACK", "LAST-ACK", "TIME-WAIT"])
    shown = "{} 0 0 192.0.2.2:4 198.51.100.7:80"
    system = ScriptedSystem(
        {
            **NOBODY_INSIDE,
            "ss -K": "",
            "ss -Htn state connected": lambda _stdin: shown.format(next(states)),
            "ss -Htnp state connected": lambda _stdin: shown.format(next(states)),
        }
    )
    flows.cut_redirected(system, Reach.from_json({}), ())
    assert next(states, None) is None
    assert any(re.search(r"-K -Hun .*dport = :53", words) for words in system.asked)


def test_forgetting_nothing_is_no_failure() -> None:
    nothing = CommandError(["conntrack"], 2, "conntrack v1.4.7: 0 flow entries have been deleted.")
    system = ScriptedSystem({"conntrack -D": nothing})
    flows.forget_redirected(system)
    assert [words.split()[3] for words in system.asked] == ["ipv4", "ipv6"] * 2
    broken = ScriptedSystem({"conntrack -D": CommandError(["conntrack"], 2, "not permitted")})
    with pytest.raises(CommandError):
        flows.forget_resolver_flows(broken)


EVERYTHING = """
onion = true
[[lan]]
interface = "eth0"
[[user]]
name = "alice"
"""
ALICE = User(Account("alice", 1001, 1001, Path("/home/alice")), frozenset({1001}))


def reach(text: str) -> Reach:
    return Reach.of(policy(text, replace(FACTS, users=(ALICE,))))


def test_reach_is_remembered() -> None:
    everything = reach(EVERYTHING)
    assert everything.uids == ((1001, 1001),)
    assert everything.lans == ("eth0",)
    assert not everything.host
    assert Reach.from_json(everything.to_json()) == everything
    assert Reach.from_json(reach("").to_json()).host


@pytest.mark.parametrize(
    ("new", "old", "lacks"),
    [
        ("", "", False),
        ("", "onion = true", False),
        ("onion = true", "", True),
        (EVERYTHING, "onion = true", True),  # the virtual network has moved
        (EVERYTHING, EVERYTHING, False),
        ("[[lan]]\ninterface = 'eth0'", EVERYTHING, True),
        ("[host]\n[[lan]]\ninterface = 'eth0'", "[[user]]\nname = 'alice'", False),
        ("", "[[lan]]\ninterface = 'eth0'", True),
    ],
)
def test_what_a_new_policy_gives_up(new: str, old: str, lacks: bool) -> None:
    assert reach(new).lacks(reach(old)) is lacks


def test_connections_of_an_account_are_cut_one_by_one() -> None:
    sockets = (
        "tcp ESTAB 0 0 192.0.2.2:40000 198.51.100.7:443 uid:1001 ino:5 sk:1\n"
        "udp ESTAB 0 0 [2001:db8::2]:40001 [2001:db8::7]:443 uid:1001 ino:6 sk:2\n"
        "tcp ESTAB 0 0 192.0.2.2:40002 198.51.100.7:443 uid:1002 ino:7 sk:3\n"
    )
    system = ScriptedSystem({"ss -Htuane": sockets, "ss -K": ""})
    flows.cut_from_before(
        system, policy("[[user]]\nname = 'alice'", replace(FACTS, users=(ALICE,))), ()
    )
    killed = [words for words in system.asked if "-K" in words]
    assert len(killed) == 2
    assert "-Htn" in killed[0]
    assert "src 192.0.2.2:40000 and dst 198.51.100.7:443" in killed[0]
    assert "40002" not in killed[0]
    assert "-Hun" in killed[1]
    assert "src [2001:db8::2]:40001 and dst [2001:db8::7]:443" in killed[1]


def test_what_a_machine_that_is_not_routed_keeps() -> None:
    listening = "LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\nLISTEN 0 128 0.0.0.0:80 0.0.0.0:*"
    established = (
        "0 0 192.0.2.2:22 192.0.2.9:5\n"  # a service that clients may reach
        "0 0 192.0.2.2:80 192.0.2.9:6\n"  # one that they may not
        "0 0 192.0.2.2:40000 192.0.2.9:7\n"  # opened by this machine
        "0 0 198.51.100.1:40001 203.0.113.9:443\n"  # nobody's business
    )
    system = ScriptedSystem({"ss -Hltn": listening, "ss -Htn state established": established})
    kept = flows.kept(system, policy("[[lan]]\ninterface = 'eth0'"), ())
    assert {flow.peer_port for flow in kept} == {5, 7}
    assert flows.kept(ScriptedSystem(), policy("onion = true"), ()) == ()


def test_flows_that_end_meanwhile_do_not_keep_the_others() -> None:
    gone = CommandError(["conntrack"], 1, "Operation failed: such conntrack doesn't exist")
    endings = [gone, gone, None]

    def delete(_stdin: str) -> str:
        ending = endings.pop(0) if endings else None
        if ending is not None:
            raise ending
        return ""

    system = ScriptedSystem({"conntrack -D": delete})
    flows.forget_redirected(system)
    assert endings == []
    # two more than the four that there are without
    assert len(system.asked) == 6
    with pytest.raises(CommandError):
        flows.forget_redirected(ScriptedSystem({"conntrack -D": gone}))
