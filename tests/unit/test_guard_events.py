"""What the guard takes for a change, of what the kernel tells."""

from __future__ import annotations

import os
import resource
import socket
import struct
from pathlib import Path

import pytest

from onionward.guard import events
from onionward.guard.events import Clock, Files, Links, Process

NEWLINK, DELLINK, NEWADDR, DELADDR = 16, 17, 20, 21


def attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def link(kind: int, number: int, name: str) -> bytes:
    return message(
        kind, struct.pack("=BxHiII", 0, 1, number, 0, 0) + attribute(3, f"{name}\0".encode())
    )


def address(kind: int, number: int, text: str, flags: int = 0) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    raw = socket.inet_pton(family, text)
    return message(kind, struct.pack("=BBBBI", family, 24, flags, 0, number) + attribute(1, raw))


class Sockets:
    """The kernel's side of the sockets that are opened."""

    def __init__(self) -> None:
        self.far: list[socket.socket] = []

    def make(self, *_: object) -> socket.socket:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.settimeout(0.0)
        self.far.append(far)
        return near


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> tuple[Links, socket.socket]:
    sockets = Sockets()
    monkeypatch.setattr(events, "subscribed", sockets.make)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    return Links(), sockets.far[0]


def test_an_interface_may_have_any_bytes_for_a_name(
    links: tuple[Links, socket.socket],
) -> None:
    watch, far = links
    far.send(message(NEWLINK, struct.pack("=BxHiII", 0, 1, 3, 0, 0) + attribute(3, b"x\xffy\0")))
    assert watch.read() == ("interface x\udcffy has appeared",)
    assert watch.names == ("eth0", "x\udcffy")


def test_interfaces(links: tuple[Links, socket.socket]) -> None:
    source, kernel = links
    assert [*source.names] == ["eth0"]
    # counts, a carrier: nothing new
    kernel.send(link(NEWLINK, 2, "eth0"))
    assert source.read() == ()
    kernel.send(link(NEWLINK, 3, "wlan0") + link(NEWLINK, 4, "tun0"))
    assert source.read() == ("interface wlan0 has appeared", "interface tun0 has appeared")
    kernel.send(link(NEWLINK, 2, "uplink"))
    assert source.read() == ("interface eth0 is called uplink now",)
    assert [*source.names] == ["tun0", "uplink", "wlan0"]
    # a port that leaves its bridge is announced as if it went
    kernel.send(link(DELLINK, 2, "uplink"))
    assert source.read() == ()
    kernel.send(link(DELLINK, 3, "wlan0"))
    assert source.read() == ("interface wlan0 has gone",)
    assert [*source.names] == ["tun0", "uplink"]


def test_addresses(links: tuple[Links, socket.socket]) -> None:
    source, kernel = links
    kernel.send(address(NEWADDR, 2, "198.18.0.2"))
    assert source.read() == ("eth0 has another address",)
    # its lifetime is prolonged
    kernel.send(address(NEWADDR, 2, "198.18.0.2"))
    assert source.read() == ()
    kernel.send(address(NEWADDR, 2, "2001:db8::7", flags=0x40))
    assert source.read() == (), "nobody may use it yet"
    kernel.send(address(NEWADDR, 2, "2001:db8::7"))
    assert source.read() == ("eth0 has another address",)
    kernel.send(address(NEWADDR, 1, "127.0.0.95"))
    assert source.read() == (), "loopback is no matter"
    kernel.send(address(DELADDR, 2, "198.18.0.2"))
    assert source.read() == ("an address of eth0 has gone",)
    kernel.send(address(NEWADDR, 2, "198.18.0.2"))
    assert source.read() == ("eth0 has another address",)


@pytest.mark.parametrize("cut", range(1, 44, 3))
def test_half_a_message_is_none(links: tuple[Links, socket.socket], cut: int) -> None:
    source, kernel = links
    kernel.send(link(NEWLINK, 3, "wlan0")[:cut])
    assert source.read() == ()


def test_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = Sockets()
    monkeypatch.setattr(events, "subscribed", sockets.make)
    source = events.Rules("onionward")
    sockets.far[0].send(message(0xA00, b"\1\0\0\0" + attribute(1, b"firewalld\0")))
    assert source.read() == ()
    sockets.far[0].send(message(0xA00, b"\1\0\0\0" + attribute(1, b"onionward_l2\0")))
    assert source.read() == ("packet rules were changed",)
    # with iptables over nf_tables ours are among those of others
    theirs = message(0xA06, b"\2\0\0\0" + attribute(1, b"filter\0"))
    sockets.far[0].send(theirs)
    assert source.read() == ()
    source.share(("raw", "filter"))
    sockets.far[0].send(theirs)
    assert source.read() == ("packet rules were changed",)
    sockets.far[0].send(message(0xA06, b"\2\0\0\0" + attribute(1, b"filters\0")))
    assert source.read() == ()


def test_files(tmp_path: Path) -> None:
    place = tmp_path / "resolv.conf"
    source = Files([place])
    assert source.read() == ()
    (tmp_path / "other").write_text("nothing of ours")
    assert source.read() == ()
    said = (f"{place} was changed",)
    place.write_text("made")
    assert source.read() == said
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(place)
    assert source.read() == said
    place.unlink()
    assert source.read() == said
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source.fileno())


def test_clock_is_quiet_until_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    assert clock.read() == ()

    def cancelled(_descriptor: int, _size: int) -> bytes:
        raise OSError(125, "Operation canceled")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", cancelled)
        assert clock.read() == ("the clock was set, or the machine has slept",)
    assert clock.read() == (), "it is armed again"


def test_process_that_has_ended() -> None:
    with pytest.raises(ProcessLookupError):
        Process(1 << 22, "it has ended")


def test_no_descriptor_for_a_watch_is_said() -> None:
    held = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, held[1]))
    try:
        with pytest.raises(OSError, match=r"Too many open files.*max_user_instances"):
            Files([])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, held)
    source = Files([Path("/nowhere/at/all")])
    assert source.unwatched == ()
    source.close()
