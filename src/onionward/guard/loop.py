"""The resident itself: waits, puts rules back, has everything else put right by a child."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import syslog
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from onionward import backend, background, pauses, state
from onionward.attempts.source import Attempts
from onionward.errors import CommandError, JournalError, LockedError, OnionwardError, StepError
from onionward.guard import rescue
from onionward.guard.child import Child
from onionward.guard.events import Clock, Links, Rules, Source
from onionward.guard.owned import OwnedTables
from onionward.guard.process import NOT_WANTED
from onionward.guard.record import Record
from onionward.guard.watched import Watched
from onionward.paths import Paths
from onionward.state import Journal
from onionward.system import System
from onionward.tables import BRIDGE_TABLE, TABLE, is_speakable

_DEVICES = '"@devices@"'  # as render.nftables.lock writes it
_READY = b"ready"
_ATTEMPTS = 5  # interfaces may go while the rules about them are loaded
_GIVEN_WAY = 2.0  # seconds that others get to take the lock
_LOOK = 2.0  # seconds from one look at rules to the next where the kernel tells nobody of changes
_RESCUE = 0.5  # seconds from one look for lost rules to the next while another onionward works
_SHARED = ("raw", "mangle", "nat", "filter")  # of iptables over nf_tables
_BUSY = 0.2  # seconds until another onionward is looked for again
_FIRST_DELAY, _LAST_DELAY = 0.25, 60.0
_LAST_OF_SUCCESS = 4.0  # after what went well, so that others get the processor
_BREATH = 1.0  # seconds until what the kernel has refused is asked for again
_CALM = 60.0  # seconds without trouble after which the next trouble is seen to at once


class Guard:
    """What is watched, what has happened, and what is being done about it."""

    def __init__(self, system: System, paths: Paths) -> None:
        self._system = system
        self._paths = paths
        self._owned: OwnedTables | None = None
        self._record = Record(system, paths.guard_record)
        self._rules, self._links, self._clock = Rules(TABLE[1]), Links(), Clock()
        self._watched = Watched(paths)
        self._server = _listen(paths.guard_socket)
        self._child: Child | None = None
        self._rules_wanted = False
        self._put_back = ""  # the digest of rules that were put back
        self._reasons: dict[str, bool] = {}  # in words → whether `up` is wanted whatever is found
        self._failed = False
        self._delay = 0.0
        self._last_trouble = -_CALM
        self._not_before = 0.0
        self._looks = False  # whether rules change without telling
        self._next_look = 0.0
        self._next_rescue = 0.0
        self._attempts = self._listen_to_attempts()
        self._pause_ends: float | None = None  # seconds since the epoch

    def load(self) -> None:
        """Put the guard's own tables in place.

        Raises:
            CommandError: the kernel does not take them.

        """
        document = json.loads(self._paths.lock_rules.read_text())
        if self._attempts is not None:
            log = document.get("log")
            self._attempts.record.log = Path(log) if log else None
        for attempt in range(_ATTEMPTS):
            present = (name for _, name in socket.if_nameindex() if name != "lo")
            # the others are to be covered all the same
            names = sorted(filter(is_speakable, present))
            listed = ", ".join(f'"{name}"' for name in names)
            frames = document["frames"].replace(_DEVICES, listed) if names else ""
            if not (document["routing"] or frames):
                return  # there is no nft
            self._owned = self._owned or OwnedTables(self._system)
            try:
                self._owned.load(document["routing"] + frames)
            except CommandError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return

    def run(self) -> None:
        """Guard until there is nothing to guard any more."""
        self._record.write()
        self._look_around()
        while True:
            try:
                self._wait()
                journal = self._journal()
                if journal is None:
                    return
                if self._looks and time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + _LOOK
                    self._rules_wanted = True
                if self._pause_ends is not None and time.time() >= self._pause_ends:
                    self._pause_ends = None
                    self._reasons["the pause of an account has ended"] = True
                self._act(journal)
            except (OSError, RuntimeError, MemoryError) as error:
                self._lack(error)

    def _lack(self, error: Exception) -> None:
        """No descriptor or process to be had: the guard's tables would end with the guard."""
        self._record.add(f"the guard cannot act now, and tries again: {error}")
        # what was heard and not acted on must not be forgotten
        self._rules_wanted = True
        self._reasons.setdefault("the guard could not act", False)
        time.sleep(_BREATH)

    def _journal(self) -> Journal | None:
        try:
            return state.load(self._paths)
        except JournalError as error:
            # nothing can be put back without it, and nothing is opened
            self._record.add(f"{error.message}; the rules stay in place")
            self._rules_wanted = False
            self._reasons.clear()
            return Journal(state="blocked", since=0.0, instance="", stamp=0)

    def _wait(self) -> None:
        sources: list[Source] = [self._rules, self._links, self._clock, *self._watched.sources]
        sources += [s for s in (self._child, self._attempts) if s is not None]
        poll = select.poll()
        for source in sources:
            poll.register(source.fileno(), select.POLLIN)
        poll.register(self._server.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(self._patience())}
        if self._server.fileno() in ready:
            # what is watched may be others now; what has happened is told again
            self._serve()
        else:
            for source in sources:
                if source.fileno() in ready:
                    self._notice(source)
        if self._attempts is not None:
            self._attempts.record.write()

    def _listen_to_attempts(self) -> Attempts | None:
        try:
            return Attempts(self._system, self._paths, self._record.add)
        except OSError as error:
            # the rules count all the same
            self._record.add(f"who tries what is not told: {error}")
            return None

    def _patience(self) -> float | None:
        """Milliseconds to wait for an event; None: for as long as it takes."""
        waits = [max(0.0, self._next_look - time.monotonic())] if self._looks else []
        if self._rules_wanted:
            waits.append(_BUSY)
        if self._attempts and (unwritten := self._attempts.record.patience()) is not None:
            waits.append(unwritten)
        if self._pause_ends is not None:
            waits.append(max(0.0, self._pause_ends - time.time()))
        if self._reasons and self._child is None:
            waits.append(max(0.0, self._not_before - time.monotonic()))
        return min(waits) * 1000 + 1 if waits else None

    def _notice(self, source: Source) -> None:
        if source in self._watched.sources:
            self._reasons.update(self._watched.read(source))
            return
        words = source.read()
        if isinstance(source, Child):
            self._reap(source)
        elif words and source is self._rules:
            self._rules_wanted = True
        elif words:
            if source is self._links:
                self._cover()
            self._reasons.update(dict.fromkeys(words, source is self._links))

    def _cover(self) -> None:
        """Let the guard's own tables know of the interfaces there are now."""
        try:
            self.load()
        except (OnionwardError, OSError) as error:
            self._record.add(f"the guard's own rules are those of earlier interfaces: {error}")

    def _serve(self) -> None:
        client, _ = self._server.accept()
        with client, suppress(OSError):
            client.settimeout(1.0)
            word = client.recv(64).decode(errors="replace").strip()
            try:
                self._obey(word)
                answer = word
            except (OnionwardError, OSError, ValueError) as error:
                answer = str(error).replace("\n", " ")
            client.sendall(f"{answer}\n".encode())

    def _obey(self, word: str) -> None:
        if word == "load":
            self.load()
        elif word == "give way":
            if self._child is not None:
                self._child.kill()
                self._reap(self._child)
            self._not_before = max(self._not_before, time.monotonic() + _GIVEN_WAY)
        elif word == "settled":
            self._reasons.clear()
            self._failed = False
            self._put_back = ""
            self._look_around()
            # whoever flushed while others were at work has not been noticed yet
            self._rules_wanted = True
        else:
            raise ValueError(f"not known: {word}")

    def _look_around(self) -> None:
        """Watch what is there now."""
        journal = self._journal()
        decides = "" if journal is None else journal.filters[-1]
        self._looks = decides == "iptables-legacy"
        self._rules.share(_SHARED if decides == "iptables-nft" else ())
        self._pause_ends = pauses.next_end(journal)
        for words in self._watched.renew(journal):
            self._record.add(words)

    def _act(self, journal: Journal) -> None:
        if self._rules_wanted:
            try:
                with state.locked(self._system, self._paths, patience=0.0):
                    self._put_rules_back()
                self._rules_wanted = False
            except LockedError:
                self._put_lost_rules_back()
            except (OnionwardError, OSError) as error:
                self._rules_wanted = False
                self._reasons[f"packet rules could not be put back: {error}"] = True
        if not self._reasons or self._child is not None or time.monotonic() < self._not_before:
            return
        if _is_locked(self._system, self._paths):
            # who is at work tells when all is done
            self._not_before = time.monotonic() + _BUSY
        elif journal.state != "routed" and not self._failed:
            # what somebody has begun is theirs to finish
            self._reasons.clear()
        else:
            self._start_child()

    def _put_rules_back(self) -> None:
        journal = state.load(self._paths)
        if journal is None or not journal.digest:
            return
        rules = backend.in_force(journal)
        held = rules.read(self._system)
        # an `up` that died after it had loaded rules has not noted their digest: what is put back
        # never has the noted one then, and must not be put back for ever
        if held is not None and rules.digest(held) in (journal.digest, self._put_back):
            self._look_at_ports(journal)
            return
        rules.put_back(self._system, self._paths.rules.read_text())
        lost = "gone" if held is None else "changed"
        self._record.add(f"packet rules were {lost} by another's doing: put back")
        self._look_at_ports(journal)
        held = rules.read(self._system)
        self._put_back = "" if held is None else rules.digest(held)
        if self._put_back != journal.digest:
            self._reasons["packet rules that were put back are not those of before"] = True

    def _put_lost_rules_back(self) -> None:
        """Rules that are gone altogether while another onionward is at work."""
        if time.monotonic() < self._next_rescue:
            return
        self._next_rescue = time.monotonic() + _RESCUE
        try:
            if rescue.put_back(self._system, self._paths):
                self._record.add("packet rules were gone while they were being changed: put back")
        except (OnionwardError, OSError) as error:
            self._record.add(f"packet rules could not be put back: {error}")

    def _look_at_ports(self, journal: Journal) -> None:
        """The rules for ports of bridges, which are not among the others, are the child's."""
        if not journal.undo.get("ports", {}).get("saved", {}).get("known"):
            return
        tables = self._system.query(["nft", "list", "tables"]).splitlines()
        if f"table {' '.join(BRIDGE_TABLE)}" not in tables:
            self._reasons["rules for ports of bridges are gone"] = False

    def _start_child(self) -> None:
        for words in self._reasons:
            self._record.add(words)
        options = [*(["--always"] if any(self._reasons.values()) else [])]
        options += ["--go-on"] if self._failed else []
        self._child = Child(self._paths, options)
        self._reasons.clear()
        now = time.monotonic()
        most = _LAST_DELAY if self._failed else _LAST_OF_SUCCESS
        self._delay = (
            0.0
            if now - self._last_trouble > _CALM
            else min(most, max(_FIRST_DELAY, self._delay * 2))
        )
        self._last_trouble = now
        self._not_before = now + self._delay

    def _reap(self, child: Child) -> None:
        succeeded, lines = child.outcome()
        self._child = None
        self._failed = not succeeded
        for line in lines:
            self._record.add(line)
        if self._failed:
            self._reasons["what went wrong is tried again"] = False


