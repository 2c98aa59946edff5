"""Parts of this program that live on by themselves: how they are called, found again and ended."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Container, Sequence
from pathlib import Path

from onionward.errors import StepError
from onionward.system import System
from onionward.tor.process import is_of_this_machine, user_of

_ROOT = str(Path(__file__).resolve().parents[1])
_CODE = (
    "import sys; from importlib import import_module; "
    "sys.path[:0] = sys.argv[1].split(':'); import_module(sys.argv[2]).main(sys.argv[3:])"
)
_PLACES_OF_OTHERS = ("site-packages", "dist-packages")
_END_PATIENCE = 5.0


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a module's `main`, whatever directory and variables it is called with.

    Args:
        module: its name.
        arguments: for `main`; by the first two it is recognised.

    """
    # what was found by PYTHONPATH is to be found again
    others = (p for p in sys.path if p.endswith(_PLACES_OF_OTHERS))
    places = ":".join(dict.fromkeys((_ROOT, *others)))
    return [sys.executable, "-I", "-c", _CODE, places, module, *arguments]


def is_one(pid: int, wanted: Sequence[str], owners: Container[int] | None = None) -> bool:
    """Whether a process was called so: its arguments, which anybody can imitate, and its account.

    Args:
        pid: of the process.
        wanted: its command line, or the beginning of it.
        owners: accounts that it may run as; left out, ours.

    """
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        arguments = raw.rstrip(b"\0").split(b"\0")
        expected = [os.fsencode(argument) for argument in wanted]
        # the Python that started it, and where we are, may be others now
        telling = slice(5, min(8, len(expected)))
        if arguments[1:4] != expected[1:4] or arguments[telling] != expected[telling]:
            return False
        trusted = (os.geteuid(),) if owners is None else owners
        return is_of_this_machine(pid) and user_of(Path(f"/proc/{pid}")) in trusted
    except OSError:
        return False


def running(wanted: Sequence[str]) -> tuple[int, ...]:
    """Process ids of those that were called so; this process is none of them."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return tuple(sorted(pid for pid in pids if pid != os.getpid() and is_one(pid, wanted)))


def leave_terminal() -> None:
    """Go on in a session of its own, with nothing to read from or write to."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def end(system: System, pid: int, words: str) -> None:
    """End a process and wait until all that it held is gone; nothing happens when it is gone.

    Args:
        system: the seam.
        pid: of the process.
        words: what it is, for the error.

    Raises:
        StepError: it does not end.

    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # its memory goes before its sockets do; the descriptor tells when all is gone
        for number, patience in ((signal.SIGTERM, 1.0), (signal.SIGKILL, _END_PATIENCE)):
            system.kill(pid, number)
            if select.select([descriptor], [], [], patience)[0]:
                return
    finally:
        os.close(descriptor)
    raise StepError(f"{words} does not end: process {pid}")
