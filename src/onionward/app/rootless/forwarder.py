"""What carries connections and names of a rootless run to tor: one process, outside the namespace.

Its listening sockets were made inside, its connections go to tor's Unix sockets and to nothing
else: it opens no network socket of its own.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onionward.app.rootless import socks
from onionward.app.rootless.diagnosis import Diagnosis
from onionward.app.rootless.flow import PIECE, Flow
from onionward.app.rootless.inside import Inside
from onionward.app.rootless.names import VirtualNames, is_virtual
from onionward.networks import Address

if TYPE_CHECKING:
    from onionward.app.rootless.own_tor import TorSockets

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; the same number for IPv6
_SOCKADDR_IN6 = 28
_ACCEPTED_AT_ONCE = 64
_DESCRIPTORS_KEPT = 64  # not for connections
_TICK = 1.0
_RETRY = 0.01


class Forwarder:
    """A loop over all descriptors of a run.

    Args:
        inside: sockets of the namespace.
        tor: where one may listen; the first that does is used.
        credentials: by which tor tells this run's circuits from others.
        names: the table of names.
        served: told for each connection which of `tor` has taken it; -1 for none.

    """

    def __init__(
        self,
        inside: Inside,
        tor: Sequence[TorSockets],
        credentials: bytes,
        names: VirtualNames,
        served: Callable[[int, Forwarder], None],
    ) -> None:
        from onionward.app.rootless.name_server import NameServer

        self.buffer = memoryview(bytearray(PIECE))
        self.names = names
        self._inside = inside
        self._tor = tor
        self._credentials = credentials
        self._served = served
        self._diagnosis = Diagnosis(inside.diagnosis)
        self._epoll = select.epoll()
        self._acts: dict[int, Callable[[int], None]] = {}
        self._flows: set[Flow] = set()
        self._half_closed: set[Flow] = set()
        self._waiting: deque[Callable[[], None]] = deque()
        self._next_tick = 0.0
        self._accepting = True
        self._room = _room()
        for listener in inside.listeners:
            self._listen(listener)
        self._name_server = NameServer(self, inside.datagrams, inside.streams)

    def watch(self, descriptor: int, mask: int | None, act: Callable[[int], None]) -> None:
        """Call `act` with what happens to a descriptor; None ends that."""
        if mask is None:
            if self._acts.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)
        elif descriptor in self._acts:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
            self._acts[descriptor] = act

    def run(self, until: Callable[[], bool]) -> None:
        """Carry on until something says that it is enough; what that depends on is watched, too."""
        while not until():
            self._once(None)

    def finish(self, patience: float) -> None:
        """Bring to tor what an ended command has sent; then end every connection.

        Args:
            patience: seconds for it.

        """
        deadline = time.monotonic() + patience
        for listener in self._inside.listeners:
            while self._accept(listener):
                pass
        while (left := deadline - time.monotonic()) > 0 and (
            self._waiting or any(flow.is_owed for flow in self._flows)
        ):
            self._once(left)
        for flow in tuple(self._flows):
            flow.abort()

    def _once(self, longest: float | None) -> None:
        if self._half_closed:
            longest = _TICK if longest is None else min(longest, _TICK)
        if self._waiting:
            longest = _RETRY
        try:
            events = self._epoll.poll(longest)
        except InterruptedError:
            return
        for descriptor, mask in events:
            act = self._acts.get(descriptor)
            if act is not None:  # else one before has closed it
                act(mask)
        if self._waiting:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
        if self._half_closed:
            self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            for flow in tuple(self._half_closed):
                if not flow.tick(now):
                    self._half_closed.discard(flow)

    def _listen(self, listener: socket.socket) -> None:
        def act(_events: int) -> None:
            for _ in range(_ACCEPTED_AT_ONCE):
                if not self._accept(listener):
                    return

        self.watch(listener.fileno(), select.EPOLLIN, act)

    def _accept(self, listener: socket.socket) -> bool:
        if len(self._flows) + len(self._waiting) >= self._room:
            self._pause()
            return False
        try:
            client, source = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._pause()
            # what the command has given up already is no error of ours
            return error.errno == errno.ECONNABORTED
        client.settimeout(0)
        try:
            target, port, where = original_destination(client)
            request = self._request(target, port)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            request = None
        if request is None:
            _refuse(client)
        else:
            ends = ((source[0], source[1]), (where, port))
            version = target.version
            self._connect(client, version, self._credentials + request, ends)
        return True

    def _request(self, target: Address, port: int) -> bytes | None:
        if is_virtual(target):
            name = self.names.name(target)
            return None if name is None else socks.connect(name, port)
        # somebody who has asked for the listener itself
        return None if target.is_loopback else socks.connect(target, port)

    def _connect(
        self,
        client: socket.socket,
        version: int,
        request: bytes,
        ends: tuple[tuple[str, int], tuple[str, int]],
    ) -> None:
        try:
            tor = self.connected(version)
        except BlockingIOError:
            # more at once than tor's queue holds
            self._waiting.append(lambda: self._connect(client, version, request, ends))
            return
        except OSError:
            _refuse(client)
            return
        try:
            flow = Flow(self, client, tor, request, ends)
        except OSError:
            tor.close()
            _refuse(client)
        else:
            self._flows.add(flow)

    def connected(self, version: int) -> socket.socket:
        """A connection to tor's SOCKS port, not blocking.

        Args:
            version: of IP, that an exit is to prefer.

        Raises:
            BlockingIOError: tor has not taken earlier ones yet.
            OSError: tor is not there.

        """
        tor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for whose, sockets in enumerate(self._tor):
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    tor.connect(str(sockets.of(version)))
                    self._served(whose, self)
                    return tor
        except OSError:
            tor.close()
            raise
        tor.close()
        self._served(-1, self)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "there is no tor")

    @property
    def credentials(self) -> bytes:
        """By which tor tells this run's circuits from others."""
        return self._credentials

    def is_closed(self, flow: Flow) -> bool:
        """Whether the command has closed its socket, and not only one direction of it."""
        return self._diagnosis.is_closed(*flow.ends)

    def half_closed(self, flow: Flow) -> None:
        """Look at it now and then."""
        self._half_closed.add(flow)

    def done(self, flow: Flow) -> None:
        """It is over."""
        self._flows.discard(flow)
        self._half_closed.discard(flow)
        self._resume()

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._inside.listeners:
                self.watch(listener.fileno(), None, lambda _: None)

    def _resume(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self._inside.listeners:
                self._listen(listener)


def _room() -> int:
    """Raise the limit of open files as far as it goes; returns how many connections it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(1, (limit - _DESCRIPTORS_KEPT) // 2)


def _refuse(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def original_destination(client: socket.socket) -> tuple[Address, int, str]:
    """Where a redirected connection was going: address, port, and the address as text.

    Raises:
        OSError: it was not redirected.

    """
    if client.family == socket.AF_INET:
        raw = client.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        packed = raw[4:8]
    else:
        raw = client.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6)
        packed = raw[8:24]
    (port,) = struct.unpack_from("!H", raw, 2)
    return socks.address_of(packed), port, socket.inet_ntop(client.family, packed)
