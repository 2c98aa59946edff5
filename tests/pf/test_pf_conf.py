"""The machine's own pf.conf: read, hooked, and as it was afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.bsd.pf_conf import hooked, problems, statements, unhooked
from onionward.render.pf import DIALECTS, Dialect
from tests.pf.conftest import PF_CONF
from tests.support import policy
from tests.unit.scopes import LAN, USERS, gateway

BLOCK = Path("/etc/onionward/pf.block")
SEED = """\
# your internal interface
int_if = "fxp0"
trans_port = "9040"
set skip on lo
scrub in
rdr pass on $int_if inet proto tcp to !($int_if) -> 127.0.0.1 port $trans_port
rdr pass on $int_if inet proto udp to port domain -> 127.0.0.1 port domain
"""
LONG = """\
table <non_tor> const { 192.168.0.0/24, \\
	192.168.1.0/24 }
ports = "{ 22, 25, # not a comment
 80 }"
set skip on { lo0 \\
	wg0 }   # two
anchor "mine" in on em0 {
	pass in quick proto tcp to port 22
}
block return
pass out quick on em0 from <non_tor>
"""


def test_statements_have_their_lines_macros_and_depth() -> None:
    found = {s.text: s for s in statements(LONG, "pf.conf")}
    assert found["block return"].first == 10
    skip = next(s for s in found.values() if s.text.startswith("set skip"))
    assert (skip.first, skip.last) == (5, 6)
    inner = found["pass in quick proto tcp to port 22"]
    assert inner.depth == 1
    assert found['anchor "mine" in on em0'].depth == 0
    assert found["block return"].depth == 0
    rdr = statements(SEED, "pf.conf")[2]
    assert rdr.text.startswith("rdr pass on fxp0 ")
    assert "port 9040" in rdr.text
    assert rdr.place == "pf.conf:6"


def test_included_files_stand_where_they_are_included() -> None:
    texts = {"/etc/pf.more": "pass quick on em0\n", "loop": 'include "loop"\n'}
    listed = statements(
        'include "/etc/pf.more"\nblock\ninclude "loop"\n', "pf.conf", texts.__getitem__
    )
    assert [s.place for s in listed[:3]] == ["pf.conf:1", "/etc/pf.more:1", "pf.conf:2"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("text", [*PF_CONF.values(), SEED, LONG, ""])
def test_the_anchor_comes_first_and_goes_without_a_trace(text: str, dialect: Dialect) -> None:
    made = hooked(text, "pf.conf", policy(), dialect, BLOCK)
    listed = statements(made, "pf.conf")
    filters = [s for s in listed if s.is_filter]
    assert filters[0].is_hook
    translations = [s for s in listed if s.is_translation]
    old = dialect is not DIALECTS["openbsd"]
    if old:
        assert translations[0].is_hook
        # options, translation, filter rules: the order that pfctl requires
        assert translations[-1].first < filters[0].first
    assert ("rdr-anchor" in made) == old
    assert not any(
        "lo" in s.text.split() or "lo0" in s.text.split() for s in listed if "skip" in s.text
    )
    assert hooked(made, "pf.conf", policy(), dialect, BLOCK) == made
    assert unhooked(made) == (text if text.endswith("\n") or not text else f"{text}\n")


def test_what_else_is_skipped_stays_skipped() -> None:
    made = hooked(LONG, "pf.conf", policy(), DIALECTS["openbsd"], BLOCK)
    assert "set skip on { wg0 }\t# onionward\n" in made


def test_loopback_is_left_alone_where_nothing_is_turned_round() -> None:
    made = hooked(PF_CONF["openbsd"], "pf.conf", gateway(LAN), DIALECTS["openbsd"], BLOCK)
    assert "\nset skip on lo\n" in made
    for text in (USERS, "[host]\nroute = 'tor'\n"):
        made = hooked(PF_CONF["openbsd"], "pf.conf", gateway(text), DIALECTS["openbsd"], BLOCK)
        assert "\n#onionward# set skip on lo\n" in made
        # the machine's own rules are asked about loopback no more than before
        rules = [s.text for s in statements(made, "pf.conf") if s.is_filter]
        assert rules[:2] == ['anchor "onionward"', "pass quick on lo0 no state"]
    made = hooked("pass\n", "pf.conf", gateway(USERS), DIALECTS["openbsd"], BLOCK)
    assert "on lo0" not in made


def test_skipping_matters_for_who_is_judged() -> None:
    groups = {
        "eth0": frozenset({"egress", "all"}),
        "eth1": frozenset({"eth", "all"}),
        "lo0": frozenset({"lo"}),
    }
    openbsd = DIALECTS["openbsd"]

    def found(text: str, config: str) -> list[str]:
        return [*problems(statements(text, "pf.conf"), gateway(config), openbsd, groups)]

    assert found("set skip on egress\n", LAN) == []
    assert "eth1" in found("set skip on eth\n", LAN)[0]
    assert "eth0" in found("set skip on egress\n", USERS)[0]
    assert found("set skip on lo\n", USERS) == []
    assert "eth0, eth1" in found("set skip on all\n", "[host]\nroute = 'tor'\n")[0]


def test_an_include_that_has_both_sections_cannot_be_hooked(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.write_text("nat on em0 from any to any -> (em0)\npass all\n")
    listed = statements(f'include "{more}"\n', "pf.conf")
    words = [*problems(listed, policy(), DIALECTS["freebsd"], {})]
    assert words[0].startswith(f'pf.conf:1: include "{more}" has translation and filter rules')
    assert [*problems(listed, policy(), DIALECTS["openbsd"], {})] == []


def test_loopback_skipped_in_an_included_file_is_named(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.write_text("\nset skip on { lo0 }\n")
    listed = statements(f'include "{more}"\npass\n', "pf.conf")
    words = [*problems(listed, policy(), DIALECTS["openbsd"], {})]
    assert words[0].startswith(f"{more}:2: `set skip on {{ lo0 }}` is in an included file")
    assert [*problems(listed, gateway(LAN), DIALECTS["openbsd"], {})] == []


LINES = st.sampled_from(
    """
    set skip on lo0
    pass
    block in
    # a comment
    nat on em0 from any to any -> (em0)
    x = 1
    scrub in
    table <a> { 1.1.1.1 }
    antispoof for em0
    anchor "b"
    """.splitlines()
)


@given(st.lists(LINES, max_size=8), st.sampled_from([*DIALECTS.values()]))
def test_whatever_stands_there_returns(lines: list[str], dialect: Dialect) -> None:
    text = "".join(f"{line}\n" for line in lines)
    made = hooked(text, "pf.conf", policy(), dialect, BLOCK)
    assert unhooked(made) == text
    assert next(s for s in statements(made, "pf.conf") if s.is_filter).is_hook
