"""Waits for keys, tor, children and signals in one place; whatever wakes it, a view follows."""

from __future__ import annotations

import os
import pwd
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from onionward.errors import TorError
from onionward.paths import Paths
from onionward.system import System
from onionward.tor.session import Session, session
from onionward.watch import plain, sources
from onionward.watch.act import Act
from onionward.watch.ledger import EVENTS, Ledger
from onionward.watch.owners import Owner
from onionward.watch.screen import Screen
from onionward.watch.sources import Machine
from onionward.watch.text import render
from onionward.watch.view import Chooser, Typed, View, compose, moment

_TICK = 2.0  # seconds in which something is looked at, if nothing tells of itself
_MESSAGE = 8.0  # seconds for which a message stays
_PERSONS = range(1000, 65534)  # ids of accounts that people have (login.defs(5))
_NOT_ROOT = "only root may"


class Watch:
    """What is known, and what keys do; no terminal.

    Args:
        system: the seam.
        paths: where things are.

    """

    def __init__(self, system: System, paths: Paths) -> None:
        self._paths = paths
        self._machine = Machine(system, paths)
        self._ledger = Ledger(self._machine.owners)
        self._stack = ExitStack()
        self._tor: Session | None = None
        self._countries = False
        self._act: Act | None = None
        self._identities = 0
        self._message_until = 0.0
        refused = () if self._machine.may_ask else (("p", _NOT_ROOT), ("r", _NOT_ROOT))
        self._typed = Typed(refused=refused)
        self.tick()

    def close(self) -> None:
        """Hang up."""
        self._stack.close()

    def waiting(self) -> Iterator[tuple[int, Callable[[], object]]]:
        """Descriptors, and what is to be done when one is readable."""
        if self._tor is not None:
            yield self._tor.fileno(), self._hear
        if self._act is not None:
            yield self._act.fileno(), self._reap

    def tick(self) -> None:
        """Look at what does not tell of itself."""
        self._machine.look()
        if self._ledger.owners != self._machine.owners:
            self._ledger.owners = self._machine.owners
        if self._tor is None and self._paths.control_socket.exists():
            self._connect()
        self._safely(self._look_at_circuits)
        # events that came before an answer wait here
        self._hear()
        if self._typed.message and time.monotonic() > self._message_until:
            self._typed = self._typed._replace(message="")

    def view(self) -> View:
        """What is to be seen now."""
        machine = self._machine
        told = self._ledger.told()
        view = compose(machine.status, machine.owners, told, machine.rates, self._typed)
        if machine.trouble:
            return replace(view, problems=(machine.trouble, *view.problems))
        return view

    def press(self, key: str) -> bool:
        """Do what a key says; returns whether that is to quit."""
        chooser = self._typed.chooser
        if key in ("q", "gone"):
            return True
        if chooser is not None:
            self._choose(chooser, key)
        elif self._typed.help or key == "?":
            self._typed = self._typed._replace(help=not self._typed.help)
        elif why := dict(self._typed.refused).get(key):
            self._say(f"{key}: {why}")
        elif key == "n":
            self._renew()
        elif key in "pr":
            self._offer(key)
        return False

    def _connect(self) -> None:
        try:
            self._tor = self._stack.enter_context(session(self._paths, EVENTS))
            self._ledger = Ledger(self._machine.owners)
            self._identities = 0
            self._countries = sources.begin(self._tor, self._ledger)
        except TorError:
            # it is starting, or ending; the state says so
            self._disconnect()

    def _disconnect(self) -> None:
        self._stack.close()
        self._tor = None
        self._ledger = Ledger(self._machine.owners)

    def _safely(self, ask: Callable[[Session], object]) -> None:
        """Ask tor, which may end at any moment."""
        if self._tor is None:
            return
        try:
            ask(self._tor)
        except TorError as error:
            self._say(error.message)
            self._disconnect()

    def _look_at_circuits(self, tor: Session) -> None:
        sources.look_at_circuits(tor, self._ledger, countries=self._countries)

    def _hear(self) -> None:
        def hear(tor: Session) -> None:
            now = time.time()
            for event in tor.events():
                self._ledger.hear(event, now)

        self._safely(hear)
        if (identities := self._ledger.identities) > self._identities:
            self._identities = identities
            self._say("new identity: fresh circuits for everybody; open connections stay on theirs")

    def _renew(self) -> None:
        if self._tor is None:
            self._say("n: tor does not answer")
            return
        self._say("new identity asked for; tor gives one every 10 s and no sooner")
        self._safely(lambda tor: tor.ask("SIGNAL NEWNYM"))

    def _offer(self, key: str) -> None:
        if self._act is not None:
            self._say("wait: the last one is not finished")
            return
        names = self._to_pause() if key == "p" else self._paused()
        if not names:
            self._say("nobody is routed" if key == "p" else "nobody is paused")
            return
        self._typed = self._typed._replace(
            chooser=Chooser("pause" if key == "p" else "resume", names), message=""
        )

    def _choose(self, chooser: Chooser, key: str) -> None:
        match key:
            case "up" | "down":
                chosen: Chooser | None = chooser.moved(-1 if key == "up" else 1)
            case "enter":
                chosen = None
                name = chooser.names[chooser.marked]
                self._act = Act(chooser.title, name)
                self._say(f"{chooser.title} {name} …")
            case "escape":
                chosen = None
            case _:
                return
        self._typed = self._typed._replace(chooser=chosen)

    def _paused(self) -> tuple[str, ...]:
        status = self._machine.status
        return () if status is None else tuple(one["account"] for one in status.paused)

    def _to_pause(self) -> tuple[str, ...]:
        status, owners = self._machine.status, self._machine.owners
        if status is None or status.state == "off":
            return ()
        others = (
            (person.pw_name for person in pwd.getpwall() if person.pw_uid in _PERSONS)
            if Owner("host") in owners.scopes()
            else ()
        )
        names = dict.fromkeys((*owners.users, *sorted(others)))
        return tuple(name for name in names if name not in self._paused())

    def _reap(self) -> None:
        if self._act is not None and (words := self._act.read()) is not None:
            self._act = None
            self._say(words)

    def _say(self, words: str) -> None:
        self._typed = self._typed._replace(message=words)
        self._message_until = time.monotonic() + _MESSAGE


