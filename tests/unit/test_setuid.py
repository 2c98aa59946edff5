"""Programs with the set-user-ID bit: which are found, and which of them are ways around."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onionward import acl, setuid
from onionward.setuid import Program, looks_up_names, programs, ways_around
from tests.unit.exposed_machine import BOB, BOXED, CAROL


def _program(path: str, mode: int = 0o4755, owner: int = 0, group: int = 0) -> Program:
    return Program(Path(path), acl.Permissions(owner, group, 0o100000 | mode, acl.minimal(mode)))


def _make(path: Path, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF")
    path.chmod(mode)
    return path


def test_what_is_found(tmp_path: Path) -> None:
    expected = [
        _make(tmp_path / "bin" / "ping", 0o4755),
        _make(tmp_path / "lib" / "deep" / "down" / "helper.real", 0o6711),
        _make(tmp_path / "sbin" / "mount.nfs", 0o4750),
    ]
    _make(tmp_path / "bin" / "cat", 0o755)
    _make(tmp_path / "bin" / "wall", 0o2755)
    _make(tmp_path / "bin" / "nobody", 0o4644)
    _make(tmp_path / "lib" / "data.py", 0o4755)
    _make(tmp_path / "lib" / "libc.so.6", 0o4755)
    (tmp_path / "bin" / "link").symlink_to("ping")
    (tmp_path / "lib" / "loop").symlink_to(tmp_path)
    (tmp_path / "bin" / "odd").mkdir(mode=0o4755)
    names = [tmp_path / name for name in ("bin", "lib", "sbin", "missing")]
    assert [program.path for program in programs(names)] == expected


def test_a_program_is_found_once(tmp_path: Path) -> None:
    ping = _make(tmp_path / "usr" / "bin" / "ping", 0o4755)
    os.link(ping, tmp_path / "usr" / "bin" / "ping6")
    (tmp_path / "bin").symlink_to("usr/bin")
    found = programs([tmp_path / "bin", tmp_path / "usr" / "bin", tmp_path / "usr"])
    assert len(found) == 1


@pytest.mark.parametrize("name", sorted(setuid.HARMLESS.keys() - {"sudo"}))
def test_programs_without_a_network(name: str) -> None:
    assert ways_around([_program(f"/usr/bin/{name}")], BOB) == ()


@pytest.mark.parametrize(
    "name",
    ["ping", "traceroute6.iputils", "mtr-packet", "mount.nfs", "mount.cifs", "exim4", "pppd"],
)
def test_programs_with_one(name: str) -> None:
    (way,) = ways_around([_program(f"/usr/bin/{name}")], BOB)
    assert way.name == "setuid"
    assert way.path == Path(f"/usr/bin/{name}")
    assert f"/usr/bin/{name} runs as uid 0" in way.reason
    assert way.is_accepted([f"setuid:/usr/bin/{name}"])


def test_whoever_may_not_run_it_has_no_way() -> None:
    for_group_50 = _program("/usr/bin/x", 0o4750, group=50)
    assert ways_around([for_group_50], BOB) == ()
    assert len(ways_around([for_group_50], CAROL)) == 1


def test_a_program_of_the_account_itself() -> None:
    own = _program("/opt/x", owner=61002)
    contained = _program("/opt/y", owner=100005)
    assert ways_around([own], BOB) == ()
    assert len(ways_around([own], CAROL)) == 1
    assert ways_around([contained], BOXED) == ()
    assert len(ways_around([contained], BOB)) == 1


# sudo 1.9.13 was watched at its resolver for the first five
@pytest.mark.parametrize(
    ("sudoers", "expected"),
    [
        ("", True),
        ("Defaults !fqdn\n", False),
        ("Defaults env_reset\nDefaults\tmail_badpass, !fqdn, use_pty\n", False),
        ("Defaults fqdn\n", True),
        ("Defaults !fqdn\nDefaults fqdn\n", True),
        ("Defaults !fqdn # not needed\n", False),
        ("# Defaults !fqdn\n", True),
        ("Defaults:bob !fqdn\n", True),
        ("Defaults env_reset, \\\n  !fqdn\n", False),
        ("Defaults !fqdns\n", True),
        ("Defaults passprompt=fqdn-less\n", True),
    ],
)
def test_sudo_looks_up_names_unless_told_not_to(sudoers: str, expected: bool) -> None:
    assert looks_up_names(sudoers) is expected
    ways = ways_around([_program("/usr/bin/sudo")], BOB, sudoers)
    assert bool(ways) is expected
    if expected:
        assert "Defaults !fqdn" in ways[0].reason
        assert ways[0].is_accepted(["setuid:/usr/bin/sudo"])


def test_the_files_of_sudo(tmp_path: Path) -> None:
    main = tmp_path / "sudoers"
    assert setuid.read_sudoers(main) == ""
    main.write_text("a")
    (tmp_path / "sudoers.d").mkdir()
    for name in ("2", "1", "README.txt", "3~"):
        (tmp_path / "sudoers.d" / name).write_text(name)
    assert setuid.read_sudoers(main) == "a\n1\n2"


def test_this_machine_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {program.path.name for program in programs([Path("/usr/bin")])}
    assert {"su", "passwd", "mount"} <= found
