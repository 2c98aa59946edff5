"""Tables of ours in files of others: found and taken out, everything else as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward import saved_rulesets
from onionward.saved_rulesets import holding_ours, problems, take_out, without_ours
from onionward.system import temporary_name
from tests.support import LocalSystem

OURS = (
    'table inet onionward {\n\tcomment "onionward: routed"\n\tset bypass4 {\n\t\ttype ipv4_addr\n'
    "\t\tflags interval\n\t}\n\n\tchain output {\n\t\ttype filter hook output priority filter; "
    'policy drop;\n\t\tcounter drop comment "a } and a { in words"\n\t}\n}\n',
    "table netdev onionward_l2 {\n\tchain egress {\n\t\ttype filter hook egress devices = "
    "{ eth0 } priority filter; policy drop;\n\t}\n}\n",
    "table inet onionward_boot {\n}\n",
    "table inet onionward_trace { }\n",
)
THEIRS = (
    "#!/usr/sbin/nft -f\n\nflush ruleset\n\n",
    "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy "
    'drop;\n\t\tct state established accept\n\t\tcomment "table inet onionward {"\n\t}\n}\n',
    "table ip onionward {\n\tchain x {\n\t}\n}\n",
    "table inet onionward_of_mine {\n}\n",
    "# table inet onionward {\n",
    "table inet wrapper {\n\tchain onionward {\n\t}\n}\n",
    'define x = { 1, 2 }\ninclude "/etc/nftables.d/*.nft"\n',
    "table ip nat {\r\n\tchain postrouting {\r\n\t\tmasquerade\r\n\t}\r\n}\r\n",
    "\n\n",
    "add table inet mine; add chain inet mine onionward\n",
    "delete table inet onionward\n",
    "caf\udce9 {\n}\n",
)


@given(st.lists(st.sampled_from([(True, t) for t in OURS] + [(False, t) for t in THEIRS])))
def test_only_ours_is_taken_out(parts: list[tuple[bool, str]]) -> None:
    text = "".join(part for _, part in parts)
    assert without_ours(text) == "".join(part for ours, part in parts if not ours)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("table inet onionward {}\n", ""),
        ("table inet onionward {\n}", ""),
        ("  table inet onionward\n{\n}\n", ""),
        ("table inet onionward { # progname nft\n}\ntable ip a {\n}\n", "table ip a {\n}\n"),
        ("add table inet onionward { chain a { }; }\n", ""),
        (
            "table ip a { }; table inet onionward { }; table ip b { }\n",
            "table ip a { }; ; table ip b { }\n",
        ),
        # what does not end, or is inside something else, is nobody's to judge
        ("table inet onionward {\n\tchain a {\n", None),
        ("table ip a {\n\ttable inet onionward {\n\t}\n}\n", None),
        ('x "unfinished\ntable inet onionward {\n}\n', 'x "unfinished\n'),
    ],
)
def test_shapes(text: str, left: str | None) -> None:
    assert without_ours(text) == (text if left is None else left)


FILES = (".conf", ".nft", ".rules")


def saved(root: Path, name: str = "etc/nftables.conf", text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text or THEIRS[0] + OURS[0] + THEIRS[7] + OURS[1]).encode())
    return path


def test_a_file_keeps_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.chmod(0o750)
    os.setxattr(path, "user.note", b"mine")
    assert holding_ours(tmp_path) == (path,)
    assert str(path) in problems(tmp_path)[0]
    owner = path.stat().st_uid, path.stat().st_gid
    ((words, done),) = take_out(LocalSystem(), tmp_path)
    assert done
    assert str(path) in words
    assert path.read_bytes() == (THEIRS[0] + THEIRS[7]).encode()
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, *owner)
    assert os.getxattr(path, "user.note") == b"mine"
    assert not temporary_name(path).exists()
    assert take_out(LocalSystem(), tmp_path) == ()
    assert problems(tmp_path) == ()


def test_every_known_place_is_looked_at(tmp_path: Path) -> None:
    places = [
        saved(tmp_path, place if "." in place else f"{place}/deep/er.rules")
        for place in saved_rulesets.PLACES
    ]
    strangers = saved(tmp_path, "etc/onionward/boot.nft")
    assert set(holding_ours(tmp_path)) == set(places)
    take_out(LocalSystem(), tmp_path)
    assert holding_ours(tmp_path) == ()
    assert b"onionward" in strangers.read_bytes()


def test_a_link_stays_one(tmp_path: Path) -> None:
    target = saved(tmp_path, "srv/rules.nft")
    link = tmp_path / "etc/nftables.conf"
    link.parent.mkdir()
    link.symlink_to("../srv/rules.nft")
    assert holding_ours(tmp_path) == (target,)
    take_out(LocalSystem(), tmp_path)
    assert link.is_symlink()
    assert target.read_bytes() == (THEIRS[0] + THEIRS[7]).encode()


def test_every_name_of_a_file_is_cleaned(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = tmp_path / "etc/nftables.d/main.nft"
    other.parent.mkdir()
    other.hardlink_to(path)
    assert all(done for _, done in take_out(LocalSystem(), tmp_path))
    assert path.read_bytes() == other.read_bytes() == (THEIRS[0] + THEIRS[7]).encode()
    assert holding_ours(tmp_path) == ()


def test_what_is_included_is_looked_into(tmp_path: Path) -> None:
    first = 'include "/srv/fw/*.nft"\n# include "/srv/other.nft"\n\tinclude "fw.nft"\n'
    saved(tmp_path, text=THEIRS[0] + first)
    included = [
        saved(tmp_path, "etc/fw.nft", 'include "/etc/nftables.conf"\n' + OURS[0]),
        saved(tmp_path, "srv/fw/a.nft"),
    ]
    strangers = saved(tmp_path, "srv/other.nft")
    assert set(holding_ours(tmp_path)) == set(included)
    assert all(done for _, done in take_out(LocalSystem(), tmp_path))
    assert holding_ours(tmp_path) == ()
    assert b"onionward" in strangers.read_bytes()


def test_files_without_ours_are_not_written(tmp_path: Path) -> None:
    path = saved(tmp_path, text="# onionward is great\n" + THEIRS[1])
    before = path.stat().st_ino, path.stat().st_mtime_ns
    assert take_out(LocalSystem(), tmp_path) == ()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    class Full(LocalSystem):
        def effect(self, words: str) -> None:
            raise OSError(28, f"No space left on device for: {words}")

    path = saved(tmp_path)
    before = path.read_bytes()
    ((words, done),) = take_out(Full(), tmp_path)
    assert not done
    assert "No space left" in words
    assert str(path) in words
    assert path.read_bytes() == before
