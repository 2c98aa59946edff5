"""The tor that an account without root has for its runs: where it is, and that it is up.

    run ──(holds runs.lock, shared)──┐
    run ──(holds runs.lock, shared)──┤      keeper ── tor
                                     └────► looks whether anybody holds it; see `keeper`

A tor of the machine's onionward that offers itself to accounts is used instead: on a routed machine
a second tor would only reach relays through the first, and exits refuse that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onionward.errors import CommandError, OnionwardError, RefusedError, TorError, words_of
from onionward.paths import PATHS, Paths

if TYPE_CHECKING:
    from onionward.config import Config
    from onionward.system import System

_LONGEST_SOCKET = 107  # unix(7)
_SOUND_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TOKEN_BYTES = 16


class TorSockets(NamedTuple):
    """Where tor listens, by what its exits are to prefer.

    Attributes:
        ipv4: SOCKS port for IPv4 first.
        ipv6: SOCKS port for IPv6 first.

    """

    ipv4: Path
    ipv6: Path

    def of(self, version: int) -> Path:
        """The one whose exits prefer this version of IP."""
        return self.ipv4 if version == 4 else self.ipv6


class Home(NamedTuple):
    """Where an account keeps its tor.

    Attributes:
        paths: tor's files, as those of the machine's tor.

    """

    paths: Paths

    @property
    def places(self) -> tuple[Path, ...]:
        """Directories that hold all of it, none in another."""
        state, runtime = self.paths.state, self.paths.runtime
        return (state,) if runtime.is_relative_to(state) else (state, runtime)

    @property
    def sockets(self) -> TorSockets:
        """Tor's SOCKS ports."""
        directory = self.paths.tor_runtime
        return TorSockets(directory / "socks4", directory / "socks6")

    @property
    def runs_lock(self) -> Path:
        """Held, shared, by every run."""
        return self.paths.runtime / "runs.lock"

    @property
    def start_lock(self) -> Path:
        """Held by the one that starts tor."""
        return self.paths.runtime / "start.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper as long as it lives."""
        return self.paths.runtime / "keeper.lock"

    @property
    def ready(self) -> Path:
        """There when tor has had a circuit since it was started."""
        return self.paths.runtime / "ready"

    @property
    def circuits(self) -> Path:
        """For each name of circuits what tells them apart, a random word."""
        return self.paths.runtime / "circuits"


def home(environment: Mapping[str, str], account_home: str, uid: int) -> Home:
    """Where this account's tor is (XDG Base Directory Specification).

    Args:
        environment: variables; a HOME that is another account's does not count.
        account_home: by the accounts' database.
        uid: the account.

    Raises:
        RefusedError: the paths are too long for sockets.

    """
    chosen = environment.get("XDG_STATE_HOME", "")
    own = environment.get("HOME", "")
    own = own if _owner(own) == uid else account_home
    base = chosen if chosen.startswith("/") else f"{own}/.local/state"
    state = Path(base) / "onionward"
    given = environment.get("XDG_RUNTIME_DIR", "")
    runtime = Path(given) / "onionward" if _is_private(given, uid) else state / "run"
    found = Home(Paths(state=state, runtime=runtime))
    longest = str(found.paths.control_cookie)
    if len(os.fsencode(longest)) > _LONGEST_SOCKET:
        raise RefusedError(
            f"{found.paths.runtime} is too long a path for tor's sockets; nothing was touched",
            "set XDG_RUNTIME_DIR to a directory of yours with mode 0700 and a short path",
        )
    return found


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid  # noqa: PTH116  # pathlib takes long
    except OSError:
        return -1


