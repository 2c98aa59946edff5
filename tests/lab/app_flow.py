"""A loop with one flow in it, and the other side of tor's SOCKS port, for tests."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onionward.app.rootless import socks
from onionward.app.rootless.flow import PIECE, Flow

PATIENCE = 30.0
REQUEST = socks.credentials(b"onionward", b"x") + socks.connect("www.example.test", 80)
GRANTED = b"\x05\0\0\x01" + bytes(6)


class OneLoop:
    """Waits for the descriptors of one flow, in a thread."""

    def __init__(self, *, closed: bool) -> None:
        self.buffer = memoryview(bytearray(PIECE))
        self.closed = closed
        self.is_over = threading.Event()
        self.acts: dict[int, Callable[[int], None]] = {}
        self.ticking: list[Flow] = []
        self._epoll = select.epoll()
        self._stopped = False

    def watch(self, descriptor: int, mask: int | None, act: Callable[[int], None]) -> None:
        if mask is None:
            if self.acts.pop(descriptor, None) is not None:
                self._epoll.unregister(descriptor)
        elif descriptor in self.acts:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
            self.acts[descriptor] = act

    def is_closed(self, _: Flow) -> bool:
        return self.closed

    def half_closed(self, flow: Flow) -> None:
        self.ticking.append(flow)

    def done(self, _: Flow) -> None:
        self.is_over.set()

    def run(self) -> None:
        while not (self._stopped or self.is_over.is_set()):
            for descriptor, events in self._epoll.poll(0.01):
                if act := self.acts.get(descriptor):
                    act(events)

    def stop(self) -> None:
        self._stopped = True


class Scene:
    """The command's socket, and tor's."""

    def __init__(self, command: socket.socket, tor: socket.socket, loop: OneLoop) -> None:
        self.command, self.tor, self.loop = command, tor, loop

    def greet(self) -> None:
        """As tor does until the request is there."""
        assert receive(self.tor, len(socks.GREETING)) == socks.GREETING
        self.tor.sendall(socks.CHOSEN)
        assert receive(self.tor, len(REQUEST)) == REQUEST

    def grant(self) -> None:
        self.greet()
        self.tor.sendall(b"\x01\0" + GRANTED)

    def wait_until_over(self) -> None:
        assert self.loop.is_over.wait(PATIENCE)


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or those before the end."""
    found = b""
    while len(found) < size and (piece := sock.recv(size - len(found))):
        found += piece
    return found


@contextmanager
def scene(*, closed: bool = True) -> Iterator[Scene]:
    """A flow between two sockets of the test's.

    Args:
        closed: what the kernel says when the command has ended its sending direction.

    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = socket.create_connection(server.getsockname())
        client, _ = server.accept()
    tor, ours = socket.socketpair()
    for sock in (client, ours):
        sock.setblocking(False)
    for sock in (command, tor):
        sock.settimeout(PATIENCE)
    loop = OneLoop(closed=closed)
    Flow(loop, client, ours, REQUEST, (("127.0.0.1", 1), ("127.0.0.1", 2)))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield Scene(command, tor, loop)
    finally:
        loop.stop()
        thread.join()
        for sock in (command, tor, client, ours):
            sock.close()


def send_until_full(sock: socket.socket, most: int) -> int:
    """Bytes that are taken until nothing is taken for half a second."""
    sock.settimeout(0.5)
    sent = 0
    try:
        while sent < most:
            sent += sock.send(bytes(1 << 16))
    except TimeoutError:
        return sent
    raise AssertionError(f"{sent} bytes were taken")


def receive_until_empty(sock: socket.socket) -> int:
    """Bytes that come until none come for some time."""
    sock.settimeout(0.5)
    received = 0
    try:
        while piece := sock.recv(1 << 20):
            received += len(piece)
    except TimeoutError:
        return received
    raise AssertionError("the end has come")


def poll(wanted: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.005)
