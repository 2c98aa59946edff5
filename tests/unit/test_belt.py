"""The routing belt as values: who passes it, and what the kernel prints of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from onionward import belt
from tests.support import LocalSystem, flow, policy
from tests.unit.scopes import ALICE, GATEWAY

BYPASS = '[bypass]\nnetworks = ["198.51.100.0/24", "2001:db8:5::/48"]\n'
OWN = "pref 94 uidrange 947-947 goto 97"


class Kernel(LocalSystem):
    """Keeps rules and routes as `ip -batch` is told of them, and prints them as ip(8) does."""

    def __init__(self) -> None:
        super().__init__()
        self.rules: dict[str, list[str]] = {"-4": [], "-6": []}
        self.routes: dict[str, list[tuple[str, str]]] = {"-4": [], "-6": []}

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        del timeout, accept
        words = [word for word in argv if word != "-N"]
        if "sysctl" in words:
            return ""
        words = words[words.index("ip") + 1 :] if "ip" in words else words
        if "-batch" in words:
            for line in stdin.splitlines():
                self._do(words[0], line)
            return ""
        family, table = words[1], words[-3]
        if "rule" in words:
            return json.dumps([_shown(rule) for rule in self.rules[family]])
        return json.dumps([{"dst": d} for d, t in self.routes[family] if t == table])

    def _do(self, family: str, line: str) -> None:
        kind, verb, rest = line.split(" ", 2)
        if kind == "rule":
            rule = rest.removesuffix(" protocol 94")
            (self.rules[family].append if verb == "add" else self.rules[family].remove)(rule)
            return
        words = rest.split()
        place = (words[0] if words[0] == "default" else words[1], words[words.index("table") + 1])
        (self.routes[family].append if verb == "replace" else self.routes[family].remove)(place)


def _shown(rule: str) -> dict[str, object]:
    found: dict[str, object] = {"protocol": "94"}
    words = rule.split()
    if words[-1] == "nop":
        words.append("")
    for key, value in zip(words[::2], words[1::2], strict=True):
        low, _, high = value.partition("-")
        match key:
            case "pref":
                found["priority"] = int(value)
            case "uidrange":
                found |= {"uid_start": int(low), "uid_end": int(high)}
            case "ipproto":
                found["ipproto"] = {"tcp": "ipproto-6", "udp": "ipproto-17"}[value]
            case "dport":
                found |= {"dport_start": low, "dport_end": high} if high else {"dport": low}
            case "goto":
                found["goto"] = int(value)
            case "nop":
                found["nop"] = None
            case "lookup":
                found["table"] = value
    return found


@pytest.fixture
def proc_sys(tmp_path: Path) -> Path:
    (tmp_path / "net/ipv6").mkdir(parents=True)
    for name, value in (("all", "0"), ("default", "1"), ("eth0", "0")):
        place = tmp_path / "net/ipv4/conf" / name
        place.mkdir(parents=True)
        (place / "rp_filter").write_text(f"{value}\n")
    return tmp_path


def test_who_passes() -> None:
    found = belt.wanted(policy(BYPASS, kept=(flow("203.0.113.9", 4242, "192.0.2.2", 22),)))
    assert found is not None
    assert [rule for rule in found["rules"]["4"] if "goto" in rule] == [OWN]
    own = ["169.254.96.0/19"]  # of runs
    assert found["throws"]["4"] == ["198.51.100.0/24", "192.0.2.0/24", *own, "203.0.113.9"]
    assert "fe80::/10" in found["throws"]["6"]
    assert "2001:db8:5::/48" in found["throws"]["6"]


def test_accounts_that_leave_in_clear_pass() -> None:
    text = '[host]\n[[user]]\nname = "alice"\nroute = "direct"\n'
    found = belt.wanted(policy(text, facts=GATEWAY))
    assert found is not None
    assert f"pref 94 uidrange {ALICE}-{ALICE} goto 97" in found["rules"]["6"]
    assert OWN in found["rules"]["6"]


def test_names_never_go_to_neighbours() -> None:
    found = belt.wanted(policy(BYPASS))
    assert found is not None
    rules = found["rules"]["4"]
    assert "pref 95 ipproto udp dport 53 lookup 9409" in rules
    assert "pref 95 ipproto tcp dport 853 lookup 9409" in rules
    assert "pref 95 ipproto udp dport 137-138 lookup 9409" in rules


@pytest.mark.parametrize("text", ['[[user]]\nname = "alice"\n', '[host]\ninbound = "all"\n'])
def test_where_there_is_none(text: str) -> None:
    assert belt.wanted(policy(text)) is None


def test_put_on_changed_and_taken_off() -> None:
    kernel = Kernel()
    first, other = belt.wanted(policy(BYPASS)), belt.wanted(policy())
    assert first is not None
    assert other is not None
    saved = belt.Saved(rp_filter="")
    belt.apply(kernel, first, saved)
    assert belt.problems(kernel, first) == []
    assert ("198.51.100.0/24", "9410") in kernel.routes["-4"]
    belt.apply(kernel, other, saved)
    belt.apply(kernel, other, saved)
    assert belt.problems(kernel, other) == []
    assert ("198.51.100.0/24", "9410") not in kernel.routes["-4"]
    kernel.rules["-6"].pop()
    assert len(belt.problems(kernel, other)) == 1
    belt.restore(kernel, saved)
    belt.restore(kernel, saved)
    assert kernel.rules == {"-4": [], "-6": []}
    assert kernel.routes == {"-4": [], "-6": []}


def test_the_setting_that_it_cannot_live_with(proc_sys: Path) -> None:
    found = belt.survey(proc_sys=proc_sys)
    assert found == {"rp_filter": "0"}  # what a new interface would get is strict
    (proc_sys / "net/ipv4/conf/default/rp_filter").write_text("2\n")
    assert belt.survey(proc_sys=proc_sys) == {"rp_filter": ""}
    assert belt.survey(found, proc_sys=proc_sys) == found


def test_a_setting_that_others_have_changed_stays(proc_sys: Path) -> None:
    kernel = Kernel()
    (proc_sys / "net/ipv4/conf/all/rp_filter").write_text("1\n")
    belt.restore(kernel, belt.Saved(rp_filter="0"), proc_sys=proc_sys)
    assert not [words for words in kernel.effects if "sysctl" in words]
    (proc_sys / "net/ipv4/conf/all/rp_filter").write_text("2\n")
    belt.restore(kernel, belt.Saved(rp_filter="0"), proc_sys=proc_sys)
    assert "sysctl -q -w net/ipv4/conf/all/rp_filter=0" in kernel.effects
