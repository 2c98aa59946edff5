"""A small process between an account and tor's control port: passes what `control_rules` allows.

    account ──► /run/onionward/control/NAME ──► this process ──► tor's control socket
                (the account's, mode 0600)      (tor's account)

One process serves every account that the configuration allows it. There is no TCP port: every
account could connect to one on loopback, and programs that speak to tor know Unix sockets.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onionward import background
from onionward.errors import CommandError, TorError
from onionward.paths import PATHS, Paths
from onionward.system import System
from onionward.tor import control_rules

if TYPE_CHECKING:
    import asyncio
    import socket

    from onionward.facts import Account

_MODULE = "onionward.tor.control_filter"
_MOST_CLIENTS = 8  # of one account
_PATIENCE = 10.0  # seconds for tor to answer, and for an account to read what it gets
_START_PATIENCE = 20.0
_END_PATIENCE = 5.0


def directory(paths: Paths = PATHS) -> Path:
    """Where the sockets are; it can be searched and not listed."""
    return paths.runtime / "control"


def socket_of(name: str, paths: Paths = PATHS) -> Path:
    """Where the account of this name connects to."""
    return directory(paths) / name


def command(paths: Paths, account: Account, users: Sequence[Account]) -> list[str]:
    """The command line of the process; its start is what it is recognised by."""
    served = [f"{user.name}:{user.uid}:{user.gid}" for user in users]
    return [*_beginning(paths), f"{account.uid}:{account.gid}", *served]


def _beginning(paths: Paths) -> list[str]:
    return background.command(_MODULE, str(paths.runtime))


def is_own(pid: int, paths: Paths = PATHS) -> bool:
    """Whether a process is the filter of these paths, run as root or as the owner of tor's data."""
    return background.is_one(pid, _beginning(paths), _trusted(paths))


def _trusted(paths: Paths) -> tuple[int, ...]:
    try:
        return (0, paths.tor_data.stat().st_uid)
    except FileNotFoundError:
        return (0,)


