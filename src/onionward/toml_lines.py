"""On which line of a TOML document each key stands.

`tomllib` returns values without positions. This scanner assumes a document that `tomllib` has
accepted and records the line of every table header, key and array element.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
      (?P<string>\"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2} | '''.*?''''{0,2}
                | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<space>[ \t\r]+)
    | (?P<punctuation>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=1)
def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Line (from 1) of each table, key and array element of a valid TOML document."""
    return _Scanner(text).scan()


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"])


class _Scanner:
    def __init__(self, text: str) -> None:
        self._tokens = [(m.lastgroup or "", m.group()) for m in _TOKEN.finditer(text)]
        self._next = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> Mapping[KeyPath, int]:
        table: KeyPath = ()
        while (token := self._peek()) is not None:
            kind, text = token
            if kind in ("newline", "comment", "space"):
                self._take()
            elif text == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> str:
        _, text = self._tokens[self._next]
        self._next += 1
        self._line += text.count("\n")
        return text

    def _skip_blank(self) -> None:
        while (token := self._peek()) and token[0] in ("newline", "comment", "space"):
            self._take()

    def _key(self, end: str) -> list[str]:
        """Parts of a dotted key up to and including the token `end`."""
        parts: list[str] = []
        while (token := self._peek()) is not None:
            text = self._take()
            if text == end:
                break
            if token[0] == "string":
                parts.append(_unquoted(text))
            elif token[0] == "bare":
                parts.append(text)
        return parts

    def _header(self) -> KeyPath:
        line = self._line
        self._take()
        is_array = self._peek() == ("punctuation", "[")
        if is_array:
            self._take()
        path = self._resolve(self._key("]"))
        if is_array:
            self._take()
            index = self._array_lengths.get(path, 0)
            self._array_lengths[path] = index + 1
            self._lines.setdefault(path, line)
            path = (*path, index)
        for length in range(1, len(path)):
            self._lines.setdefault(path[:length], line)
        self._lines[path] = line
        return path

    def _resolve(self, parts: list[str]) -> KeyPath:
        """Insert the index of the current element where a parent is an array of tables."""
        path: KeyPath = ()
        for number, part in enumerate(parts):
            path = (*path, part)
            is_parent = number < len(parts) - 1
            if is_parent and path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line
        path = table
        for part in self._key("="):
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        while (token := self._peek()) and token[0] == "space":
            self._take()
        if token is None:
            return
        if token[1] == "[":
            self._array(path)
        elif token[1] == "{":
            self._inline_table(path)
        else:
            while (token := self._peek()) and not (
                token[0] in ("newline", "comment") or token[1] in (",", "]", "}")
            ):
                self._take()

    def _array(self, path: KeyPath) -> None:
        self._take()
        index = 0
        while True:
            self._skip_blank()
            token = self._peek()
            if token is None:
                return
            if token[1] == "]":
                self._take()
                return
            if token[1] == ",":
                self._take()
                continue
            self._lines[*path, index] = self._line
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._take()
        while True:
            self._skip_blank()
            token = self._peek()
            if token is None:
                return
            if token[1] == "}":
                self._take()
                return
            if token[1] == ",":
                self._take()
                continue
            self._pair(path)