class _Signals:
    """Those that end or change a screen, as something to wait on."""

    ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, *more: signal.Signals) -> None:
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.came: list[int] = []
        for number in (*self.ENDING, *more):
            # what nohup(1) has ignored stays so
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda got, _frame: self.came.append(got))

    def fileno(self) -> int:
        return self._reader

    def read(self) -> tuple[int, ...]:
        """Which came."""
        with suppress(BlockingIOError):
            os.read(self._reader, 512)
        found, self.came = tuple(self.came), []
        return found

    @staticmethod
    def ending(came: tuple[int, ...]) -> int | None:
        """The one that ends it."""
        return next((number for number in came if number in _Signals.ENDING), None)


@contextmanager
def _watching(system: System, paths: Paths) -> Iterator[Watch]:
    watch = Watch(system, paths)
    try:
        yield watch
    finally:
        watch.close()


def run_on_screen(system: System, paths: Paths, screen: Screen, *, has_keys: bool) -> int | None:
    """Show it until somebody ends it; returns the signal that did, if one did.

    Raises:
        RefusedError: who looks may not.
        OSError: the terminal is gone.

    """
    signals = _Signals(signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
    with _watching(system, paths) as watch, screen:
        while True:
            columns, lines = screen.size()
            screen.draw(render(watch.view(), columns, lines))
            ready = _wait(watch, signals.fileno(), sys.stdin.fileno() if has_keys else -1)
            came = signals.read()
            if (ending := _Signals.ending(came)) is not None:
                return ending
            if signal.SIGTSTP in came:
                screen.leave()
                os.kill(os.getpid(), signal.SIGSTOP)
                screen.enter()
            if signal.SIGWINCH in came:
                screen.forget()
            for key in screen.read() if ready else ():
                if watch.press(key):
                    return None


def run_plain(system: System, paths: Paths) -> int | None:
    """Print changes until somebody ends it; returns the signal that did, if one did.

    Who reads may go: the next line, or poll(2), tells.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signals = _Signals()
    with _watching(system, paths) as watch:
        before: View | None = None
        while True:
            after = watch.view()
            for words in plain.changes(before, after):
                sys.stdout.write(f"{moment(time.time())} {words}\n")
            sys.stdout.flush()
            before = after
            if _wait(watch, signals.fileno(), -1, sys.stdout.fileno()):
                return signal.SIGPIPE
            if (ending := _Signals.ending(signals.read())) is not None:
                return ending


def _wait(watch: Watch, signals: int, keys: int, reader: int = -1) -> bool:
    """Until something happens; returns whether keys are there, or the reader is gone."""
    poll = select.poll()
    found = dict(watch.waiting())
    for descriptor in (signals, *found, *([keys] if keys >= 0 else [])):
        poll.register(descriptor, select.POLLIN)
    if reader >= 0:
        poll.register(reader, 0)  # only what cannot be masked: that it is gone
    ready = {descriptor for descriptor, _ in poll.poll(_TICK * 1000)}
    for descriptor, act in found.items():
        if descriptor in ready:
            act()
    watch.tick()
    return keys in ready or reader in ready


def end_as(number: int) -> None:
    """End as this signal would have ended it, now that the terminal is as it was."""
    if number == signal.SIGINT:
        return
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def refuse_who_may_not(paths: Paths) -> None:
    """Before the terminal is taken."""
    if os.geteuid() == 0:
        return
    with session(paths):
        pass