def running(paths: Paths = PATHS) -> tuple[int, ...]:
    """Process ids of the filter."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return tuple(sorted(pid for pid in pids if is_own(pid, paths)))


def start(system: System, paths: Paths, account: Account, users: Sequence[Account]) -> None:
    """Start the filter; returns when every account can connect.

    One that is running already is ended first. Without accounts none is started.

    Args:
        system: the seam.
        paths: where tor's sockets and ours are.
        account: what tor and the filter run as.
        users: who may connect, each to a socket of its own.

    Raises:
        TorError: it did not start; with its words.

    """
    stop(system, paths)
    if not users:
        return
    system.make_directory(directory(paths), mode=0o711)
    try:
        system.change(command(paths, account, users), timeout=_START_PATIENCE)
    except CommandError as error:
        raise TorError(
            f"the filter of tor's control port did not start: {error.stderr.strip()}",
            "leave out `control = true` to do without it",
        ) from error


def stop(system: System, paths: Paths) -> None:
    """End the filter and remove its sockets; nothing happens when there is none.

    Raises:
        TorError: it does not end.

    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in running(paths):
            system.kill(pid, number)
        deadline = time.monotonic() + _END_PATIENCE
        while (left := running(paths)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not left:
            break
    else:
        raise TorError(f"the filter of tor's control port does not end: process {left[0]}")
    system.remove_tree(directory(paths))


class _Client:
    """One connection of an account, with a connection to tor of its own."""

    def __init__(
        self,
        paths: Paths,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._paths = paths
        self._reader = reader
        self._writer = writer

    async def serve(self) -> None:
        """Pass commands one by one until either end goes away."""
        import asyncio

        try:
            async with asyncio.timeout(_PATIENCE):
                tor_reader, tor_writer = await self._connect()
        except (OSError, TimeoutError, ValueError):
            # an answer wants a question: one that is unread would reset the connection
            async with asyncio.timeout(_PATIENCE):
                await self._reader.readline()
            await self._send("551 Tor does not answer")
            return
        answered = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear(tor_reader, answered))
                try:
                    await self._obey(tor_writer, answered, hearing)
                finally:
                    hearing.cancel()
        except* (OSError, TimeoutError, ValueError):
            pass  # a line too long, a client that does not read, a tor that is gone: all end here
        finally:
            tor_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        import asyncio

        reader, writer = await asyncio.open_unix_connection(
            str(self._paths.control_socket), limit=4 * control_rules.LONGEST_LINE
        )
        # tor makes another cookie whenever it starts
        cookie = self._paths.control_cookie.read_bytes()
        writer.write(f"AUTHENTICATE {cookie.hex()}\r\n".encode())
        if not (await reader.readline()).startswith(b"250 "):
            writer.close()
            raise ConnectionRefusedError("tor does not accept its own cookie")
        return reader, writer

    async def _obey(
        self, tor: asyncio.StreamWriter, answered: asyncio.Event, hearing: asyncio.Task[None]
    ) -> None:
        import asyncio

        skips = False
        while not hearing.done():
            reading = asyncio.ensure_future(self._reader.readline())
            try:
                await asyncio.wait({reading, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
            if reading.cancelling():
                return
            raw = reading.result()
            if not raw.endswith(b"\n"):
                return
            line = raw.rstrip(b"\r\n").decode("latin-1")
            if skips:
                skips = line != "."
                continue
            verdict = control_rules.judge(line)
            skips = verdict.skips_data
            for answer in verdict.answer:
                await self._send(answer)
            if verdict.ends:
                return
            if verdict.forward:
                answered.clear()
                tor.write(f"{verdict.forward}\r\n".encode())
                async with asyncio.timeout(_PATIENCE):
                    await answered.wait()

    async def _hear(self, tor: asyncio.StreamReader, answered: asyncio.Event) -> None:
        while (raw := await tor.readline()).endswith(b"\n"):
            line = raw.rstrip(b"\r\n").decode("latin-1")
            if (words := control_rules.passed(line)) is not None:
                await self._send(words)
            if control_rules.is_last(line) and not control_rules.is_event(line):
                answered.set()
        raise ConnectionResetError("tor is gone")

    async def _send(self, line: str) -> None:
        import asyncio

        self._writer.write(f"{line}\r\n".encode("latin-1"))
        async with asyncio.timeout(_PATIENCE):
            await self._writer.drain()


async def serve(paths: Paths, listeners: Sequence[tuple[int, socket.socket]]) -> None:
    """Serve accounts until cancelled.

    Args:
        paths: where tor's socket and cookie are.
        listeners: what `listen` returned.

    """
    import asyncio

    async def accept(
        uid: int, open_now: set[object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if _peer(writer) in (0, uid) and len(open_now) < _MOST_CLIENTS:
                open_now.add(writer)
                await _Client(paths, reader, writer).serve()
        except (OSError, TimeoutError, ValueError):
            pass  # it went away, or says what is no command
        finally:
            open_now.discard(writer)
            writer.close()

    def handler(uid: int) -> object:
        open_now: set[object] = set()
        return lambda reader, writer: accept(uid, open_now, reader, writer)

    for uid, listener in listeners:
        await asyncio.start_unix_server(
            handler(uid),  # type: ignore[arg-type]
            sock=listener,
            limit=control_rules.LONGEST_LINE,
        )
    await asyncio.Event().wait()


def _peer(writer: asyncio.StreamWriter) -> int:
    """The account at the other end (unix(7), SO_PEERCRED)."""
    import socket
    import struct

    raw = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return int(struct.unpack("3i", raw)[1])


def listen(paths: Paths, served: Sequence[str]) -> list[tuple[int, socket.socket]]:
    """Open a socket for each "name:uid:gid"; nobody else may connect to it."""
    import socket

    listeners = []
    for entry in served:
        name, uid, gid = entry.rsplit(":", 2)
        path = socket_of(name, paths)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        os.chown(path, int(uid), int(gid))
        listener.listen(_MOST_CLIENTS)
        listeners.append((int(uid), listener))
    return listeners


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main(arguments: Sequence[str]) -> None:
    """Listen, go to the background, and serve until SIGTERM.

    Args:
        arguments: directory of the runtime files, "uid:gid" of tor's account, and for each account
            that is served "name:uid:gid".

    """
    # all of it now: tor's account may not be able to read where Python is
    import asyncio
    import socket  # noqa: F401
    import struct  # noqa: F401

    runtime, tor_account, *served = arguments
    paths = Paths(runtime=Path(runtime))
    listeners = listen(paths, served)
    uid, gid = map(int, tor_account.split(":"))
    _become(uid, gid)
    if os.fork() > 0:
        os._exit(0)  # the sockets listen: whoever connects from now on is served
    background.leave_terminal()
    asyncio.run(serve(paths, listeners))
