"""Runs the blocks of a document one after the other, as somebody who follows it would.

What has to be different in the lab is in one table, of docs/README.md, which is read from there.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.documents.likeness import difference
from tests.documents.markdown import Block, Command, Document, read

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
INDEX = "docs/README.md"
DEBIAN = "Debian"
"""Where blocks are run by a booted machine, not by the lab."""
ELSEWHERE = frozenset({"tested by", "not run"})
"""Markers of blocks that nobody runs who follows a document."""
_ROW = re.compile(r"^\| `(?P<shown>[^`]+)` \| `(?P<real>[^`]+)` \|")
_NETWORK = 'network = "/run/onionward-lab/network.torrc"\n'
_ONION = re.compile(r"\b[a-z2-7]{56}\.onion\b")
_TRIES = 4


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, and what it wrote to both outputs."""

    status: int
    output: str

    @classmethod
    def of(
        cls,
        argv: Sequence[str],
        patience: float,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end, for so many seconds at most."""
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
            cwd=cwd,
            env=env,
        )
        return cls(done.returncode, done.stdout)


class Place(Protocol):
    """Machines on which commands are typed."""

    def execute(self, machine: str, user: str | None, words: str) -> Ended:
        """Run words of a shell to their end; `user` is None for root."""
        ...

    @contextmanager
    def going_on(self, machine: str, user: str | None, words: str) -> Iterator[None]:
        """Run words of a shell while something else goes on, and end them."""
        ...

    def files(self, machine: str) -> Path:
        """The root of a machine's files, as seen from here."""
        ...


def documents() -> tuple[Document, ...]:
    """The README and all of docs."""
    return tuple(read(path, PROJECT) for path in DOCUMENTS)


def substitutions(index: Document) -> Mapping[str, str]:
    """What stands in documents, and what is used in its place, from the index's table."""
    rows = (_ROW.match(line) for line in index.prose)
    return {row["shown"]: row["real"] for row in rows if row}


def followed(document: Document) -> tuple[Block, ...]:
    """The blocks that somebody follows who follows a document."""
    return tuple(
        block
        for block in document.blocks
        if not ELSEWHERE & set(block.markers)
        and ({"file", "output of"} & set(block.markers) or block.language in {"console", "toml"})
    )


def blocks(*, debian: bool) -> dict[str, list[Block]]:
    """What is followed of each document: on a booted Debian, or in the lab."""
    wanted = {
        document.name: [block for block in followed(document) if (block.on == DEBIAN) == debian]
        for document in documents()
    }
    return {name: found for name, found in sorted(wanted.items()) if found}


class Session:
    """A document that is followed.

    Args:
        place: where.
        default: the machine on which commands are typed if nothing else is said.
        table: what is replaced.
        onion: the onion service that stands for every other.

    """

    def __init__(self, place: Place, default: str, table: Mapping[str, str], onion: str) -> None:
        self._place = place
        self._default = default
        self._table = table
        self._onion = onion
        self._status = 0
        self.ran = 0

    def follow(self, blocks: Iterable[Block]) -> None:
        """Run blocks; the first thing that is not as it is shown ends it.

        Raises:
            AssertionError: with the command's file and line.

        """
        for block in blocks:
            if "output of" in block.markers:
                shown = Command(block.line, "", True, block.markers["output of"], "", block.lines)
                self._run(shown, block, may_fail=False)
            elif "file" in block.markers:
                self._write(block)
            elif block.language == "toml":
                self._check(block)
            elif block.language == "console":
                self._type(block.commands(), block)

    def _type(self, commands: Sequence[Command], block: Block) -> None:
        if not commands:
            return
        command, *rest = commands
        if command.goes_on:
            machine, user = self._who(command, block)
            self.ran += 1
            with self._place.going_on(machine, user, self._replaced(command.words)):
                self._type(rest, block)
            return
        may_fail = bool(rest) and rest[0].words == "echo $?"
        self._run(command, block, may_fail=may_fail)
        self._type(rest, block)

    def _run(self, command: Command, block: Block, *, may_fail: bool) -> None:
        machine, user = self._who(command, block)
        words = self._replaced(command.words)
        place = f"{block.document}:{command.line}: {command.words}"
        if words == "echo $?":
            ended = Ended(0, f"{self._status}\n")
        else:
            ended = self._place.execute(machine, user, words)
            for _ in range(_TRIES - 1):
                # a circuit may break, and the guard tells of attempts once a second: this is about
                # the document
                broken = ended.status and not may_fail and re.search(r"\b(curl|wget)\b", words)
                early = words == "onionward status" and self._unlike(command, ended)
                if not broken and not early:
                    break
                time.sleep(0.5)
                ended = self._place.execute(machine, user, words)
        self.ran += 1
        self._status = ended.status
        assert may_fail or not ended.status, f"{place}: status {ended.status}\n{ended.output}"
        if words == "echo $?":
            assert [x.strip() for x in command.output if x.strip()] == [ended.output.strip()], (
                f"{place}: it is {ended.output}"
            )
        else:
            unlike = self._unlike(command, ended)
            assert not unlike, f"{place}: its output is another one\n{unlike}"

    def _unlike(self, command: Command, ended: Ended) -> str:
        shown = [self._replaced(line) for line in command.output]
        return difference(shown, ended.output.splitlines()) if shown else ""

    def _who(self, command: Command, block: Block) -> tuple[str, str | None]:
        standing = block.on or self._default
        if command.where:
            if self._place.files(command.where).exists():
                return command.where, None
            return standing, command.where
        return standing, None if command.is_root else "alice"

    def _replaced(self, words: str) -> str:
        for shown, real in self._table.items():
            words = words.replace(shown, real)
        return _ONION.sub(self._onion, words)

    def _write(self, block: Block) -> None:
        machine = block.on or self._default
        inside = Path("/run/documents") / block.markers["file"]
        path = self._place.files(machine) / str(inside).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._replaced(block.text)
        path.write_text(in_the_lab(text) if block.language == "toml" else text)

    def _check(self, block: Block) -> None:
        """A part of a configuration is read, and held against the machine."""
        self._write(
            Block(
                block.document,
                block.line,
                block.language,
                block.lines,
                {"file": f"part-{block.line}.toml"},
                block.on,
            )
        )
        words = f"onionward check --config part-{block.line}.toml"
        ended = self._place.execute(block.on or self._default, None, words)
        assert not ended.status, f"{block.place}: {ended.output}"
        self.ran += 1


def in_the_lab(config: str) -> str:
    """A configuration with the lab's Tor network, if it names none."""
    if re.search(r"^network = ", config, re.MULTILINE):
        return config
    if re.search(r"^\[tor\]", config, re.MULTILINE):
        return re.sub(r"^\[tor\].*\n", lambda found: found[0] + _NETWORK, config, flags=re.M)
    return f"{config}\n[tor]\n{_NETWORK}"
