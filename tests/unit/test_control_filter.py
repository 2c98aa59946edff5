"""The process between an account and tor's control port, against a tor that plays its part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from onionward.errors import CommandError, TorError
from onionward.facts import Account
from onionward.paths import Paths
from onionward.tor import control_filter
from tests.support import ScriptedSystem

TOR = Account("onionward-tor", 947, 946, Path("/"))
BOB = Account("bob", 61002, 61003, Path("/home/bob"))
ANSWERS = {
    "GETINFO version": "250-version=0.4.9\r\n250 OK\r\n",
    "SIGNAL NEWNYM": "250 OK\r\n",
    "SETEVENTS BW": (
        "250 OK\r\n650 STREAM 1 NEW 0 example.com:80\r\n650 BW 1 2\r\n650 WARN example.com\r\n"
        "650 BW 3 4\r\n"
    ),
    "SETEVENTS": "250 OK\r\n",
}


class Tor:
    """The other end of the control socket."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.heard: list[str] = []
        self.clients: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self, cookie: bytes = b"secret") -> None:
        self.paths.tor_runtime.mkdir(exist_ok=True)
        self.paths.control_cookie.write_bytes(cookie)
        self._cookie = cookie.hex()
        self._server = await asyncio.start_unix_server(
            self._serve, path=str(self.paths.control_socket)
        )

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.clients:
            writer.close()
        self.paths.control_socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer)
        while line := (await reader.readline()).decode().removesuffix("\r\n"):
            self.heard.append(line)
            if line.startswith("AUTHENTICATE "):
                right = line == f"AUTHENTICATE {self._cookie}"
                writer.write(b"250 OK\r\n" if right else b"515 Authentication failed\r\n")
            elif line == "SETEVENTS STATUS_CLIENT":
                pass  # never answered
            else:
                writer.write(ANSWERS[line].encode())


