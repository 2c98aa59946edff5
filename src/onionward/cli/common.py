"""What commands have in common: options, the configuration, the seam, who may type them."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onionward.dns.managers import RESOLVERS
from onionward.errors import RefusedError

if TYPE_CHECKING:
    from onionward.config import Config
    from onionward.system import System

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.IntRange):
    """A time; click's own name of it is a programmer's."""

    name = "number of seconds"


class Port(click.IntRange):
    """A port by its number or by its service's name (services(5))."""

    name = "port"

    def __init__(self) -> None:
        super().__init__(1, 65535)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The port's number."""
        import socket

        if isinstance(value, str) and not value.isdecimal():
            try:
                return socket.getservbyname(value)
            except OSError:
                words = "is not a port: give a number from 1 to 65535, or the name of a service"
                self.fail(f"{value!r} {words}", param, ctx)
        return int(super().convert(value, param, ctx))


def config_option(command: F) -> F:
    """`--config FILE`, which may stand before or after the command's name."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(),
        help="Configuration; default /etc/onionward/onionward.toml. "
        "Without any file this host is routed.",
    )(command)


def unused_config_option(command: F) -> F:
    """The same for commands that ask the journal, or files that are named; it is not read."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(),
        help="Not read here.",
    )(command)


def resolver_option(command: F) -> F:
    """`--resolver NAME`."""
    return click.option(
        "--resolver",
        type=click.Choice(["auto", *RESOLVERS]),
        help="Who manages resolv.conf; left out, what the configuration says, or who is found.",
    )(command)


def load(ctx: click.Context, path: str | None) -> Config:
    """The configuration that a command is to read: its own, or the one named before it."""
    from pathlib import Path

    from onionward.config import load as read

    chosen = path or ctx.obj["config"]
    return read(Path(chosen) if chosen else None)


def system_of(ctx: click.Context) -> System:
    """The seam; another one can be put into the context before the command line runs."""
    from onionward.system import System

    system: System = ctx.obj.setdefault("system", System(trace=ctx.obj["verbose"]))
    return system


def bsd_commands() -> ModuleType | None:
    """The commands of a machine with pf, or None on Linux."""
    from onionward.backend.platform import is_bsd

    if not is_bsd():
        return None
    from onionward.bsd import commands

    return commands


def refuse_on_bsd(command: str) -> None:
    """Refuse what there is on Linux only."""
    if bsd_commands() is not None:
        raise RefusedError(
            f"`onionward {command}` is not available on this system; nothing was touched",
            "`onionward status` and `onionward check` say what is wrong",
        )


def require_root(command: str) -> None:
    """Refuse everybody else."""
    if os.geteuid() != 0:
        raise RefusedError(f"`onionward {command}` needs root; nothing was touched", "use sudo")


def require_routed(system: System, command: str) -> None:
    """Refuse on a machine that is not routed; for root, who alone can tell.

    Raises:
        NotRoutedError: it is off, blocked or open, with the exit status of `status`.

    """
    from onionward import status, status_text
    from onionward.errors import NotRoutedError
    from onionward.paths import PATHS

    found = status.gather(system, PATHS)
    if found.state == "routed":
        return
    words = {
        "off": ("the machine is off", "`onionward up` routes it"),
        "blocked": (
            "the machine is blocked" + ("" if found.tor == "running" else ", and tor does not run"),
            "`onionward up` goes on",
        ),
        "open": ("NOT PROTECTED, the rules are gone", "`onionward up` puts them back"),
    }
    how, hint = words[found.state]
    raise NotRoutedError(
        f"`onionward {command}`: {how}; nothing was touched",
        hint,
        status_text.EXIT_STATUS[found.state],
    )


def interrupt_on_signals() -> None:
    """Let a closed terminal or a polite kill undo what was begun, as Ctrl-C does.

    Once: putting back is not to be interrupted again by an impatient user.
    """
    import signal

    # what nohup(1) has ignored stays so
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
