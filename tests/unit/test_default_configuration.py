"""docs/onionward.toml, which is installed as /etc/onionward/onionward.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from onionward.config import Config, parse
from onionward.config import values as v
from onionward.dns.managers import RESOLVERS

TEXT = (Path(__file__).parents[2] / "docs/onionward.toml").read_text()
# behind its mark a line of the configuration has no space, and a sentence has one
WRITTEN = re.sub(r"^#(?! |$)", "", TEXT, flags=re.MULTILINE)
EXAMPLES = {"attempts", "interface", "dhcp_range", "name", "networks", "network"}
TABLES: dict[str, Any] = {
    "host": v.HostConfig(),
    "lan": v.LanConfig(),
    "user": v.UserConfig(),
    "bypass": v.BypassConfig(),
    "tor": v.TorConfig(),
    "firewall": v.FirewallConfig(),
    "log": v.LogConfig(),
}


def written(table: str) -> dict[str, Any]:
    found: Any = tomllib.loads(WRITTEN)[table]
    section: dict[str, Any] = found[0] if isinstance(found, list) else found
    return section


def test_as_installed_it_says_what_no_file_says() -> None:
    assert [line for line in TEXT.splitlines() if line and not line.startswith("#")] == []
    assert parse(TEXT, "onionward.toml") == Config()


def test_it_names_every_table_and_nothing_else() -> None:
    assert set(tomllib.loads(WRITTEN)) == {*TABLES, "onion"}
    assert tomllib.loads(WRITTEN)["onion"] is Config().onion


@pytest.mark.parametrize("table", TABLES)
def test_it_names_every_key(table: str) -> None:
    assert set(written(table)) == set(TABLES[table]._fields)


@pytest.mark.parametrize("table", TABLES)
def test_the_value_shown_is_the_one_of_a_key_left_out(table: str) -> None:
    for key, value in written(table).items():
        if key not in EXAMPLES:
            default = getattr(TABLES[table], key)
            assert value == (list(default) if isinstance(default, tuple) else default), key


def test_it_names_every_choice() -> None:
    hints = {
        key: kind for one in TABLES.values() for key, kind in get_type_hints(type(one)).items()
    }
    choices = {word for kind in hints.values() for word in get_args(kind) if isinstance(word, str)}
    # pf is not Debian's
    assert {word for word in {*choices, *RESOLVERS} - {"pf"} if f'"{word}"' not in TEXT} == set()


def test_its_examples_can_be_read() -> None:
    uncommented = parse(WRITTEN.replace("dhcp = false", "dhcp = true"), "onionward.toml")
    assert uncommented.lan[0].interface
    assert uncommented.user[0].name
