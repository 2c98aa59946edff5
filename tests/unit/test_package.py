"""The Debian package and the program say the same."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from onionward import __version__
from onionward.config.values import DEFAULT_ACCOUNT, DEFAULT_PATH
from onionward.facts import Account
from onionward.paths import BLOCKS_AT_BOOT, PATHS
from onionward.tables import OURS, RUN_LOCK_TABLE, RUN_TABLE
from onionward.tor import account
from tests.support import LocalSystem

PROJECT = Path(__file__).parents[2]
DEBIAN = PROJECT / "debian"


def test_there_is_one_version() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert project["version"] == __version__
    assert first.startswith(f"onionward ({__version__}) ")


def test_it_depends_on_the_libraries_of_the_program() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    control = (DEBIAN / "control").read_text()
    for needed in project["dependencies"]:
        name, _, version = needed.partition(">=")
        assert f"python3-{name} (>= {version})" in control


def test_sysusers_makes_the_account_that_up_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []

    class Useradd(LocalSystem):
        def execute(self, argv: Sequence[str], **_: object) -> str:
            commands.append(argv)
            return ""

    found = iter([None, Account(DEFAULT_ACCOUNT, 990, 990, PATHS.tor_data)])
    monkeypatch.setattr(account, "find_account", lambda _: next(found))
    account.ensure(Useradd(), DEFAULT_ACCOUNT, PATHS)
    (argv,) = commands
    options = dict(pairwise(argv))
    lines = (DEBIAN / "onionward.sysusers").read_text().splitlines()
    (line,) = (shlex.split(x) for x in lines if not x.startswith("#"))
    # sysusers.d(5): "u" makes a group of the same name; a number of its own choice
    assert line[:3] == ["u", argv[-1], "-"]
    assert line[3:] == [options[x] for x in ("--comment", "--home-dir", "--shell")]
    assert {"--system", "--user-group"} <= set(argv)


def test_the_default_configuration_goes_where_it_is_read() -> None:
    installed = (DEBIAN / "install").read_text()
    assert f"docs/onionward.toml {str(DEFAULT_PATH.parent).lstrip('/')}/" in installed


def test_removal_looks_for_all_that_may_be_in_force() -> None:
    script = (DEBIAN / "prerm").read_text()
    pattern = re.search(r"grep -Eq '(.*)'", script)
    assert pattern is not None
    for family, name in OURS:
        assert re.search(pattern[1], f"table {family} {name}"), name
    # applications are asked about apart
    for family, name in (RUN_TABLE, RUN_LOCK_TABLE, ("inet", "filter"), ("inet", "onionwards")):
        assert not re.search(pattern[1], f"table {family} {name}"), name
    for place in (PATHS.journal, *BLOCKS_AT_BOOT):
        assert f"-e {place} " in script
