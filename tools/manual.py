"""Write man pages of every command from what `--help` says, and one of the configuration.

    python3 tools/manual.py DIRECTORY

Makes onionward.8, onionward-COMMAND.8 (onionward-lab-up.8 and so on) and onionward.toml.5, whose
text is docs/onionward.toml (man(7), man-pages(7)).
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from onionward import __version__
from onionward.cli import cli

CONFIGURATION = Path(__file__).parents[1] / "docs/onionward.toml"
_LITERAL = "\b"  # what click leaves as it is (click documentation, "Preventing Rewrapping")
_STATUS = "Exit status: "
_FILES = (
    ("/etc/onionward/onionward.toml", "The configuration; see onionward.toml(5)."),
    ("/etc/onionward/boot.nft", "What `onionward enable` has stored for the boot."),
    (
        "/var/lib/onionward",
        "The journal of what has to be undone, the configuration in force, tor's data.",
    ),
    (
        "/run/onionward",
        "Lock, torrc, sockets and log of tor, rules in force; removed by `onionward down`.",
    ),
)
_OTHERS = ("tor(1)", "nft(8)", "systemd(1)", "tcpdump(8)")


def pages() -> Iterator[tuple[str, str]]:
    """Names of the files with their texts."""
    context = click.Context(cli, info_name="onionward", **cli.context_settings)
    found = list(_walk(context))
    paths = [path for path, _ in found]
    for path, of_command in found:
        yield f"{_page(path)}.8", _command_page(path, of_command, paths)
    yield "onionward.toml.5", _configuration_page(CONFIGURATION.read_text())


def _page(path: str) -> str:
    """The name of a command's page; the words of the command may have hyphens, too."""
    return path.replace(" ", "-")


def _walk(context: click.Context) -> Iterator[tuple[str, click.Context]]:
    yield context.command_path, context
    command = context.command
    # click 8.1 and 8.2 differ in what a group is called
    for name in getattr(command, "list_commands", lambda _: ())(context):
        below = command.get_command(context, name)  # type: ignore[attr-defined]
        if below is not None and not below.hidden:
            yield from _walk(click.Context(below, info_name=name, parent=context))


def _command_page(path: str, context: click.Context, paths: Sequence[str]) -> str:
    command, name = context.command, _page(path)
    short, *paragraphs = _help(command)
    body = [p for p in paragraphs if not p.startswith(_STATUS)]
    status = [p for p in paragraphs if p.startswith(_STATUS)]
    status = status or [p for p in _help(cli) if p.startswith(_STATUS)]
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        _title(name.upper(), 8),
        ".SH NAME",
        f"{_text(name)} \\- {_text(_one_line(short).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(usage),
        ".SH DESCRIPTION",
        _text(_one_line(short)),
        *(line for paragraph in body for line in _paragraph(paragraph)),
    ]
    options = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
    ]
    lines += _table("OPTIONS", [o for o in options if o])
    lines += _table("COMMANDS", list(_below(path, context, paths)))
    lines += [".SH EXIT STATUS", *(_text(_status(p)) for p in status)]
    if context.parent is None:
        lines += _table("FILES", _FILES)
    parent = path.rpartition(" ")[0]
    near = [f"{_page(p)}(8)" for p in paths if p == parent or p.rpartition(" ")[0] == parent]
    others = [*near, "onionward.toml(5)", *_OTHERS]
    shown = [_text(other) for other in others if other != f"{name}(8)"]
    return "\n".join([*lines, ".SH SEE ALSO", ",\n".join(shown)]) + "\n"


def _help(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").split("\n\n")


def _below(path: str, context: click.Context, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    command = context.command
    for below in paths:
        if below.rpartition(" ")[0] == path:
            word = below.rpartition(" ")[2]
            found = command.get_command(context, word)  # type: ignore[attr-defined]
            yield f"{_page(below)}(8)", found.get_short_help_str(limit=200)


def _configuration_page(text: str) -> str:
    return "\n".join(
        [
            _title("ONIONWARD.TOML", 5),
            ".SH NAME",
            "onionward.toml \\- what onionward routes through Tor",
            ".SH DESCRIPTION",
            _text(
                "/etc/onionward/onionward.toml is read by onionward(8); another file can be named "
                "with --config. It is TOML (https://toml.io). This is the file as it is installed:"
            ),
            ".PP",
            ".nf",
            *(_text(line, emphasis=False) for line in text.splitlines()),
            ".fi",
            ".SH SEE ALSO",
            "onionward(8), onionward\\-check(8)",
            "",
        ]
    )


def _title(name: str, section: int) -> str:
    built = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(built))
    return f'.TH {_text(name)} {section} {date} "onionward {__version__}" "System Administration"'


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f".SH {title}"] if rows else []
    for term, words in rows:
        lines += [".TP", f".B {_text(term)}", _text(_one_line(words))]
    return lines


def _paragraph(text: str) -> list[str]:
    first, _, rest = text.strip("\n").partition("\n")
    if first.strip() == _LITERAL:
        return [".PP", ".nf", *(_text(line) for line in rest.splitlines()), ".fi"]
    return [".PP", _text(_one_line(text))]


def _status(paragraph: str) -> str:
    words = _one_line(paragraph).removeprefix(_STATUS)
    return words[0].upper() + words[1:]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(words: str, *, emphasis: bool = True) -> str:
    """As roff reads it: nothing is a request, a hyphen is one, `names` are bold (groff_char(7))."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    escaped = escaped.replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    if emphasis:
        escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


def main(directory: str) -> None:
    """Write all pages into a directory, which is made."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (place / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    main(sys.argv[1])
