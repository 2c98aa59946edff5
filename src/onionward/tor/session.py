"""A conversation with tor over its control socket that can be waited on with other things.

stem reads with threads of its own; `onionward watch` waits for keys, a timer and tor in one place,
and `new-identity` for one event (control-spec, 2.3 and 4.1).
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator, Sequence
from socket import AF_UNIX, SOCK_STREAM, socket

from onionward.errors import RefusedError, TorError
from onionward.paths import Paths

_PATIENCE = 5.0  # seconds for an answer
_PART = 1 << 16
_MOST = 1 << 24  # bytes of one message


class Messages:
    """Bytes of the control protocol, as whole messages; pure."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._in_data = False

    def add(self, part: bytes) -> list[tuple[int, tuple[str, ...]]]:
        """Messages that this part completes: status and lines; those of data follow their first.

        Raises:
            TorError: it is no such protocol.

        """
        whole = (self._rest + part).split(b"\n")
        self._rest = whole.pop()
        if len(self._rest) > _MOST:
            raise TorError("tor's control port says more than is understood")
        return [message for raw in whole if (message := self._line(raw)) is not None]

    def _line(self, raw: bytes) -> tuple[int, tuple[str, ...]] | None:
        line = raw.decode(errors="replace").rstrip("\r")
        if self._in_data:
            if line == ".":
                self._in_data = False
            else:
                self._lines.append(line.removeprefix("."))
            return None
        if len(line) < 4 or not line[:3].isdecimal() or line[3] not in " +-":
            raise TorError(f"tor's control port says what is not understood: {line[:80]!r}")
        self._lines.append(line[4:])
        self._in_data = line[3] == "+"
        if line[3] != " ":
            return None
        lines, self._lines = tuple(self._lines), []
        return int(line[:3]), lines


class Session:
    """Questions and events; `session` makes one."""

    def __init__(self, connection: socket) -> None:
        self._socket = connection
        self._messages = Messages()
        self._answers: list[tuple[int, tuple[str, ...]]] = []
        self._events: list[tuple[str, ...]] = []

    def fileno(self) -> int:
        """What to wait on for events."""
        return self._socket.fileno()

    def ask(self, command: str) -> tuple[str, ...]:
        """The lines that answer a command.

        Raises:
            TorError: tor refuses it, is gone, or says nothing for seconds.

        """
        try:
            self._socket.sendall(f"{command}\r\n".encode())
        except OSError as error:
            raise TorError(f"tor's control port does not take what is said: {error}") from error
        deadline = time.monotonic() + _PATIENCE
        while not self._answers:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TorError(
                    f"tor does not answer {command.split()[0]} in {_PATIENCE:g} s",
                    "`onionward status` says whether it is suspended",
                )
            self._read(left)
        status, lines = self._answers.pop(0)
        if status != 250:
            raise TorError(f"tor refuses {command.split()[0]}: {status} {lines[-1]}")
        return lines

    def info(self, key: str) -> tuple[str, ...]:
        """What GETINFO says of a key, by line."""
        first, *more = self.ask(f"GETINFO {key}")[:-1] or [""]
        of_first = first.partition("=")[2]
        return (*((of_first,) if of_first else ()), *more)

    def events(self, patience: float = 0.0) -> tuple[tuple[str, ...], ...]:
        """Events that have come, each by line; waits for one as many seconds as is said.

        Raises:
            TorError: tor is gone.

        """
        if not self._events:
            self._read(patience)
        found, self._events = tuple(self._events), []
        return found

    def _read(self, patience: float) -> None:
        """Read what is there, or comes in so many seconds."""
        if not select.select([self._socket], [], [], patience)[0]:
            return
        try:
            part = self._socket.recv(_PART)
        except OSError as error:
            raise TorError(f"tor's control port failed: {error}") from error
        if not part:
            raise TorError("tor has closed its control port: it has ended, or is ending")
        for status, lines in self._messages.add(part):
            if status == 650:
                self._events.append(lines)
            else:
                self._answers.append((status, lines))


@contextlib.contextmanager
def session(paths: Paths, events: Sequence[str] = ()) -> Iterator[Session]:
    """Speak with onionward's tor.

    Args:
        paths: of its socket and cookie.
        events: that it is to tell.

    Raises:
        RefusedError: whoever asks may not read its cookie.
        TorError: it does not answer, or not to us.

    """
    with socket(AF_UNIX, SOCK_STREAM) as connection:
        try:
            cookie = paths.control_cookie.read_bytes().hex()
            connection.connect(str(paths.control_socket))
        except PermissionError as error:
            raise RefusedError(
                f"tor is spoken to by root and whoever may read {paths.control_cookie}: "
                f"{error.strerror}; nothing was touched",
                "use sudo",
            ) from error
        except OSError as error:
            raise TorError(
                f"tor does not answer on {paths.control_socket}: {error.strerror}",
                "`onionward status` says whether it runs",
            ) from error
        found = Session(connection)
        found.ask(f"AUTHENTICATE {cookie}")
        if events:
            found.ask(f"SETEVENTS {' '.join(events)}")
        yield found