def _is_locked(system: System, paths: Paths) -> bool:
    try:
        with state.locked(system, paths, patience=0.0):
            return False
    except LockedError:
        return True


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    path.chmod(0o600)
    server.listen()
    return server


def main(arguments: Sequence[str]) -> None:
    """Load the guard's tables, go to the background, and guard.

    Args:
        arguments: directories of state and of runtime files, and resolv.conf.

    """
    os.umask(0o077)
    paths = Paths(*map(Path, arguments))
    supervised = os.environ.pop("NOTIFY_SOCKET", "")
    writer = -1 if supervised else _go_to_background()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    syslog.openlog("onionward", syslog.LOG_PID, syslog.LOG_DAEMON)
    sys.argv = ["onionward", "guarding"]
    try:
        if not paths.journal.exists() or not paths.lock_rules.exists():
            raise StepError("there is nothing to guard")
        guard = Guard(System(), paths)
        guard.load()
    except (OnionwardError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        if not supervised:
            os.write(writer, f"{error}\n".encode())
        sys.exit(1 if paths.journal.exists() else NOT_WANTED)
    if supervised:
        notify(supervised)
    else:
        os.write(writer, _READY)
        os.close(writer)
    guard.run()
    sys.exit(NOT_WANTED)


def _go_to_background() -> int:
    """Go on as another process, in a session of its own.

    Returns:
        Where to write whether all is well; the first process waits for it and says it.

    """
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        with os.fdopen(reader, "rb") as words:
            complaint = words.read()
        if complaint != _READY:
            sys.stderr.write(complaint.decode(errors="replace") or "it has ended at once\n")
            os._exit(1)
        os._exit(0)
    os.close(reader)
    background.leave_terminal()
    return writer


def notify(address: str) -> None:
    """Tell systemd that it may go on (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
        # "@" stands for an abstract address
        client.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        client.send(b"READY=1")
