"""A shell script as the list of commands that it would run; nothing is run.

Understood is what such scripts use: variables with their values, `for` over words, quotes,
comments, lines that go on, and what stands before and after `;`, `&&`, `||`. Conditions and
functions are not decided: their commands count as run. What a command prints is not known, so
`$(…)` stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_SHOWN = 60  # characters of a line

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_BRANCH = re.compile(r"^\s*(?:(?:function\s+)?[\w-]+\s*\(\s*\)|function\s|if\s|case\s)", re.M)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?[-=][^}]*)?\}|([A-Za-z_]\w*))")
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")", "{", "}", "\n", ";;"})
_KEYWORDS = frozenset({"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "!"})
_DECLARING = frozenset({"export", "local", "readonly", "declare", "typeset"})
_MOST = 10_000  # commands; a loop over a loop of long lists is no configuration


class TooLongError(ValueError):
    """More commands than an old setup has."""


class Command(NamedTuple):
    """One command with its words, variables filled in.

    Attributes:
        words: program and arguments.
        line: where it stands, from 1.

    """

    words: tuple[str, ...]
    line: int


class Token(NamedTuple):
    """A word as it is written, or a separator."""

    text: str
    line: int
    separates: bool


def commands(text: str) -> tuple[Command, ...]:
    """The commands of a script, in order; a loop's once for each turn.

    Raises:
        TooLongError: there are too many.

    """
    found: list[Command] = []
    _run(list(_statements(_tokens(text))), {}, found)
    return tuple(found)


def has_branches(text: str) -> bool:
    """Whether it has functions or conditions, whose commands count as run."""
    return _BRANCH.search(text) is not None


def _tokens(text: str) -> Iterator[Token]:
    """Words with their quotes, and separators."""
    line, place, word, begun = 1, 0, "", 0
    while place < len(text):
        char = text[place]
        if char == "\\" and text[place + 1 : place + 2] == "\n":
            line, place = line + 1, place + 2
            continue
        if char == "\\":
            begun, word, place = begun or line, word + text[place : place + 2], place + 2
            continue
        if char in "'\"`" or text.startswith("$(", place):
            end = _quoted(text, place)
            begun, word = begun or line, word + text[place:end]
            line, place = line + text.count("\n", place, end), end
            continue
        if char == "#" and not word:
            place = text.find("\n", place)
            place = len(text) if place < 0 else place
            continue
        if char == "&" and (word.endswith((">", "<")) or text[place + 1 : place + 2] == ">"):
            # of a redirection (2>&1, >&2, &>FILE): it separates nothing
            begun, word, place = begun or line, word + char, place + 1
            continue
        if char.isspace() or char in ";&|()":
            if word:
                yield Token(word, begun, separates=False)
                word, begun = "", 0
            two = text[place : place + 2]
            separator = two if two in _SEPARATORS else char
            if separator in _SEPARATORS:
                yield Token(separator, line, separates=True)
                line, place = line + (separator == "\n"), place + len(separator)
            else:
                place += 1
            continue
        begun, word, place = begun or line, word + char, place + 1
    if word:
        yield Token(word, begun, separates=False)
    yield Token("\n", line, separates=True)


def _quoted(text: str, start: int) -> int:
    """Where what is quoted from `start` on ends."""
    if text.startswith("$(", start):
        depth, place = 0, start + 1
        while place < len(text):
            depth += {"(": 1, ")": -1}.get(text[place], 0)
            place += 1
            if depth == 0:
                break
        return place
    place = start + 1
    while place < len(text) and text[place] != text[start]:
        place += 2 if text[place] == "\\" and text[start] != "'" else 1
    if place < len(text):
        return place + 1
    # no quote at all: an apostrophe in something that is no script
    end = text.find("\n", start)
    return len(text) if end < 0 else end


Statement = list[Token]


def _statements(tokens: Iterator[Token]) -> Iterator[Statement]:
    """Words between separators, keywords of conditions left out."""
    statement: Statement = []
    for token in tokens:
        if token.separates or (not statement and token.text in ("{", "}")):
            if statement:
                yield statement
            statement = []
        elif not statement and token.text in _KEYWORDS and token.text not in ("do", "done"):
            continue
        elif not statement and token.text in ("do", "done"):
            yield [token]
        else:
            statement.append(token)


def _run(statements: list[Statement], known: dict[str, str], found: list[Command]) -> None:
    place = 0
    while place < len(statements):
        statement = statements[place]
        first = statement[0].text
        if first == "for" and len(statement) >= 3 and statement[2].text == "in":
            end = _end_of_loop(statements, place)
            body = statements[place + 1 : end]
            for value in _expanded(statement[3:], known):
                known[statement[1].text] = value
                _run(body, known, found)
            place = end + 1
            continue
        place += 1
        if first in ("do", "done"):
            continue
        while statement and (given := _ASSIGNMENT.fullmatch(statement[0].text)):
            known[given[1]] = _unquoted(given[2], known)
            statement = statement[1:]
        if statement and statement[0].text in _DECLARING:
            for token in statement[1:]:
                if given := _ASSIGNMENT.fullmatch(token.text):
                    known[given[1]] = _unquoted(given[2], known)
            continue
        words = _expanded(statement, known)
        if len(found) == _MOST:
            raise TooLongError(f"line {statement[0].line}: more than {_MOST} commands")
        if words:
            found.append(Command(tuple(words), statement[0].line))


def _end_of_loop(statements: list[Statement], start: int) -> int:
    depth = 0
    for place in range(start + 1, len(statements)):
        word = statements[place][0].text
        depth += {"do": 1, "done": -1}.get(word, 0)
        if word == "done" and depth == 0:
            return place
    return len(statements)


def _expanded(tokens: list[Token], known: Mapping[str, str]) -> list[str]:
    """Words with variables filled in; what is not quoted is split at blanks."""
    words: list[str] = []
    for token in tokens:
        text = token.text
        if _VARIABLE.search(text) and not any(quote in text for quote in "'\"`"):
            words += _unquoted(text, known).split()
        else:
            words.append(_unquoted(text, known))
    return words


def _unquoted(text: str, known: Mapping[str, str]) -> str:
    """A word without its quotes, variables filled in where they are."""
    parts = re.findall(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|[^'\"\\]+|.", text, re.DOTALL)
    result = ""
    for part in parts:
        if part.startswith("'") and len(part) > 1:
            result += part[1:-1]
        elif part.startswith('"') and len(part) > 1:
            result += _filled(re.sub(r"\\([$`\"\\])", r"\1", part[1:-1]), known)
        elif part.startswith("\\") and len(part) == 2:
            result += part[1]
        else:
            result += _filled(part, known)
    return result


def _filled(text: str, known: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return known.get(found[1] or found[2], found[0])

    return _VARIABLE.sub(value, text)


def shortened(text: str) -> str:
    """A line as a note shows it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
