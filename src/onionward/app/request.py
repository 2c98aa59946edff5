"""What was typed after `onionward run`, as one value."""

from __future__ import annotations

import os
from typing import NamedTuple

from onionward.app import allow
from onionward.errors import RefusedError

USAGE = (
    "usage: onionward run [--name N] [--new-circuits] [--as USER] [--allow WHAT]... "
    "[--config FILE] [--] COMMAND [ARGUMENT]..."
)
_LONGEST_NAME = 64


class Request(NamedTuple):
    """One run.

    Attributes:
        command: program and arguments.
        name: of the circuits, which runs of the same name and account share; "" for circuits of
            its own.
        new_circuits: whether the name gets other circuits from now on.
        account: whom the command runs as; "" for the invoking one.
        allowed: what is let through (`onionward.app.allow`).
        config: the file that tor is configured by if it has to be started; "" for the default.

    """

    command: tuple[str, ...]
    name: str = ""
    new_circuits: bool = False
    account: str = ""
    allowed: frozenset[str] = allow.BY_DEFAULT
    config: str = ""


def parse(arguments: list[str]) -> Request:
    """The request of a command line, what follows `run`.

    Options end with `--` or with the command's name.

    Raises:
        RefusedError: it is none.

    """
    values: dict[str, list[str]] = {"--name": [], "--as": [], "--allow": [], "--config": []}
    new_circuits = False
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        option, equals, value = word.partition("=")
        if word == "--new-circuits":
            new_circuits = True
        elif option not in values:
            raise RefusedError(f"no such option: {word}", USAGE)
        elif equals:
            values[option].append(value)
        elif rest:
            values[option].append(rest.pop(0))
        else:
            raise RefusedError(f"{word} wants a value", USAGE)
    if not rest or not rest[0]:
        raise RefusedError("no command is named", USAGE)
    words = tuple(values["--allow"])
    for word in words:
        if problem := allow.complaint(word):
            raise RefusedError(f"--allow {problem}")
    return Request(
        command=tuple(rest),
        name=_last("--name", values["--name"]),
        new_circuits=new_circuits,
        account=_last("--as", values["--as"]),
        allowed=allow.granted(words),
        config=os.path.abspath(values["--config"][-1]) if values["--config"] else "",  # noqa: PTH100
    )


def _last(option: str, given: list[str]) -> str:
    if not given:
        return ""
    if not given[-1] or len(given[-1]) > _LONGEST_NAME or not given[-1].isprintable():
        raise RefusedError(
            f"{option} {given[-1]!r}: a name has 1 to {_LONGEST_NAME} printable characters"
        )
    return given[-1]
