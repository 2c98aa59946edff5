"""What wakes the guard: sources of events, each a descriptor to wait on and a way to read it.

None of them is asked at intervals; a guard that nothing happens to does not run.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from onionward.guard.netlink import attributes, messages, received, subscribed
from onionward.tables import is_of_run

# linux/netlink.h, linux/rtnetlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR = 16, 17, 20, 21
_ATTRIBUTE_NAME = 3  # IFLA_IFNAME
_ATTRIBUTE_ADDRESS, _ATTRIBUTE_LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL
_TENTATIVE = 0x40  # IFA_F_TENTATIVE
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_LARGEST = 1 << 18
# inotify(7)
_CHANGES = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
_INOTIFY_HEADER = struct.Struct("iIII")
# a file that is not there is watched by its directory; neither are links without an end
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# timerfd_create(2)
_ABSOLUTE_CANCEL_ON_SET = 0x1 | 0x2
_NEVER = 1 << 33  # seconds since the epoch


class Source(Protocol):
    """Something that happens."""

    def fileno(self) -> int:
        """What to wait on."""

    def read(self) -> tuple[str, ...]:
        """What has happened, in words; () when it is of no concern."""


class Rules:
    """Changes of nftables rules that name one of our tables, or one that we share.

    Args:
        tables: the beginning of the names of the tables.

    """

    def __init__(self, tables: str) -> None:
        self._socket = subscribed(_NETLINK_NETFILTER, 1 << (_NFNLGRP_NFTABLES - 1))
        self._tables = tables.encode()
        self._shared: tuple[bytes, ...] = ()

    def share(self, tables: Iterable[str]) -> None:
        """Changes of these tables are of concern from now on, too: ours are among others' rules."""
        # a name ends with a zero in a message
        self._shared = tuple(f"{name}\0".encode() for name in tables)

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def read(self) -> tuple[str, ...]:
        """Whether one of them was changed."""
        concerned = False
        for message in received(self._socket):
            concerned |= message is None or self._tables in message
            concerned |= message is not None and any(name in message for name in self._shared)
        return ("packet rules were changed",) if concerned else ()


