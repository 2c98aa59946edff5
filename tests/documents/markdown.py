"""Blocks of code, markers, headings and links of a Markdown document, each with its line; pure.

A marker is a comment that stands alone on its line; it holds for the next block:

    <!-- on: gateway -->             where the block's commands are typed; "on all" is for every
                                     block that follows
    <!-- file: /etc/name -->         the block is this file, written before what follows
    <!-- output of: COMMAND -->      the block is what the command prints
    <!-- tested by: TEST; REASON --> another test runs it, because of the reason
    <!-- not run: REASON -->         nobody can run it here

A console block has commands behind prompts and what they print below. The prompt is `#` for root
and `$` for anybody else, with the name of a machine or an account before it where that is not the
one of the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^```(?P<language>\S*)\s*$")
_MARKER = re.compile(r"^<!-- (?P<kind>[a-z ]+): (?P<words>.+?) -->$")
_PROMPT = re.compile(r"^(?P<where>[a-z][a-z0-9]*)?(?P<kind>[#$]) (?P<command>\S.*)$")
_REMARK = re.compile(r"\s{2,}# (?P<words>.*)$")
_HEADING = re.compile(r"^#{1,6} (?P<words>.+?)\s*$")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_KINDS = {"on", "on all", "file", "output of", "tested by", "not run"}
ELSEWHERE = "another terminal"


@dataclass(frozen=True)
class Command:
    """A command of a console block.

    Args:
        line: its line in the document.
        where: a machine or an account, or empty for that of the block.
        is_root: whether root types it.
        words: as it is typed.
        remark: the comment behind it.
        output: lines shown below it; empty: not shown.

    """

    line: int
    where: str
    is_root: bool
    words: str
    remark: str = ""
    output: tuple[str, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it runs on in another terminal while the rest of the block is typed."""
        return ELSEWHERE in self.remark


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        document: name of the file.
        line: line of the opening fence.
        language: what stands behind it.
        lines: what is in it.
        markers: by kind.
        on: where its commands are typed.

    """

    document: str
    line: int
    language: str
    lines: tuple[str, ...]
    markers: dict[str, str] = field(default_factory=dict)
    on: str = ""

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.document}:{self.line}"

    @property
    def text(self) -> str:
        """What is in it, as a file."""
        return "".join(f"{line}\n" for line in self.lines)

    def commands(self) -> tuple[Command, ...]:
        """The commands of a console block.

        Raises:
            ValueError: it begins with something else than a prompt.

        """
        return tuple(_commands(self))


@dataclass(frozen=True)
class Document:
    """A document.

    Args:
        name: of the file, relative to the project.
        blocks: of code.
        anchors: of headings, as GitHub makes them.
        links: targets, with their lines.
        prose: all lines outside of blocks.

    """

    name: str
    blocks: tuple[Block, ...]
    anchors: frozenset[str]
    links: tuple[tuple[int, str], ...]
    prose: tuple[str, ...]


def read(path: Path, project: Path) -> Document:
    """Read a document from its file."""
    return parse(path.read_text(), str(path.relative_to(project)))


def parse(text: str, name: str) -> Document:
    """Read a document.

    Raises:
        ValueError: a block that does not end, or a marker that is none or holds for no block; with
            file and line.

    """
    blocks: list[Block] = []
    prose: list[str] = []
    links: list[tuple[int, str]] = []
    anchors: dict[str, int] = {}
    markers: dict[str, str] = {}
    standing = ""
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        place = f"{name}:{number}"
        if marker := _MARKER.match(line):
            kind, words = marker["kind"], marker["words"]
            if kind not in _KINDS:
                raise ValueError(f"{place}: no such marker: {kind}")
            if kind == "on all":
                standing = words
            else:
                markers[kind] = words
        elif fence := _FENCE.match(line):
            inside = tuple(_until_fence(lines, place))
            on = markers.pop("on", standing)
            blocks.append(Block(name, number, fence["language"], inside, markers, on))
            markers = {}
        else:
            if markers and line.strip():
                raise ValueError(f"{place}: a marker stands before something else than a block")
            prose.append(line)
            links += [(number, link["target"]) for link in _LINK.finditer(line)]
            if heading := _HEADING.match(line):
                anchor = _anchor(heading["words"])
                count = anchors[anchor] = anchors.get(anchor, -1) + 1
                if count:
                    anchors[f"{anchor}-{count}"] = 0
    if markers:
        raise ValueError(f"{name}: a marker at the end holds for no block")
    return Document(name, tuple(blocks), frozenset(anchors), tuple(links), tuple(prose))


def _until_fence(lines: Iterator[tuple[int, str]], place: str) -> Iterator[str]:
    for _, line in lines:
        if line.startswith("```"):
            return
        yield line
    raise ValueError(f"{place}: the block does not end")


def _anchor(words: str) -> str:
    """As GitHub makes them: lower case, no punctuation but hyphens, a hyphen for each space."""
    plain = _LINK.sub(lambda link: link[0][1:].partition("]")[0], words)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def _commands(block: Block) -> Iterator[Command]:
    current: Command | None = None
    output: list[str] = []
    for number, line in enumerate(block.lines, start=block.line + 1):
        prompt = _PROMPT.match(line)
        if current and current.words.endswith("\\"):
            joined = f"{current.words[:-1].rstrip()} {line.strip()}"
            current = Command(current.line, current.where, current.is_root, joined)
        elif prompt:
            if current:
                yield _finished(current, output)
            output = []
            where, is_root = prompt["where"] or "", prompt["kind"] == "#"
            current = Command(number, where, is_root, prompt["command"])
        elif current:
            output.append(line)
        else:
            raise ValueError(f"{block.document}:{number}: no prompt (`#`, `$`, `host#`): {line}")
    if current:
        yield _finished(current, output)


def _finished(command: Command, output: list[str]) -> Command:
    remark = _REMARK.search(command.words)
    return Command(
        command.line,
        command.where,
        command.is_root,
        _REMARK.sub("", command.words),
        remark["words"] if remark else "",
        tuple(output),
    )
