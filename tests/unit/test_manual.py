"""Man pages: made from what `--help` says, and complete."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from onionward.cli import cli
from tools import manual


def commands(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            assert below is not None
            yield from commands(click.Context(below, info_name=name, parent=context))


# a command remembers the names of its help option from the first context that it is in
CONTEXT = click.Context(cli, info_name="onionward", **cli.context_settings)
COMMANDS = {context.command_path: context for context in commands(CONTEXT)}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(manual.pages())


def plain(page: str) -> str:
    """Words of a page, in one line."""
    without = re.sub(r"\\f[BR]", "", page)
    for written, meant in (("\\-", "-"), ("\\(aq", "'"), ("\\(ha", "^"), ("\\(ti", "~")):
        without = without.replace(written, meant)
    return " ".join(without.split())


def test_every_command_has_a_page(pages: dict[str, str]) -> None:
    expected = {f"{path.replace(' ', '-')}.8" for path in COMMANDS}
    assert set(pages) == {*expected, "onionward.toml.5"}
    assert len(expected) > 15


@pytest.mark.parametrize("path", COMMANDS)
def test_a_page_names_every_option_with_its_help(path: str, pages: dict[str, str]) -> None:
    page = plain(pages[f"{path.replace(' ', '-')}.8"])
    for parameter in COMMANDS[path].command.get_params(COMMANDS[path]):
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert option in page
            assert " ".join((parameter.help or "").replace("`", "").split()) in page
        else:
            assert parameter.make_metavar(COMMANDS[path]) in page


@pytest.mark.parametrize("path", COMMANDS)
def test_a_page_has_all_sections(path: str, pages: dict[str, str]) -> None:
    sections = re.findall(r"^\.SH (.*)$", pages[f"{path.replace(' ', '-')}.8"], re.MULTILINE)
    needed = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"]
    assert [s for s in sections if s in needed] == needed


def test_the_first_page_leads_to_the_others(pages: dict[str, str]) -> None:
    for path in COMMANDS:
        parent, _, name = path.rpartition(" ")
        if parent:
            assert f"{parent.replace(' ', '-')}-{name}(8)" in plain(
                pages[f"{parent.replace(' ', '-')}.8"]
            )


def test_no_text_is_taken_for_a_request(pages: dict[str, str]) -> None:
    known = {".TH", ".SH", ".TP", ".B", ".PP", ".nf", ".fi"}
    for page in pages.values():
        first = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
        assert first <= known


def test_the_configuration_is_the_file_that_is_installed(pages: dict[str, str]) -> None:
    for line in manual.CONFIGURATION.read_text().splitlines():
        assert " ".join(line.split()) in plain(pages["onionward.toml.5"])
