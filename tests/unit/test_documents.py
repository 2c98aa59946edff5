"""The documents as text: nothing in them is left untested, and they leave nothing out.

What they have somebody type is run in tests/lab/test_documents.py and
tests/machines/test_documents.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

from onionward.cli import cli
from onionward.config import values as v
from tests.documents.likeness import columns, difference
from tests.documents.markdown import Block, Document, parse
from tests.documents.session import (
    DEBIAN,
    ELSEWHERE,
    INDEX,
    PROJECT,
    documents,
    followed,
    in_the_lab,
    substitutions,
)

DOCUMENTS = documents()
BLOCKS = [block for document in DOCUMENTS for block in document.blocks]
MACHINES = {"", DEBIAN, "host", "gateway", "this machine"}
NOT_RUN = 6
"""So many blocks nobody runs: a radio, a desktop, somebody at a terminal."""
TABLES: dict[str, Any] = {
    name: kind
    for name, hint in get_type_hints(v.Config).items()
    for kind in (hint, *get_args(hint))
    if hasattr(kind, "_fields") and kind is not v.Source
}


def text(*names: str) -> str:
    return "\n".join((PROJECT / name).read_text() for name in names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_block_is_run_or_says_why_not(document: Document) -> None:
    run = followed(document)
    for block in document.blocks:
        assert block.language, f"{block.place}: no language"
        assert block in run or ELSEWHERE & set(block.markers), f"{block.place}: nobody runs it"
        assert block.on in MACHINES, f"{block.place}: {block.on}"
        if block.language == "console":
            assert block.commands(), block.place


def test_what_another_test_runs_is_run_by_one_that_exists() -> None:
    for block in BLOCKS:
        if "tested by" in block.markers:
            tests, _, reason = block.markers["tested by"].partition("; ")
            assert reason, f"{block.place}: no reason"
            for test in tests.split(", "):
                path, _, name = test.partition("::")
                found = PROJECT / path
                assert found.is_file(), f"{block.place}: {test}"
                assert f"def {name}" in found.read_text(), f"{block.place}: {test}"


def test_few_blocks_are_not_run() -> None:
    found = [block.place for block in BLOCKS if "not run" in block.markers]
    assert len(found) <= NOT_RUN, found


def test_commands_of_make_are_what_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {
        command.words.split()[1]
        for block in BLOCKS
        if block.language == "console"
        for command in block.commands()
        if command.words.startswith("make ")
    }
    assert named >= {"demo", "test", "deb"}
    assert named <= targets


def links() -> Iterator[tuple[Document, int, str]]:
    for document in DOCUMENTS:
        for line, target in document.links:
            if not re.match(r"https?://", target):
                yield document, line, target


def test_links_lead_somewhere() -> None:
    anchors = {document.name: document.anchors for document in DOCUMENTS}
    broken = []
    for document, line, target in links():
        path, _, anchor = target.partition("#")
        aim = (PROJECT / document.name).parent / path if path else PROJECT / document.name
        name = str(aim.resolve().relative_to(PROJECT))
        there = aim.exists() and (not anchor or anchor in anchors.get(name, ()))
        if not there:
            broken.append(f"{document.name}:{line}: {target}")
    assert not broken, broken


def test_the_index_names_every_document() -> None:
    (index,) = (document for document in DOCUMENTS if document.name == INDEX)
    named = {target for _, target in index.links}
    there = {path.name for path in (PROJECT / "docs").iterdir()} - {Path(INDEX).name}
    assert there <= named


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command, info_name=name)
    yield name, command
    for below in getattr(command, "list_commands", lambda _: ())(context):
        found = command.get_command(context, below)  # type: ignore[attr-defined]
        yield from commands(found, f"{name} {below}")


def test_every_command_and_option_is_explained() -> None:
    said = text("README.md", *(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md")))
    reference = text("docs/commands.md", "docs/run.md", "docs/lab.md", "docs/bsd.md")
    missing = []
    for name, command in commands(cli, "onionward"):
        *_, verb = name.split()
        if not re.search(rf"\b{verb}\b", reference):
            missing.append(name)
        options = [o for o in command.params if isinstance(o, click.Option)]
        missing += [
            f"{name} {word}"
            for option in options
            for word in option.opts
            if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", said)
        ]
    assert not missing, missing


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_explained(table: str) -> None:
    said = text("docs/configuration.md")
    assert {"host", "lan", "user", "tor"} <= set(TABLES)
    assert f"[{table}]" in said
    for key in TABLES[table]._fields:
        assert re.search(rf"^(# )?{key} = ", said, re.MULTILINE), key


def test_every_exit_status_is_explained() -> None:
    section = text("docs/commands.md").partition("## Exit status")[2].partition("\n## ")[0]
    named = {int(n) for n in re.findall(r"\b\d{1,3}\b", section)}
    helps = " ".join(command.help or "" for _, command in commands(cli, "onionward"))
    statuses = re.findall(r"Exit status:(.*?)\.", helps.replace("\n", " "))
    told = {int(n) for words in statuses for n in re.findall(r"\b\d{1,3}\b", words)}
    assert {0, 1, 2, 125, 126, 127} <= told
    assert told <= named, told - named


DOCUMENT = """\
# A title: of `code`
<!-- on all: gateway -->
Words, and a [link](other.md#place).

<!-- file: /etc/x.toml -->
```toml
onion = true
```

<!-- on: host -->
```console
# cat \\
    /etc/x.toml      # shows it
onion = true
alice$ tail -f log   # in another terminal
client1$ true
```
## Place
## Place
"""


class TestMarkdown:
    def test_blocks_have_lines_markers_and_machines(self) -> None:
        document = parse(DOCUMENT, "d.md")
        file, console = document.blocks
        assert (file.place, file.on, file.text) == ("d.md:6", "gateway", "onion = true\n")
        assert file.markers == {"file": "/etc/x.toml"}
        assert (console.on, console.markers) == ("host", {})
        assert document.anchors == {"a-title-of-code", "place", "place-1"}
        assert document.links == ((3, "other.md#place"),)

    def test_commands_have_what_they_print(self) -> None:
        _, console = parse(DOCUMENT, "d.md").blocks
        cat, tail, true = console.commands()
        assert (cat.line, cat.words, cat.remark) == (12, "cat /etc/x.toml", "shows it")
        assert cat.output == ("onion = true",)
        assert (cat.is_root, cat.goes_on) == (True, False)
        assert (tail.where, tail.is_root, tail.goes_on) == ("alice", False, True)
        assert (true.where, true.words, true.output) == ("client1", "true", ())

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ("```console\n# true\n", "d.md:1: the block does not end"),
            ("<!-- at: host -->\n```toml\n```\n", "d.md:1: no such marker: at"),
            ("\n<!-- on: host -->\nWords.\n", "d.md:3: a marker stands before something else"),
            ("<!-- on: host -->\n", "a marker at the end"),
        ],
    )
    def test_what_is_wrong_is_named(self, words: str, problem: str) -> None:
        with pytest.raises(ValueError, match=re.escape(problem)):
            parse(words, "d.md")

    def test_output_without_a_command_is_wrong(self) -> None:
        block = Block("d.md", 7, "console", ("words",))
        with pytest.raises(ValueError, match="no prompt"):
            block.commands()


class TestLikeness:
    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("[  0.09 s] blocked", "[ 10.12 s] blocked"),
            ('{"IsTor": true, "IP": "185.220.101.4"}', '{"IsTor": true, "IP": "2001:db8:3::1"}'),
            ("since     2026-11-26 21:38:04", "since     2027-01-02 01:02:03"),
            ("running (process 69)", "running (process 12345)"),
            (f"http://{'a' * 56}.onion/", f"http://{'b2' * 28}.onion/"),
            ("interfaces: eth1, …", "interfaces: eth1, br0"),
            ("one\n…\nlast", "one\ntwo\nthree\nlast"),
            ("…\nlast", "last"),
            ("[ 1.2 s] tor 45 %: a\n[ 2.1 s] tor 100 %: Done", "[ 1.3 s] tor 100 %: Done"),
        ],
    )
    def test_what_differs_each_time_does_not_count(self, shown: str, real: str) -> None:
        assert difference(shown.splitlines(), real.splitlines()) == ""

    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("0 refused", "3 refused"),
            ("routed: host", "routed: lan"),
            ('"IsTor": true', '"IsTor": false'),
            ("one", "one\ntwo"),
            ("one\n…\nlast", "one\ntwo"),
            ("one", ""),
            ("eth1", "eth0"),
            ("no tor", "[ 1.3 s] tor 100 %: Done"),
        ],
    )
    def test_everything_else_does(self, shown: str, real: str) -> None:
        assert "real output" in difference(shown.splitlines(), real.splitlines())

    def test_columns_are_read_downwards(self) -> None:
        wide = [
            "a title",
            "│ web page: server │ 198.18.0.2 (this machine) │",
            "├──┼──┤",
            "│ x │ y │",
        ]
        narrow = ["a", "title", "│ web page: │ 198.18.0.2 │", "│ server │ (this machine) │"]
        assert columns(wide)[:3] == columns(narrow)
        assert columns(wide)[1:3] == ["web page: server", "198.18.0.2 (this machine)"]


def test_the_table_of_what_is_replaced_is_read() -> None:
    (index,) = (document for document in DOCUMENTS if document.name == INDEX)
    table = substitutions(index)
    assert table["www.example.org"] == "www.example.test"
    # longest first, or a part would be replaced alone
    names = list(table)
    for n, name in enumerate(names):
        assert not any(earlier in name for earlier in names[:n]), name


@pytest.mark.parametrize(
    "config", ["onion = true\n", "[host]\n[tor]\ndns_port = 53\n", '[tor]\nnetwork = "/n"\n']
)
def test_configurations_get_one_network(config: str) -> None:
    found = tomllib.loads(in_the_lab(config))
    assert found["tor"]["network"] == (
        "/n" if "/n" in config else "/run/onionward-lab/network.torrc"
    )
    assert {k for k in found if k != "tor"} == {k for k in tomllib.loads(config) if k != "tor"}
