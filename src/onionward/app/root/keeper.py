"""The keeper of runs: gives each an address, has a tor and rules for them, and ends when idle.

One process, started by the first run. A run is known by its connection, which the kernel closes
however the run ends. What the keeper holds (the rules that nobody else can change, the network
namespaces of named runs) the kernel takes back however the keeper ends; the next run starts another
one, which goes on from there, and so does a run that lives and sees its keeper end.

    run → keeper    run NAME UID NEW CONFIG     wants to begin
                    again NAME UID NUMBER CONFIG    lives, and had another keeper
                    made                        with the descriptor of its network namespace
                    end                         (no run) end if there is none
    keeper → run    tor WORDS                   how far tor is
                    go NUMBER IPV6 VIRTUAL4 VIRTUAL6   make a namespace with this number
                    join NUMBER                 with the descriptor of one
                    failed MESSAGE HINT
                    refused MESSAGE HINT        nothing was touched
                    busy                        there are runs

Fields are separated by tabs, messages are packets (unix(7), SOCK_SEQPACKET).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from onionward import background
from onionward.app.reading import text_of
from onionward.app.root import netlink, places, rules, tor
from onionward.app.root.obstacles import Obstacles
from onionward.config.values import TorConfig
from onionward.errors import ConfigError, OnionwardError, StepError
from onionward.guard.owned import OwnedTables
from onionward.paths import PATHS
from onionward.system import System
from onionward.tables import RUN_LOCK_TABLE, RUN_TABLE, is_of_run

_TICK = 0.5  # seconds between two looks at tor and the rules while somebody runs
_LAST_BREATH = 5.0  # seconds for the kernel to take back devices of runs that have ended
_LOOPBACK = 1  # its number in every network namespace
_LONGEST = 4096


class _Run:
    """A run that is connected."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.key = ("", -1)
        self.number = 0
        self.namespace = -1
        self.waits = False

    def close(self) -> None:
        self.connection.close()
        if self.namespace >= 0:
            os.close(self.namespace)


