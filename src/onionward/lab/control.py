"""As much of Tor's control protocol (control-spec.txt) as building a network takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from onionward.errors import LabError

_EVENT = "650"


class Control:
    """A connection to a tor's control socket.

    Args:
        path: the socket.
        timeout: seconds that any answer may take.
        cookie: what tor wants to see (CookieAuthentication in tor(1)); empty when it asks for
            nothing.

    Attributes:
        heard: events that came while an answer was awaited, the oldest first.

    Raises:
        LabError: tor does not answer; every method raises it, too.

    """

    def __init__(self, path: Path, *, timeout: float = 5.0, cookie: bytes = b"") -> None:
        self._path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self._reader = self._socket.makefile("rb")
            self.ask(f"AUTHENTICATE {cookie.hex()}".rstrip())
        except OSError as error:
            self._socket.close()
            raise LabError(f"tor does not listen at {path}: {error}") from error
        except LabError:
            self._socket.close()
            raise

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()
        self._socket.close()

    def ask(self, command: str) -> str:
        """Send one command; returns the lines of its answer without the status codes."""
        try:
            self._socket.sendall(command.encode() + b"\r\n")
            while (lines := list(self._answer()))[-1][0] == _EVENT:
                self.heard += [text for _, text in lines]
        except OSError as error:
            raise LabError(f"tor at {self._path}: {command}: {error}") from error
        status, last = lines[-1]
        if status != "250":
            raise LabError(f"tor at {self._path}: {command}: {status} {last}")
        return "\n".join(text for _, text in lines)

    def events(self) -> Iterator[str]:
        """Lines of asynchronous events, after a SETEVENTS, until the timeout."""
        while True:
            while self.heard:
                yield self.heard.pop(0)
            try:
                yield from (text for _, text in self._answer())
            except OSError as error:
                raise LabError(f"tor at {self._path} reported nothing more: {error}") from error

    def _answer(self) -> Iterator[tuple[str, str]]:
        while True:
            line = self._line()
            status, separator, text = line[:3], line[3:4], line[4:]
            yield status, text
            if separator == "+":
                while (data := self._line()) != ".":
                    yield status, data
            elif separator != "-":
                return

    def _line(self) -> str:
        line = self._reader.readline()
        if not line:
            raise ConnectionResetError("connection closed")
        return line.decode(errors="replace").rstrip("\r\n")