def _is_private(path: str, uid: int) -> bool:
    if not path.startswith("/"):
        return False
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def torrc(own: Home, network: Sequence[str]) -> str:
    """The configuration of the account's tor (tor(1)).

    Args:
        own: where it is.
        network: lines about the relays (`onionward.render.torrc.relays`).

    """
    paths, sockets = own.paths, own.sockets
    # one group: a run's streams share circuits whatever family their exits are to prefer
    isolation = "SessionGroup=1 IsolateSOCKSAuth"
    lines = [
        f"DataDirectory {_quoted(paths.tor_data)}",
        f"Log notice file {paths.tor_log}",
        "ClientOnly 1",
        f"SocksPort unix:{_quoted(sockets.ipv4)} {isolation} IPv6Traffic NoPreferIPv6",
        f"SocksPort unix:{_quoted(sockets.ipv6)} {isolation} IPv6Traffic PreferIPv6",
        "ClientUseIPv6 1",
        "ControlPort 0",
        f"ControlSocket {_quoted(paths.control_socket)}",
        "CookieAuthentication 1",
        f"CookieAuthFile {_quoted(paths.control_cookie)}",
        *network,
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    """A path with spaces, as tor(1) reads it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


OF_MACHINE = TorSockets(PATHS.socks4, PATHS.socks6)
"""The SOCKS ports that the machine's onionward has for accounts."""


def is_offered(paths: Paths = PATHS) -> bool:
    """Whether the machine's onionward is on, and its tor takes runs of accounts."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(paths.socks4))
    except OSError:
        return False
    return True


class Hold:
    """A run's hold on its account's tor, which lives at least as long.

    The kernel ends it with the process, however that ends.
    """

    def __init__(self, own: Home) -> None:
        self._descriptor = _open(own.runs_lock)
        # the one moment in which it is held by somebody else is when an idle tor is stopped
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        os.utime(self._descriptor)

    def release(self) -> None:
        """The run is over."""
        os.utime(self._descriptor)
        os.close(self._descriptor)


def hold(system: System, own: Home, config: Callable[[], Config]) -> Hold:
    """Have the account's tor up, and keep it so; what takes time is said on standard error.

    Args:
        system: the seam.
        own: where it is.
        config: read only when tor has to be started.

    Raises:
        TorError: tor does not start, or has no circuit in time.

    """
    # what forbids a run is said before anything is made
    read = None if own.ready.exists() else config()
    make_directories(system, own)
    held = Hold(own)
    if own.ready.exists() and is_kept(own):
        return held
    found = read or config()
    # threads that asked tor how far it is would keep this process from leaving its namespaces
    _apart(lambda: _start(system, own, found))
    return held


def _apart(action: Callable[[], None]) -> None:
    """Do something in a process of its own, and wait.

    Raises:
        TorError: what the action has raised.

    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except (OnionwardError, OSError) as error:
            words = "\0".join(words_of(error))
            os.write(writer, words.encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as heard:
        message, _, hint = heard.read().decode(errors="replace").partition("\0")
    if os.waitpid(child, 0)[1]:
        raise TorError(message or "the process that starts tor has ended", hint)


def make_directories(system: System, own: Home) -> None:
    """Make what is missing, for this account alone."""
    owner = (os.geteuid(), os.getegid())
    for path in (own.paths.state, own.paths.runtime, own.circuits):
        if not path.is_dir():
            system.make_directory(path, mode=0o700, owner=owner)


def is_kept(own: Home) -> bool:
    """Whether a keeper lives."""
    descriptor = _open(own.keeper_lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _start(system: System, own: Home, config: Config) -> None:
    from onionward.app.rootless import keeper
    from onionward.progress import Progress
    from onionward.tor import control

    owner = (os.geteuid(), os.getegid())
    with Progress(aside=True) as progress:
        with _alone(own.start_lock):
            if not is_kept(own):
                for path in (own.paths.tor_data, own.paths.tor_runtime):
                    system.make_directory(path, mode=0o700, owner=owner)
                text = torrc(own, _relays(config))
                system.write_file(own.paths.torrc, text, mode=0o600, owner=owner)
                try:
                    system.change(keeper.command(own), timeout=60, words="start tor")
                except CommandError as error:
                    raise TorError(f"tor did not start: {error.stderr.strip()}") from error
                progress.step("this account's tor is started")
        control.wait_for_circuits(
            own.paths,
            config.tor.bootstrap_timeout,
            lambda phase: progress.bootstrap(phase.percent, phase.words()),
            lambda: is_kept(own),
        )
    # one after the other: each would take the other's half-written file away
    with _alone(own.start_lock):
        system.write_file(own.ready, "", mode=0o600, owner=owner)


def _relays(config: Config) -> tuple[str, ...]:
    from onionward.render.torrc import relays
    from onionward.tor import installed

    found = installed.look(config)
    installed.refuse_missing(config, found)
    return relays(config, found)


def token(system: System, own: Home, name: str, *, new: bool) -> bytes:
    """What tells a run's circuits from others, for `socks.credentials`.

    Args:
        system: the seam.
        own: where names are remembered.
        name: of circuits that are shared; "" for a run that shares none.
        new: whether the name gets others from now on.

    """
    fresh = os.urandom(_TOKEN_BYTES).hex().encode()
    if not name:
        return fresh
    path = own.circuits / (name if _SOUND_NAME.match(name) else f"={name.encode().hex()}")
    if len(path.name) > 255:  # NAME_MAX
        raise OnionwardError(f"the name {name!r} is too long")
    owner = (os.geteuid(), os.getegid())
    with _alone(own.circuits / ".lock"):
        if not new and path.exists():
            found = path.read_bytes()
            if len(found) == len(fresh):
                return found
        system.write_file(path, fresh.decode(), mode=0o600, owner=owner)
        return fresh


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, as soon as nobody else does."""
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
