"""Our tables in files of others: who saves the live rules while we are on saves ours with them.

Loaded at boot, such a file fails as a whole, because what our rules name (a control group, an
interface) is not there yet, and leaves the user's own firewall unloaded; or it succeeds, and blocks
a machine that nothing routes. So our tables are named while they are in such a file, and `down`
takes them out.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from onionward.system import System
from onionward.tables import OURS

PLACES = (
    "etc/nftables.conf",  # Debian, Arch
    "etc/nftables.nft",  # Alpine
    "etc/nftables.rules",
    "etc/nftables",  # Fedora, openSUSE
    "etc/nftables.d",
    "etc/sysconfig/nftables.conf",
    "etc/iptables",  # netfilter-persistent, also with a plug-in that saves nft's tables
    "var/lib/nftables",  # Gentoo
)
"""Files, and directories of files, that services load at boot."""
_INCLUDE = re.compile(rb'^[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
_INCLUDED_FROM = "etc"
_LARGEST = 64 << 20  # bytes of a file that is looked into
_PARTS = r"""
    (?P<comment>\#[^\n]*)
    |(?P<quoted>"[^"\n]*")
    |(?P<table>(?<![^\s;{}])(?:(?:add|create)[ \t]+)?table\s+
        (?:(?P<family>\w+)\s+)?(?P<name>[\w/\\.-]+)\s*
        (?P<open>\{))
    |(?P<brace>[{}])
    """


class Outcome(NamedTuple):
    """What became of one such file.

    Attributes:
        words: for people.
        done: whether our tables are out of it.

    """

    words: str
    done: bool


def without_ours(text: str) -> str:
    """A ruleset (nft(8)) without our tables; all else is as it was, to the byte.

    A table of ours that does not end is left alone: nobody knows what else is in it.
    """
    kept = []
    at = 0
    for start, end in _tables(text):
        kept.append(text[at:start])
        at = end
    return "".join([*kept, text[at:]])


def _tables(text: str) -> Iterator[tuple[int, int]]:
    """Where our tables are, with the rest of the lines that they alone are on."""
    depth = 0
    begun: int | None = None
    for token in re.finditer(_PARTS, text, re.VERBOSE):
        if token["table"]:
            if depth == 0 and (token["family"] or "ip", token["name"]) in OURS:
                begun = token.start()
            depth += 1
        elif token["brace"] == "{":
            depth += 1
        elif token["brace"] == "}":
            depth -= 1
            if depth == 0 and begun is not None:
                yield _whole_lines(text, begun, token.end())
                begun = None


def _whole_lines(text: str, start: int, end: int) -> tuple[int, int]:
    first = text.rfind("\n", 0, start) + 1
    rest = re.compile(r"[ \t]*;?[ \t]*(?:\r?\n|\Z)").match(text, end)
    if rest is None or text[first:start].strip():
        return start, end
    return first, rest.end()


def holding_ours(root: Path = Path("/")) -> tuple[Path, ...]:
    """Files that services load at boot, or that those include, and that have tables of ours."""
    found: dict[Path, bool] = {}
    waiting = [path for place in PLACES for path in _files(root / place)]
    while waiting:
        path = waiting.pop(0).resolve()
        if path in found:
            continue
        raw = _bytes(path)
        found[path] = _holds_ours(raw)
        waiting += _included(raw, root)
    return tuple(path for path, holds in found.items() if holds)


def _files(place: Path) -> Iterable[Path]:
    if not place.is_dir():
        return (place,) if place.is_file() else ()
    with contextlib.suppress(OSError):
        return sorted(path for path in place.rglob("*") if path.is_file())
    return ()


def _included(raw: bytes, root: Path) -> Iterator[Path]:
    """What nft reads besides, a file or all that match; relative to /etc (nft(8))."""
    import glob

    for name in re.findall(_INCLUDE, raw):
        place = (root / _INCLUDED_FROM / os.fsdecode(name)).as_posix()
        if name.startswith(b"/"):
            place = (root / os.fsdecode(name).lstrip("/")).as_posix()
        yield from (path for path in map(Path, sorted(glob.glob(place))) if path.is_file())  # noqa: PTH207


def _bytes(path: Path) -> bytes:
    """What is in a file that can be looked into, else b""."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def _holds_ours(raw: bytes) -> bool:
    # nearly every file is done with here
    if b"onionward" not in raw:
        return False
    text = _decoded(raw)
    return without_ours(text) != text


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def take_out(system: System, root: Path = Path("/")) -> tuple[Outcome, ...]:
    """Take our tables out of such files; mode, owner and attributes stay, and all other text."""
    found = []
    for path in holding_ours(root):
        try:
            _rewrite(system, path)
        except OSError as error:
            words = (
                f"{path} has tables of onionward, which could not be taken out ({error}): take "
                "them out by hand, or the next boot may load none of that file"
            )
            found.append(Outcome(words, done=False))
        else:
            words = (
                f"{path} had tables of onionward saved in it: taken out, all else is kept; if the "
                f"last boot could not load it, load it when onionward is off: nft -f {path}"
            )
            found.append(Outcome(words, done=True))
    return tuple(found)


def _rewrite(system: System, path: Path) -> None:
    text = _decoded(_bytes(path))
    if not text:
        return
    status = path.stat()
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    system.write_file(path, without_ours(text), mode=mode, owner=owner)
    for name, value in attributes.items():
        if name not in os.listxattr(path) or os.getxattr(path, name) != value:
            system.set_attribute(path, name, value)


def problems(root: Path = Path("/")) -> tuple[str, ...]:
    """For `status`: such files while they are there."""
    return tuple(
        f"{path} has tables of onionward saved in it: at boot none of it may be loaded, your own "
        "rules included; `onionward doctor --repair` takes them out, and so does `onionward down`"
        for path in holding_ours(root)
    )
