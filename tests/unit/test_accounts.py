"""Accounts: their ids out of /etc/subuid, the names useradd takes, and what accept lists accept."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward import accounts
from onionward.accounts import Uids, User, WayAround, merged, parse_subordinate
from onionward.errors import CommandError, StepError
from onionward.facts import Account
from tests.support import ScriptedSystem

BOB = Account("bob", 61002, 61002, Path("/home/bob"))


# the answers of getsubids(1), shadow 4.13, to the same lines
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bob:100000:65536", (Uids(100000, 165535),)),
        ("61002:200000:5", (Uids(200000, 200004),)),
        ("bob:0x10000:0x10", (Uids(65536, 65551),)),
        ("bob:010000:010", (Uids(4096, 4103),)),
        ("bob: 200000:5", (Uids(200000, 200004),)),
        ("bob:+200000:5", (Uids(200000, 200004),)),
        ("bob:200000:5:9", (Uids(200000, 200004),)),
        (" bob:200000:5", ()),
        ("bob:200000:5 ", ()),
        ("bob:200000:5\r", ()),
        ("bob:300000:", ()),
        ("#bob:200000:5", ()),
        ("bob:089:5", ()),
        ("bob:200000", ()),
        ("alice:200000:5", ()),
        ("", ()),
        # ids that the kernel does not have
        ("bob:200000:0", ()),
        ("bob:-5:3", ()),
        ("bob:99999999999:3", ()),
        ("bob:4294967290:100", (Uids(4294967290, 4294967294),)),
        ("bob:200000:4294967296", (Uids(200000, 4294967294),)),
    ],
)
def test_a_line_of_subuid(line: str, expected: tuple[Uids, ...]) -> None:
    assert parse_subordinate(line + "\n", "bob", 61002) == expected


def test_several_lines_become_few_ranges() -> None:
    text = "bob:300000:10\nalice:1:1\n61002:100000:5\nbob:100005:5\nnonsense\nbob:100002:2\n"
    assert parse_subordinate(text, "bob", 61002) == (Uids(100000, 100009), Uids(300000, 300009))


ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda r: Uids(r[0], r[0] + r[1]))
)


@given(ranges)
def test_merged_ranges_hold_the_same_ids_and_touch_nowhere(some: list[Uids]) -> None:
    result = merged(some)
    for uid in range(90):
        assert any(uid in one for one in some) == any(uid in one for one in result)
    assert all(a.last + 1 < b.first for a, b in pairwise(result))


def test_all_ids_of_a_user() -> None:
    user = User(BOB, frozenset({61002}), (Uids(61003, 61004), Uids(100000, 100009)))
    assert user.uids == (Uids(61002, 61004), Uids(100000, 100009))
    assert user.owns(61002)
    assert user.owns(100009)
    assert not user.owns(61001)
    assert [str(uids) for uids in user.uids] == ["61002-61004", "100000-100009"]
    assert str(Uids(7, 7)) == "7"


def test_accounts_within_the_subordinate_ids_of_another() -> None:
    alice = Account("alice", 100003, 100003, Path("/home/alice"))
    user = User(BOB, frozenset(), (Uids(100000, 165535),))
    assert accounts.shared(user, [BOB, alice, Account("carol", 61003, 1, Path("/"))]) == (alice,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("passwd: files\n", ""),
        ("subid: files\n", ""),
        ("subid:\n", ""),
        ("subid: sss files\n", "sss"),
        ("subid: files sss\n", ""),
        (" subid :  sss # and why\n", "sss"),
        ("# subid: sss\n", ""),
    ],
)
def test_where_subordinate_ids_come_from(text: str, expected: str) -> None:
    assert accounts.foreign_source(text) == expected


def test_ids_of_unknown_number_are_a_way_around(tmp_path: Path) -> None:
    user = User(BOB, frozenset())
    file = tmp_path / "nsswitch.conf"
    assert accounts.uncounted(user, nsswitch=file) == ()
    file.write_text("subid: sss\n")
    (way,) = accounts.uncounted(user, nsswitch=file)
    assert way.name == "subordinate"
    assert "bob from sss" in way.reason


def test_the_account_of_this_machine(tmp_path: Path) -> None:
    subuid = tmp_path / "subuid"
    subuid.write_text("root:5000000:10\n0:6000000:10\n")
    root = accounts.find_user("root", subuid=subuid)
    assert root is not None
    assert (root.account.uid, root.account.gid) == (0, 0)
    assert 0 in root.groups
    assert root.subordinate == (Uids(5000000, 5000009), Uids(6000000, 6000009))
    assert accounts.find_user("no-such-account", subuid=subuid) is None
    missing = accounts.find_user("root", subuid=tmp_path / "none")
    assert missing is not None
    assert missing.subordinate == ()


@pytest.mark.parametrize("name", ["bob", "_x", "a-b_c.d9", "machine$", "a" * 32])
def test_names_that_useradd_takes(name: str) -> None:
    assert accounts.name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is not an account name"),
        ("Bob", "is not an account name"),
        ("-bob", "is not an account name"),
        ("9bob", "is not an account name"),
        ("bo b", "is not an account name"),
        ("bob:x", "is not an account name"),
        ("bob\n", "is not an account name"),
        ("b$b", "is not an account name"),
        ("a" * 33, "longer than the 32"),
    ],
)
def test_names_that_it_does_not_take(name: str, words: str) -> None:
    assert words in accounts.name_problem(name)


def test_an_account_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = User(BOB, frozenset({61002}))
    answers = iter([None, made])
    monkeypatch.setattr(accounts, "find_user", lambda _name: next(answers))
    system = ScriptedSystem({"useradd": ""})
    assert accounts.create(system, "bob") == made
    (asked,) = system.asked
    assert asked.endswith(" bob")
    assert "--create-home" in asked
    monkeypatch.setattr(accounts, "find_user", lambda _name: made)
    idle = ScriptedSystem()
    assert accounts.create(idle, "bob") == made
    assert idle.effects == []


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("Bob", "", "'Bob' is not an account name"),
        (
            "bob",
            CommandError(["useradd"], 1, "useradd: cannot lock /etc/passwd; try again later.\n"),
            "bob was not created: cannot lock /etc/passwd; try again later.",
        ),
        ("bob", CommandError(["useradd"], 1, ""), "useradd ended with status 1"),
        ("bob", "", "useradd made no account bob"),
    ],
)
def test_an_account_that_cannot_be_created(
    monkeypatch: pytest.MonkeyPatch, name: str, answer: str | CommandError, words: str
) -> None:
    monkeypatch.setattr(accounts, "find_user", lambda _name: None)
    with pytest.raises(StepError) as caught:
        accounts.create(ScriptedSystem({"useradd": answer}), name)
    assert words in caught.value.message
    assert caught.value.hint


def test_what_is_accepted() -> None:
    ping = WayAround("setuid", "x", Path("/usr/bin/ping"))
    assert ping.narrowest == "setuid:/usr/bin/ping"
    assert WayAround("nscd", "x").narrowest == "nscd"
    assert ping.is_accepted(["setuid"])
    assert ping.is_accepted(["nscd", "setuid:/usr/bin/ping"])
    assert not ping.is_accepted(["setuid:/usr/bin/other", "nscd", "ping"])
    assert not ping.is_accepted([])
    assert not WayAround("nscd", "x").is_accepted(["setuid"])