class Links:
    """Interfaces that come, go or get another name, and addresses that come or go.

    Messages that repeat what is known (counts, lifetimes, a carrier) are no change.
    """

    def __init__(self) -> None:
        groups = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
        self._socket = subscribed(socket.NETLINK_ROUTE, groups)
        self._names = _of_machine()
        self._addresses: set[tuple[int, int, bytes]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Interfaces other than loopback, as last heard of."""
        return tuple(sorted(name for name in self._names.values() if name != "lo"))

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def read(self) -> tuple[str, ...]:
        """What has changed, in words."""
        found: list[str] = []
        for datagram in received(self._socket):
            if datagram is None:
                self._names = _of_machine()
                found.append("interfaces were changed")
                continue
            for kind, body in messages(datagram):
                if kind in (_NEWLINK, _DELLINK):
                    found += self._of_link(kind, body)
                elif kind in (_NEWADDR, _DELADDR):
                    found += self._of_address(kind, body)
        return tuple(dict.fromkeys(found))

    def _of_link(self, kind: int, body: bytes) -> Iterator[str]:
        _, _, number, _, _ = _LINK.unpack_from(body)
        # any bytes, as socket.if_nameindex reads them
        name = os.fsdecode(attributes(body[_LINK.size :]).get(_ATTRIBUTE_NAME, b"").rstrip(b"\0"))
        before = self._names.get(number)
        if is_of_run(name) and before is None:
            return
        if kind == _DELLINK:
            # a port that leaves its bridge sends this, too
            if before is not None and number not in dict(socket.if_nameindex()):
                del self._names[number]
                yield f"interface {before} has gone"
        elif name and before != name:
            self._names[number] = name
            yield (
                f"interface {name} has appeared"
                if before is None
                else (f"interface {before} is called {name} now")
            )

    def _of_address(self, kind: int, body: bytes) -> Iterator[str]:
        family, _, flags, _, number = _ADDRESS.unpack_from(body)
        found = attributes(body[_ADDRESS.size :])
        raw = found.get(_ATTRIBUTE_LOCAL, found.get(_ATTRIBUTE_ADDRESS, b""))
        name = self._names.get(number, "")
        key = (number, family, raw)
        if name in ("lo", "") or not raw or flags & _TENTATIVE:
            return
        if kind == _DELADDR:
            self._addresses.discard(key)
            yield f"an address of {name} has gone"
        elif key not in self._addresses:
            self._addresses.add(key)
            yield f"{name} has another address"


def _of_machine() -> dict[int, str]:
    """Interfaces by number, but those of applications, which come and go with them."""
    return {number: name for number, name in socket.if_nameindex() if not is_of_run(name)}


class Files:
    """Changes of some files, whether or not they exist (inotify(7)).

    Args:
        paths: the files.

    Attributes:
        unwatched: what cannot be watched and why, in words.

    Raises:
        OSError: there is no watch to be had.

    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            words = f"{os.strerror(number)} (inotify; see fs.inotify.max_user_instances)"
            raise OSError(number, words)
        self.unwatched: tuple[str, ...] = ()
        self._watched: dict[int, dict[bytes, str]] = {}
        self._itself: dict[int, str] = {}
        for path in paths:
            self._add(path)

    def _add(self, path: Path) -> None:
        # the directory tells of files that are put in its place, the file itself of writing
        directory = self._watch(path.parent)
        if directory >= 0:
            self._watched.setdefault(directory, {})[os.fsencode(path.name)] = str(path)
        itself = self._watch(path)
        if itself >= 0 and itself not in self._watched:
            self._itself[itself] = str(path)

    def _watch(self, path: Path) -> int:
        descriptor = self._library.inotify_add_watch(self._descriptor, os.fsencode(path), _CHANGES)
        if descriptor < 0 and (number := ctypes.get_errno()) not in _ABSENT:
            reason = f"{os.strerror(number)} (inotify; see fs.inotify.max_user_watches)"
            self.unwatched += (f"{path} is not watched: {reason}",)
        return int(descriptor)

    def fileno(self) -> int:
        """What to wait on."""
        return int(self._descriptor)

    def read(self) -> tuple[str, ...]:
        """Which files were changed."""
        try:
            data = os.read(self._descriptor, _LARGEST)
        except BlockingIOError:
            return ()
        found: list[str] = []
        place = 0
        while place < len(data):
            descriptor, _, _, length = _INOTIFY_HEADER.unpack_from(data, place)
            place += _INOTIFY_HEADER.size
            name = data[place : place + length].rstrip(b"\0")
            place += length
            path = self._watched.get(descriptor, {}).get(name) or self._itself.get(descriptor)
            # a queue that overflowed names nothing
            if path is not None or descriptor < 0:
                found.append(f"{path or 'a watched file'} was changed")
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """End the watch."""
        os.close(self._descriptor)


class Clock:
    """The clock is set, also by waking from suspension (timerfd_create(2), CANCEL_ON_SET)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._library.timerfd_create(
            time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC
        )
        self._arm()

    def _arm(self) -> None:
        when = struct.pack("qqqq", 0, 0, _NEVER, 0)
        if self._library.timerfd_settime(self._descriptor, _ABSOLUTE_CANCEL_ON_SET, when, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def fileno(self) -> int:
        """What to wait on."""
        return int(self._descriptor)

    def read(self) -> tuple[str, ...]:
        """That it was set."""
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return ()
        except OSError:  # ECANCELED
            self._arm()
            return ("the clock was set, or the machine has slept",)
        return ()


class Process:
    """A process ends (pidfd_open(2)).

    Args:
        pid: of it.
        words: what is said then.

    Raises:
        ProcessLookupError: it has ended already.

    """

    def __init__(self, pid: int, words: str) -> None:
        self.pid = pid
        self._words = words
        self._descriptor = os.pidfd_open(pid)

    def fileno(self) -> int:
        """What to wait on."""
        return int(self._descriptor)

    def read(self) -> tuple[str, ...]:
        """That it has ended."""
        return (self._words,)

    def close(self) -> None:
        """Wait no more."""
        os.close(self._descriptor)
