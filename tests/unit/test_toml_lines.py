"""The line numbers of a document agree with what tomllib reads from it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import assume, given

from onionward.toml_lines import KeyPath, key_lines
from tests.unit.documents import DOCUMENTS, quoted


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key path that tomllib sees."""
    if path:
        yield path
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


def names(path: KeyPath) -> str:
    """The last part of a path that is a word."""
    return next(part for part in reversed(path) if isinstance(part, str))


def parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(condition=False)  # a dotted key that redefines another
        raise


@given(DOCUMENTS)
def test_every_key_has_the_line_it_stands_on(text: str) -> None:
    document = parsed(text)
    found = key_lines(text)
    assert set(paths(document)) == set(found)
    lines = text.split("\n")
    for path, number in found.items():
        assert 1 <= number <= len(lines)
        if isinstance(path[-1], str):
            line = lines[number - 1]
            assert path[-1] in line or quoted(path[-1]) in line


@given(DOCUMENTS)
def test_lines_hold_when_lines_are_put_before(text: str) -> None:
    parsed(text)
    moved = key_lines("# [x]\n\n'p' = '''\n[y]\n'''\n" + text) if "p" not in text else None
    if moved is not None:
        assert {k: n - 5 for k, n in moved.items() if k != ("p",)} == key_lines(text)


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1", ("a",), 1),
        ("\n\na.b = 1", ("a", "b"), 3),
        ("[a]\n[a.b]\nc = 1", ("a", "b", "c"), 3),
        ("[a.b]\nc = 1", ("a",), 1),
        ("[a.b]\nc = 1\n[a]\n", ("a",), 3),
        ("[[a]]\nb = 1\n[[a]]\nb = 2", ("a", 1, "b"), 4),
        ("[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[[a.b]]\nc=1", ("a", 1, "b", 0, "c"), 6),
        ("a = [\n  1,\n  [\n 2,\n 3]]", ("a", 1, 1), 5),
        ("a = [{b = 1},\n {b = 2}]", ("a", 1, "b"), 2),
        ('a = """\nb = 1\n"""\nc = 1', ("c",), 4),
        ('a = """x\\\\"""\nb = 1\nc = """z"""\nd = 1', ("b",), 2),
        ('a = """x\\""""\nb = 1', ("b",), 2),
        ("a = '''\n'''''\nb = 1", ("b",), 3),
        ('a = """"""\nb = """"x""""\nc = 1', ("c",), 3),
        ("a = 1979-05-27 07:32:00.5\r\nb = 1", ("b",), 2),
        ('"a\\u0062\\"]" = 1', ('ab"]',), 1),
        ('["\\u0061"."b.c"]\nd = 1', ("a", "b.c", "d"), 2),
    ],
)
def test_a_key(text: str, path: KeyPath, line: int) -> None:
    assert path in set(paths(tomllib.loads(text)))
    assert key_lines(text)[path] == line


def test_nothing_else_has_a_line() -> None:
    text = dedent(
        """
        # [no]
        a = "[no]\\n" # no = 1
        b = '''
        no = 1
        '''
        """
    )
    assert key_lines(text) == {("a",): 3, ("b",): 4}
