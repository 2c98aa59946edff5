"""What vectors change of the machine they run on, and how it is put back."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def owned_by(account: str) -> Iterator[None]:
    """Open sockets in that account's name while keeping root's rights.

    This is what a program with file capabilities, or one that was passed a socket, looks like to
    the packet filter.
    """
    # needed for socket addresses, and loaded from where the account may not be able to read
    codecs.lookup("idna")
    before = _LIBC.setfsuid(pwd.getpwnam(account).pw_uid)
    try:
        yield
    finally:
        _LIBC.setfsuid(before)


def run(*argv: str, stdin: str = "") -> str:
    """Run a tool of the system; the attempt fails as broken when it does."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def ip_batch(*lines: str) -> None:
    """Run several `ip` commands."""
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


_BUSY_SECONDS = 5.0


@contextlib.contextmanager
def device(name: str, *lines: str) -> Iterator[None]:
    """Create a device with these `ip` commands; it is deleted afterwards.

    A macvlan goes some time after the namespace it was in, and keeps its parent busy until then.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            ip_batch(*lines)
            break
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError):
                run("ip", "link", "delete", name)
            if "resource busy" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
    try:
        yield
    finally:
        # the other end of a veth may have gone with its namespace, and this one with it
        with contextlib.suppress(RuntimeError):
            run("ip", "link", "delete", name)


@contextlib.contextmanager
def sysctl(name: str, value: str) -> Iterator[None]:
    """Set a kernel parameter of this network namespace; it is put back afterwards."""
    path = Path("/proc/sys") / name
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


@contextlib.contextmanager
def foreign_table(family: str, name: str, rules: str) -> Iterator[None]:
    """Load somebody else's nftables table; it is deleted afterwards."""
    run("nft", "-f", "-", stdin=f"table {family} {name} {{\n{rules}\n}}\n")
    try:
        yield
    finally:
        run("nft", "delete", "table", family, name)


def new_network() -> None:
    """Give the calling process a network namespace of its own."""
    _unshare(0x40000000)


def new_user_namespace() -> None:
    """Give the calling process a user namespace of its own, in which it may do everything."""
    _unshare(0x10000000)


def _unshare(what: int) -> None:
    if _LIBC.unshare(what):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
