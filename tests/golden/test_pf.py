"""The pf texts of every scope and dialect are those that were reviewed, and the grammar reads them.

`pytest tests/golden --update-goldens` writes what is rendered now; review the difference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onionward.accounts import User
from onionward.bsd import boot
from onionward.bsd.kind import KINDS, PATHS
from onionward.bsd.limits import adapted, problems
from onionward.bsd.steps import describe, main_step, steps
from onionward.bsd.validation import platform_of
from onionward.config import parse
from onionward.facts import Account, Facts, Link
from onionward.policy import Flow, derive
from onionward.render import pf
from onionward.render.pf import DialectName
from onionward.render.torrc import torrc
from tests.golden.reviewed import compare
from tests.pf.grammar import parse as read
from tests.support import FACTS, addr, net

FOLDER = Path(__file__).parent / "pf"
DIALECTS: tuple[DialectName, ...] = ("openbsd", "openbsd-4.6", "freebsd")
CASES = ("host", "host-no-ipv6", "lan", "both", "users", "everything", "inbound-all", "kept")
_UPLINK = Link(
    "em0",
    (addr("192.0.2.2"), addr("2001:db8:18::2"), addr("fe80::5eff:fe00:1")),
    (net("192.0.2.0/24"), net("2001:db8:18::/64"), net("fe80::/64")),
    is_uplink=True,
)
_INNER = Link(
    "em1",
    (addr("192.168.7.1"), addr("2001:db8:7::1"), addr("fe80::5eff:fe00:2")),
    (net("192.168.7.0/24"), net("2001:db8:7::/64"), net("fe80::/64")),
)


def _account(name: str, uid: int) -> User:
    return User(Account(name, uid, uid, Path("/home") / name), frozenset({uid}), ())


def facts_of(name: str) -> Facts:
    return replace(
        FACTS,
        links=(_UPLINK, _INNER),
        users=(_account("alice", 1001), _account("bob", 1002), _account("carol", 1003)),
        ipv6="no-ipv6" not in name,
        tor_account=Account("_tor", 56, 56, Path("/var/empty")),
        dhcp_uids=(0, 77),
        ephemeral_ports=(10000, 65535),
        cgroup_mount=None,
        nft_version=None,
    )


def texts(name: str) -> dict[str, str]:
    """By file name."""
    folder = FOLDER / name
    config = adapted(parse((folder / "onionward.toml").read_text(), "onionward.toml"))
    assert problems(config) == ()
    facts = facts_of(name)
    policy = derive(config, facts, tor_uid=56, tor_cgroup=None)
    if name == "kept":
        flow = Flow(addr("192.0.2.77"), 50123, addr("192.0.2.2"), 22)
        policy = policy.keeping((flow,))
    found = {}
    for dialect in DIALECTS:
        kind = KINDS[dialect]
        found[f"{dialect}.route.conf"] = pf.route(policy, dialect).text
        found[f"{dialect}.block.conf"] = pf.block(policy, dialect).text
        found[f"{dialect}.torrc"] = torrc(policy, PATHS, account="_tor", platform=platform_of(kind))
        listed = (*steps(kind, policy, facts, PATHS), *boot.steps(kind, boot.EXAMPLE))
        found[f"{dialect}.system"] = describe(kind, listed, main_step(kind, policy))
    return found


@pytest.mark.parametrize("name", CASES)
def test_rendered_as_reviewed(name: str, request: pytest.FixtureRequest) -> None:
    rendered = texts(name)
    compare({FOLDER / name / file: text for file, text in rendered.items()}, request)
    there = {entry.name for entry in (FOLDER / name).iterdir()}
    assert there == {"onionward.toml", *rendered}


def test_every_folder_is_a_case() -> None:
    assert {entry.name for entry in FOLDER.iterdir()} == set(CASES)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CASES)
def test_the_grammar_of_the_dialect_reads_it(name: str, dialect: DialectName) -> None:
    for state in ("route", "block"):
        text = (FOLDER / name / f"{dialect}.{state}.conf").read_text()
        anchor = read(text, dialect)
        rules = (*anchor.translation, *anchor.filter)
        assert rules
        assert all("quick" in rule.text.split() for rule in anchor.filter)
        assert all(rule.family for rule in anchor.translation if rule.redirect)
        # a word of one dialect in another's text is a syntax error, or means something else
        assert ("divert-to" in text) == (dialect == "openbsd" and state == "route")
        assert "set skip" not in text
    blocked = (FOLDER / name / f"{dialect}.block.conf").read_text()
    assert not any(word in blocked for word in ("rdr-to", "rdr pass", "route-to"))
