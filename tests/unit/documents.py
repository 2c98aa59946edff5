"""Hypothesis strategies: TOML documents in many layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

# What TOML allows raw in a one-line string, and some that looks like syntax.
_RAW = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=8
) | st.sampled_from(["[x]", "a = 1", "#", "=", "'", '"', '"""', "\\", "\\\\", "'''", "{", "]", ","])

_BARE_KEYS = st.sampled_from(["host", "tor", "networks", "a", "b", "c-d", "e_f", "1", "0x2"])
KEYS = _BARE_KEYS | _RAW

LEAVES = (
    st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.floats(allow_nan=False)
    | _RAW
    | st.dates()
    | st.datetimes(timezones=st.none())
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def quoted(text: str) -> str:
    """A basic string; every other character of a text with a colon is escaped for variety."""
    plain = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if "a" not in text:
        return plain
    return plain.replace("a", "\\u0061", 1)


@st.composite
def key_texts(draw: st.DrawFn, key: str) -> str:
    """A key as it may be written."""
    ways = [quoted(key)]
    if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key):
        ways.append(key)
    if "'" not in key:
        ways.append(f"'{key}'")
    return draw(st.sampled_from(ways))


@st.composite
def string_texts(draw: st.DrawFn, text: str) -> str:
    """A string in one of the four notations."""
    ways = [quoted(text)]
    if "'" not in text:
        ways += [f"'{text}'", f"'''\n{text}'''"]
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    ways += [f'"""{escaped}"""', f'"""\n{escaped}"""', f'"""\\\n\n  {escaped}"""']
    return draw(st.sampled_from(ways))


@st.composite
def value_texts(draw: st.DrawFn, value: Any) -> str:
    """A value as it may be written, on one line or several."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return draw(string_texts(value))
        case list():
            gap = draw(st.sampled_from(["", " ", "\n", " # ], [\n", "\r\n"]))
            parts = [draw(value_texts(item)) for item in value]
            last = draw(st.sampled_from(["", ","])) if parts else ""
            return "[" + gap + f"{gap},{gap}".join(parts) + last + gap + "]"
        case Mapping():
            pairs = [
                f"{draw(key_texts(key))} = {draw(value_texts(inner))}"
                for key, inner in value.items()
            ]
            return "{ " + ", ".join(pairs) + " }"
        case float():
            return repr(value).replace("+", "") if "e" not in repr(value) else f"{value:.3f}"
        case int():
            return f"{value:_}" if draw(st.booleans()) else str(value)
        case _:
            return str(value.isoformat())


@st.composite
def tables(draw: st.DrawFn, path: tuple[str, ...], depth: int) -> str:
    """Lines of a table: its pairs, then its sub-tables and arrays of tables."""
    lines = []
    taken = set()
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        taken.add(key)
        dotted = draw(st.lists(KEYS, max_size=2)) if draw(st.booleans()) else []
        name = " . ".join(draw(key_texts(part)) for part in (key, *dotted))
        ending = draw(st.sampled_from(["", " # x = 1 [y]", "\n", "  ", "\r"]))
        lines.append(f"{name} = {draw(value_texts(draw(VALUES)))}{ending}")
    if depth:
        for key in draw(st.lists(KEYS.filter(lambda k: k not in taken), max_size=2, unique=True)):
            header = ".".join([draw(key_texts(part)) for part in (*path, key)])
            if draw(st.booleans()):
                lines += [f"[ {header} ]", draw(tables((*path, key), depth - 1))]
            else:
                for _ in range(draw(st.integers(1, 2))):
                    lines += [f"[[{header}]]", draw(tables((*path, key), depth - 1))]
    return "\n".join(lines)


DOCUMENTS = tables((), 2)
