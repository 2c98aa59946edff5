"""The machine's own pf.conf(5): read statement by statement, hooked, and searched for hazards.

The anchor must be asked before every rule of the machine's own, and pf must look at loopback. The
text is changed in these two points only, and put back byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from onionward.policy import Policy
from onionward.render.pf import ANCHOR
from onionward.render.pf.dialects import Dialect

MARK = "# onionward"
"""Ends the lines that are added."""
DISABLED = "#onionward# "
"""Begins the lines that are out of force."""

_FILTER = frozenset({"pass", "block", "match", "antispoof", "anchor"})
_TRANSLATION = frozenset({"nat", "rdr", "binat", "no", "nat-anchor", "rdr-anchor", "binat-anchor"})
_LOOPBACK = frozenset({"lo", "lo0", "lo1"})


class Statement(NamedTuple):
    """One statement, macros replaced.

    Attributes:
        file: where it stands.
        first: its first line.
        last: its last line.
        text: without comments and line breaks.
        depth: in how many inline anchors it is.

    """

    file: str
    first: int
    last: int
    text: str
    depth: int

    @property
    def word(self) -> str:
        """What it is."""
        return self.text.split(maxsplit=1)[0] if self.text else ""

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file}:{self.first}"

    @property
    def is_filter(self) -> bool:
        """Whether it is a filter rule or an anchor of such."""
        return self.word in _FILTER

    @property
    def is_translation(self) -> bool:
        """Whether it is of the section of translation, where there is one."""
        return self.word in _TRANSLATION and not self.text.startswith("no state")

    @property
    def is_hook(self) -> bool:
        """Whether it is what leads to our anchor."""
        return bool(re.match(rf'(rdr-)?anchor\s+"?{ANCHOR}"?(\s|$)', self.text))


Reader = Callable[[str], str]


def read_file(path: str) -> str:
    """An included file; what cannot be read is empty, as `check` says."""
    try:
        return Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""


def statements(text: str, file: str, include: Reader = read_file) -> tuple[Statement, ...]:
    """All statements in their order, those of included files in the place of the `include`."""
    return tuple(_statements(text, file, include, {}, 0))


def _statements(
    text: str, file: str, include: Reader, macros: dict[str, str], nesting: int
) -> Iterator[Statement]:
    depth = 0
    for first, last, raw in _logical(text):
        line = raw
        if line.startswith("}"):
            depth -= 1
            line = line[1:].strip()
        if not line:
            continue
        if found := re.match(r"([A-Za-z]\w*)\s*=\s*(.+)$", line):
            macros[found[1]] = _expanded(found[2].replace('"', " ").strip(), macros)
            continue
        line = _expanded(line, macros)
        if found := re.match(r'include\s+"?([^"\s]+)"?', line):
            yield Statement(file, first, last, line, depth)
            if nesting < 8:
                yield from _statements(include(found[1]), found[1], include, macros, nesting + 1)
            continue
        opens = line.startswith("anchor") and line.rstrip().endswith("{")
        yield Statement(file, first, last, line.rstrip(" {") if opens else line, depth)
        depth += opens


def _logical(text: str) -> Iterator[tuple[int, int, str]]:
    """First and last line and text of each statement: a backslash or an open brace joins lines."""
    begun, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _without_comment(raw).strip()
        begun = begun or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined = f"{joined} {line}".strip()
        is_anchor = joined.startswith("anchor") and joined.endswith("{")
        if joined.count("{") > joined.count("}") and not is_anchor:
            continue
        yield begun, number, joined
        begun, joined = 0, ""
    if joined:
        yield begun, len(text.splitlines()), joined


def _without_comment(line: str) -> str:
    quoted = False
    for place, character in enumerate(line):
        quoted ^= character == '"'
        if character == "#" and not quoted:
            return line[:place]
    return line


def _expanded(line: str, macros: Mapping[str, str]) -> str:
    return re.sub(r"\$([A-Za-z]\w*)", lambda m: macros.get(m[1], m[0]), line)


def needs_loopback(policy: Policy) -> bool:
    """Whether packets are turned round, for which pf must look at lo0 and lo1."""
    return policy.route == "tor" or bool(policy.users)


def _skipped(statement: Statement) -> tuple[str, ...]:
    """The interfaces and groups of `set skip on`."""
    found = re.match(r"set\s+skip\s+on\s+(.*)$", statement.text)
    return tuple(re.findall(r"[\w.]+", found[1])) if found else ()


def problems(
    listed: tuple[Statement, ...],
    policy: Policy,
    dialect: Dialect,
    groups: Mapping[str, frozenset[str]],
) -> Iterator[str]:
    """What would defeat our rules, each with file and line.

    Args:
        listed: of the machine's pf.conf.
        policy: that is to be put in force.
        dialect: of this pf.
        groups: of each interface.

    """
    judged = {lan.interface for lan in policy.lans}
    if needs_loopback(policy):
        judged |= {name for name in groups if name not in _LOOPBACK}
    for statement in listed:
        for word in _skipped(statement):
            hit = sorted(n for n in judged if n == word or word in groups.get(n, ()))
            if hit:
                yield (
                    f"{statement.place}: `set skip on {word}` takes {', '.join(hit)} out of pf's "
                    "sight, so that nothing there would be held; remove it"
                )
        if needs_loopback(policy) and _skips_loopback_elsewhere(statement, listed):
            yield (
                f"{statement.place}: `{statement.text}` is in an included file, which is not "
                "changed; put it into pf.conf, or remove it"
            )
        if needs_loopback(policy) and re.match(
            r"set\s+state-policy\s+if-bound|set\s+state-defaults\s.*if-bound", statement.text
        ):
            yield (
                f"{statement.place}: with states bound to interfaces nothing reaches tor, whose "
                "answers come back over another one; remove it"
            )
        if statement.word == "include" and dialect.translates_first:
            yield from _unsafe_include(statement, listed)
    yield from _before_hook(listed, dialect)


def _skips_loopback_elsewhere(statement: Statement, listed: tuple[Statement, ...]) -> bool:
    # the first statement is of pf.conf itself, be it an `include`
    return bool(_LOOPBACK & set(_skipped(statement))) and statement.file != listed[0].file


def _unsafe_include(include: Statement, listed: tuple[Statement, ...]) -> Iterator[str]:
    found = re.match(r'include\s+"?([^"\s]+)"?', include.text)
    inside = [s for s in listed if found and s.file == found[1]]
    kinds = {s.is_filter for s in inside if s.is_filter or s.is_translation}
    if kinds == {True, False}:
        yield (
            f"{include.place}: {include.text} has translation and filter rules, and the anchor "
            "belongs between them; put them into pf.conf, or into two files"
        )


def _before_hook(listed: tuple[Statement, ...], dialect: Dialect) -> Iterator[str]:
    """Rules before a hook that somebody has put elsewhere; ours would come first."""
    sections = [("anchor", [s for s in listed if s.is_filter])]
    if dialect.translates_first:
        sections.append(("rdr-anchor", [s for s in listed if s.is_translation]))
    for name, rules in sections:
        place = next((n for n, s in enumerate(rules) if s.is_hook and s.word == name), 0)
        for rule in rules[:place]:
            decides = name == "rdr-anchor" or re.search(r"\bquick\b", rule.text) or rule.depth
            if decides or rule.word in ("anchor", "match"):
                yield (
                    f'{rule.place}: `{rule.text}` is asked before {name} "{ANCHOR}" '
                    f"({rules[place].place}) and would decide instead; put the anchor first"
                )


def hooked(text: str, file: str, policy: Policy, dialect: Dialect, block: Path) -> str:
    """The text with our anchor before every other rule, and with loopback in pf's sight.

    Args:
        text: of pf.conf; once more changed, it stays the same.
        file: its name.
        policy: that is to be put in force.
        dialect: of this pf.
        block: the file that is loaded into the anchor with it.

    """
    plain = unhooked(text)
    listed = statements(plain, file)
    lines = plain.splitlines()
    inserted: dict[int, list[str]] = {}
    load = f'load anchor "{ANCHOR}" from "{block}"\t{MARK}'
    if dialect.translates_first and not _has(listed, "rdr-anchor"):
        at = _first(listed, file, len(lines), translation=True)
        inserted.setdefault(at, []).append(f'rdr-anchor "{ANCHOR}"\t{MARK}')
    at = _first(listed, file, len(lines), translation=False)
    hook = [] if _has(listed, "anchor") else [f'anchor "{ANCHOR}"\t{MARK}']
    out_of_force = _loopback_skips(listed, file) if needs_loopback(policy) else {}
    # what the machine's own rules were not asked about they are not asked about now
    skipped = [f"pass quick on lo0 no state\t{MARK}"] if out_of_force else []
    inserted.setdefault(at, []).extend([*hook, load, *skipped])
    result: list[str] = []
    for number in range(1, len(lines) + 2):
        result += inserted.get(number, [])
        if number > len(lines):
            break
        if number in out_of_force:
            result.append(f"{DISABLED}{lines[number - 1]}")
            result += [f"{rest}\t{MARK}" for rest in out_of_force[number] if rest]
        else:
            result.append(lines[number - 1])
    return "\n".join(result) + "\n"


def unhooked(text: str) -> str:
    """The text without what `hooked` has changed in it; others may have edited it since."""
    lines = []
    for line in text.splitlines(keepends=True):
        if line.rstrip("\n").endswith(f"\t{MARK}"):
            continue
        lines.append(line.removeprefix(DISABLED))
    return "".join(lines)


def _has(listed: tuple[Statement, ...], name: str) -> bool:
    return any(s.is_hook and s.word == name for s in listed)


def _first(listed: tuple[Statement, ...], file: str, end: int, *, translation: bool) -> int:
    """The line before which the anchor belongs: that of the first rule, or its `include`."""
    line = end + 1
    outer = end + 1
    for statement in listed:
        if statement.file == file:
            outer = statement.first
        if statement.is_filter or (translation and statement.is_translation):
            line = outer
            break
    return line


def _loopback_skips(listed: tuple[Statement, ...], file: str) -> dict[int, tuple[str, ...]]:
    """Lines of `set skip on` that name loopback, with what is left of the last of them."""
    found: dict[int, tuple[str, ...]] = {}
    for statement in listed:
        names = _skipped(statement)
        if statement.file != file or not _LOOPBACK & set(names):
            continue
        rest = [name for name in names if name not in _LOOPBACK]
        found |= dict.fromkeys(range(statement.first, statement.last + 1), ())
        if rest:
            found[statement.last] = (f"set skip on {{ {' '.join(rest)} }}",)
    return found