class Session:
    """An account at its socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, paths: Paths) -> Session:
        return cls(*await asyncio.open_unix_connection(str(control_filter.socket_of("me", paths))))

    def send(self, text: str) -> None:
        self.writer.write(text.encode("latin-1"))

    async def lines(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            return [(await self.reader.readline()).decode().rstrip("\r\n") for _ in range(count)]

    async def rest(self) -> str:
        async with asyncio.timeout(5):
            return (await self.reader.read()).decode()


Scenario = Callable[[Paths, Tor], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], Tor]:
    """Play a scenario with a filter and a tor."""
    paths = Paths(runtime=tmp_path)
    control_filter.directory(paths).mkdir()
    tor = Tor(paths)

    @asynccontextmanager
    async def filtering() -> AsyncIterator[None]:
        served = control_filter.listen(paths, [f"me:{os.geteuid()}:{os.getegid()}"])
        task = asyncio.create_task(control_filter.serve(paths, served))
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            for _, listener in served:
                listener.close()

    async def play(scenario: Scenario) -> None:
        await tor.start()
        async with filtering():
            await scenario(paths, tor)
        await tor.stop()

    def runner(scenario: Scenario) -> Tor:
        asyncio.run(play(scenario))
        return tor

    return runner


def test_the_socket_is_for_one_account(run: Callable[[Scenario], Tor], tmp_path: Path) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        status = control_filter.socket_of("me", paths).stat()
        assert status.st_mode & 0o7777 == 0o600
        assert status.st_uid == os.geteuid()

    run(scenario)


def test_commands_and_answers_keep_their_order(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send(
            "PROTOCOLINFO 1\r\nAUTHENTICATE\r\nGETINFO version\r\nGETINFO circuit-status\r\n"
            "SIGNAL NEWNYM\r\nSIGNAL HALT\nQUIT\r\nGETINFO version\r\n"
        )
        assert (await session.rest()).split("\r\n") == [
            "250-PROTOCOLINFO 1",
            "250-AUTH METHODS=NULL",
            "250 OK",
            "250 OK",
            "250-version=0.4.9",
            "250 OK",
            "510 Command filtered",
            "250 OK",
            "510 Command filtered",
            "250 closing connection",
            "",
        ]

    tor = run(scenario)
    assert tor.heard == [f"AUTHENTICATE {b'secret'.hex()}", "GETINFO version", "SIGNAL NEWNYM"]


def test_events_of_others_are_not_heard(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send("SETEVENTS BW\r\n")
        assert await session.lines(3) == ["250 OK", "650 BW 1 2", "650 BW 3 4"]

    run(scenario)


def test_data_is_no_command(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send("+LOADCONF\r\nSIGNAL NEWNYM\r\n.\r\nGETINFO version\r\nQUIT\r\n")
        text = await session.rest()
        assert text.startswith("510 Command filtered\r\n250-version=")

    assert "SIGNAL NEWNYM" not in run(scenario).heard


@pytest.mark.parametrize("text", ["GETINFO " + "x" * 5000 + "\r\n", "A" * 5000])
def test_a_line_without_end_ends_the_connection(run: Callable[[Scenario], Tor], text: str) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send(text)
        assert await session.rest() == ""
        again = await Session.open(paths)
        again.send("GETINFO version\r\n")
        assert (await again.lines(1))[0].startswith("250-version")

    run(scenario)


def test_a_few_connections_are_enough(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        sessions = [await Session.open(paths) for _ in range(8)]
        for session in sessions:
            session.send("GETINFO version\r\n")
            assert (await session.lines(2))[1] == "250 OK"
        ninth = await Session.open(paths)
        assert await ninth.rest() == ""
        sessions[0].send("QUIT\r\n")
        await sessions[0].rest()
        sessions[0].writer.close()
        await asyncio.sleep(0.05)
        tenth = await Session.open(paths)
        tenth.send("GETINFO version\r\n")
        assert (await tenth.lines(2))[1] == "250 OK"

    run(scenario)


def test_tor_dies_and_comes_back(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send("GETINFO version\r\n")
        await session.lines(2)
        await tor.stop()
        assert await session.rest() == ""
        lonely = await Session.open(paths)
        lonely.send("GETINFO version\r\n")
        assert await lonely.rest() == "551 Tor does not answer\r\n"
        await tor.start(b"another")
        again = await Session.open(paths)
        again.send("GETINFO version\r\n")
        assert (await again.lines(2))[1] == "250 OK"

    run(scenario)


def test_a_tor_that_does_not_accept_the_cookie(run: Callable[[Scenario], Tor]) -> None:
    async def scenario(paths: Paths, tor: Tor) -> None:
        paths.control_cookie.write_bytes(b"wrong")
        session = await Session.open(paths)
        session.send("AUTHENTICATE\r\n")
        assert await session.rest() == "551 Tor does not answer\r\n"

    run(scenario)


def test_a_tor_that_keeps_silent(
    run: Callable[[Scenario], Tor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_filter, "_PATIENCE", 0.1)

    async def scenario(paths: Paths, tor: Tor) -> None:
        session = await Session.open(paths)
        session.send("SETEVENTS STATUS_CLIENT\r\n")
        assert await session.rest() == ""

    run(scenario)


def test_the_process_is_started_with_all_it_serves(tmp_path: Path) -> None:
    paths = Paths(state=tmp_path, runtime=tmp_path)
    argv = control_filter.command(paths, TOR, [BOB])
    assert argv[5:] == [
        *("onionward.tor.control_filter", str(tmp_path)),
        *("947:946", "bob:61002:61003"),
    ]
    system = ScriptedSystem({argv[0]: ""})
    control_filter.start(system, paths, TOR, [BOB])
    assert control_filter.directory(paths).stat().st_mode & 0o7777 == 0o711
    assert system.asked == [" ".join(argv)]
    control_filter.stop(system, paths)
    assert not control_filter.directory(paths).exists()


def test_nobody_to_serve(tmp_path: Path) -> None:
    paths = Paths(state=tmp_path, runtime=tmp_path)
    system = ScriptedSystem()
    control_filter.start(system, paths, TOR, [])
    assert system.effects == []
    assert control_filter.running(paths) == ()


def test_a_process_that_does_not_start(tmp_path: Path) -> None:
    paths = Paths(state=tmp_path, runtime=tmp_path)
    words = "OSError: AF_UNIX path too long"
    argv = control_filter.command(paths, TOR, [BOB])
    system = ScriptedSystem({argv[0]: CommandError(argv, 1, words)})
    with pytest.raises(TorError, match="AF_UNIX path too long"):
        control_filter.start(system, paths, TOR, [BOB])


def test_this_process_is_no_filter(tmp_path: Path) -> None:
    assert not control_filter.is_own(os.getpid(), Paths(state=tmp_path, runtime=tmp_path))
    assert not control_filter.is_own(2**22, Paths(state=tmp_path, runtime=tmp_path))