class Keeper:
    """See the module.

    Args:
        system: the seam.
        server: listening.
        forget_after: seconds without a run after which it ends.

    """

    def __init__(self, system: System, server: socket.socket, forget_after: float) -> None:
        self._system = system
        self._server = server
        self._forget_after = forget_after
        self._kernel = netlink.Kernel()
        self._owned = OwnedTables(system, (RUN_LOCK_TABLE,))
        self._others = Obstacles(system)
        self._ipv6 = "00000000000000000000000000000001" in text_of("/proc/net/if_inet6")
        self._runs: dict[int, _Run] = {}
        self._names: dict[tuple[str, int], int] = {}
        self._last = int.from_bytes(os.urandom(2)) % places.MOST
        self._tor: tor.Serving | None = None
        self._config = ""
        self._seen: object = None
        self._idle_since = time.monotonic()
        self._trouble = ""
        self._ender: _Run | None = None
        self._ends_before = 0.0

    def prepare(self) -> None:
        """Have the addresses at which tor listens, and rules for runs that live already."""
        for place in self._places():
            length = 128 if ":" in place else 32
            # local to this machine, and to no link
            self._kernel.do(
                netlink.address(_LOOPBACK, place, length, scope=254), tolerate=errno.EEXIST
            )
        if _alive():
            # tor may take its time, or not come; which ports it has is of no matter till then
            usual = TorConfig()
            self._owned.load(rules.owned(usual.trans_port, usual.dns_port))

    def _places(self) -> tuple[str, ...]:
        return (places.TOR4, places.TOR6) if self._ipv6 else (places.TOR4,)

    def serve(self) -> None:
        """Serve until nobody has wanted anything for a while."""
        while True:
            poll = select.poll()
            poll.register(self._server.fileno(), select.POLLIN)
            for descriptor in self._runs:
                poll.register(descriptor, select.POLLIN | select.POLLRDHUP)
            idle = self._idle_since + self._forget_after - time.monotonic()
            if not self._runs and idle <= 0:
                if not _alive():
                    return
                idle = _TICK
            if self._ender is not None and self._may_end(self._ender):
                return
            ready = poll.poll((_TICK if self._runs else idle) * 1000 + 1)
            for descriptor, _ in ready:
                if descriptor == self._server.fileno():
                    self._accept()
                elif descriptor in self._runs:
                    self._hear(self._runs[descriptor])
            if self._runs and not ready and self._ender is None:
                self._look_after()

    def _may_end(self, ender: _Run) -> bool:
        """Whether no run is left; the connection tells who has asked when all is done."""
        if len(self._runs) == 1 and not _alive():
            return True
        # a run that has not found this keeper yet, after another one was killed, has a device
        if len(self._runs) > 1 or time.monotonic() > self._ends_before:
            self._ender = None
            _say(ender, "busy")
            self._drop(ender)
        return False

    def end(self) -> None:
        """Take back everything: rules, addresses, and the tor for runs."""
        self._server.close()
        Path(places.SOCKET).unlink(missing_ok=True)
        tor.release(self._system)
        with contextlib.suppress(OnionwardError, OSError):
            tor.listen_no_longer()
        self._system.change(["nft", "-f", "-"], stdin=rules.remove(), words="remove rules of runs")
        self._owned.close()
        for place in self._places():
            length = 128 if ":" in place else 32
            self._kernel.do(
                netlink.no_address(_LOOPBACK, place, length), tolerate=errno.EADDRNOTAVAIL
            )
        self._system.remove_tree(Path(places.RUNTIME))

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._server.accept()
            self._runs[connection.fileno()] = _Run(connection)

    def _hear(self, run: _Run) -> None:
        """Act on what a run says."""
        try:
            said, descriptors, _, _ = socket.recv_fds(run.connection, _LONGEST, 1)
        except OSError:
            said, descriptors = b"", []
        word, *fields = said.decode(errors="replace").split("\t")
        try:
            if word in ("run", "again") and self._tor is None:
                # while tor runs, it is as it was started
                self._config = fields[3]
            if word == "run":
                self._begin(run, (fields[0], int(fields[1])), is_new=fields[2] == "new")
            elif word == "again":
                run.key, run.number = (fields[0], int(fields[1])), int(fields[2])
                self._names[run.key] = run.number
                # tor is seen to with the next tick: a run that lives is not sent away without it
            elif word == "made" and descriptors:
                run.namespace = descriptors.pop()
                self._wake(run)
            elif word == "end" and self._ender is None:
                self._ender = run
                self._ends_before = time.monotonic() + _LAST_BREATH
            else:
                self._drop(run)
        except (OnionwardError, OSError, ValueError, IndexError) as error:
            self._fail(run, error)
        for descriptor in descriptors:
            os.close(descriptor)

    def _fail(self, run: _Run, error: Exception) -> None:
        message = getattr(error, "message", str(error))
        outcome = "refused" if isinstance(error, ConfigError) else "failed"
        _say(run, outcome, message, getattr(error, "hint", ""))
        self._drop(run)

    def _drop(self, run: _Run) -> None:
        if run is self._ender:
            self._ender = None
        self._runs.pop(run.connection.fileno(), None)
        run.close()
        self._idle_since = time.monotonic()
        # who has waited for its namespace makes one
        self._wake(run)

    def _wake(self, other: _Run) -> None:
        for run in list(self._runs.values()):
            if run.waits and run.key == other.key:
                run.waits = False
                try:
                    # tor may be another one by now
                    self._be_ready(run)
                    self._give(run)
                except (OnionwardError, OSError) as error:
                    self._fail(run, error)

    def _begin(self, run: _Run, key: tuple[str, int], *, is_new: bool) -> None:
        serving = self._be_ready(run)
        # not for those who live: they are not sent away
        self._others.judge(serving, lambda words: _say(run, "tor", words), ipv6=self._ipv6)
        run.key = key
        if is_new or not key[0] or key not in self._names:
            self._names[key] = self._next()
        run.number = self._names[key]
        self._give(run)

    def _give(self, run: _Run) -> None:
        """Tell a run its number, and give it the namespace of who has the same one."""
        others = [r for r in self._runs.values() if r.number == run.number and r is not run]
        others = [other for other in others if not other.waits]
        if not others:
            assert self._tor is not None  # noqa: S101  # _be_ready was called
            _say(run, "go", str(run.number), str(int(self._ipv6)), *self._tor.virtual)
            return
        held = next((other.namespace for other in others if other.namespace >= 0), -1)
        if held < 0:
            run.waits = True
            return
        run.namespace = os.dup(held)
        words = f"join\t{run.number}".encode()
        socket.send_fds(run.connection, [words], [held])

    def _next(self) -> int:
        alive = {run.number for run in self._runs.values()}
        for taken in (alive | set(self._names.values()), alive):
            for _ in range(places.MOST):
                self._last = self._last % places.MOST + 1
                if self._last not in taken:
                    return self._last
            # the names of those who have ended are forgotten
            self._names = {k: n for k, n in self._names.items() if n in alive}
        raise StepError(f"{places.MOST} runs are alive; there is no address for another one")

    def _be_ready(self, run: _Run) -> tor.Serving:
        """Have tor and rules; what is so already is looked at in a hurry."""
        if self._tor is None or self._state() != self._seen:
            self._tor = None
            serving = tor.ready(
                self._system,
                self._config,
                ipv6=self._ipv6,
                tell=lambda words: _say(run, "tor", words),
            )
            self._load(serving)
            self._seen = self._state(serving)
            self._tor = serving
        elif not self._owned.has(RUN_TABLE):
            self._load(self._tor)
        return self._tor

    def _state(self, serving: tor.Serving | None = None) -> object:
        """What tells that tor or what the machine is in have changed."""
        found = serving or self._tor
        if found is None:
            return None
        try:
            journal = os.stat(PATHS.journal)  # noqa: PTH116
            changed = (journal.st_ino, journal.st_mtime_ns)
        except FileNotFoundError:
            changed = (0, 0)
        try:
            # its start, in case the number is another process's by now
            started = text_of(f"/proc/{found.pid}/stat").rpartition(")")[2].split()[19]
        except IndexError:
            started = ""
        return (changed, started)

    def _load(self, serving: tor.Serving) -> None:
        ports = (serving.trans_port, serving.dns_port)
        self._owned.load(rules.owned(*ports))
        self._system.change(
            ["nft", "-f", "-"], stdin=rules.render(*ports), words="load rules of runs"
        )

    def _look_after(self) -> None:
        """Have what those who run need, after `up`, `down`, a death of tor, or a flush of rules."""
        run = next(iter(self._runs.values()))
        try:
            self._be_ready(run)
            self._trouble = ""
        except (OnionwardError, OSError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._system.effect(f"runs have no tor: {error}")


def _say(run: _Run, *fields: str) -> None:
    words = "\t".join(field.replace("\t", " ") for field in fields)
    with contextlib.suppress(OSError):
        run.connection.send(words.encode()[:_LONGEST])


def _alive() -> bool:
    """Whether there is a device of a run, which lives as long as the run's network."""
    return any(is_of_run(name) for _, name in socket.if_nameindex())


def command() -> list[str]:
    """The command line of the process."""
    return background.command("onionward.app.root.keeper", places.RUNTIME)


def main(arguments: Sequence[str]) -> None:
    """Be the keeper, in the background; ends at once where there is one already.

    Args:
        arguments: the directory of its files, and in how many seconds it ends without a run.

    """
    os.umask(0o077)
    system = System()
    system.make_directory(Path(places.RUNTIME))
    lock = os.open(f"{places.RUNTIME}/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    supervised = os.environ.pop("NOTIFY_SOCKET", "")
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    Path(places.SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(places.SOCKET)
    server.setblocking(False)  # noqa: FBT003
    forget_after = float(arguments[1]) if len(arguments) > 1 else places.FORGET_AFTER
    if not supervised and os.fork() > 0:
        # the child holds the lock; it listens before anybody is told
        server.listen(128)
        os._exit(0)
    server.listen(128)
    if supervised:
        from onionward.guard.loop import notify

        notify(supervised)
    else:
        background.leave_terminal()
    try:
        keeper = Keeper(system, server, forget_after)
        keeper.prepare()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        keeper.serve()
    except (OnionwardError, OSError) as error:
        _refuse(server, error)
        raise
    keeper.end()


def _refuse(server: socket.socket, error: Exception) -> None:
    """Tell whoever has called by now."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            _say(_Run(connection), "failed", str(error))
