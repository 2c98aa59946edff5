"""Which address a server sees: what is asked and what is understood."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.errors import RefusedError, TorError
from onionward.paths import Paths
from onionward.tor.exit_address import address_in, ask

GRANTED = b"\x05\x00\x00\x01\0\0\0\0\0\0"


@contextlib.contextmanager
def tor(paths: Paths, reply: bytes, answer: bytes) -> Iterator[list[bytes]]:
    """A SOCKS port that gives these two answers."""
    heard: list[bytes] = []
    paths.socks4.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(paths.socks4))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                for said in (b"\x05\x02", b"\x01\x00", reply):
                    heard.append(client.recv(4096))
                    client.sendall(said)
                if answer:
                    heard.append(client.recv(4096))
                    client.sendall(answer)
                else:
                    client.recv(4096)
                    client.recv(1)  # silence until the other side gives up

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")


def test_asks_by_name_on_a_circuit_of_its_own(paths: Paths) -> None:
    answer = b'HTTP/1.1 200 OK\r\nX: 1.1.1.1\r\n\r\n{"IsTor":true,"IP":"192.0.2.7"}'
    with tor(paths, GRANTED, answer) as heard:
        assert ask(paths, "http://example.test:8080/ip?x=1") == "192.0.2.7"
    assert heard[1].startswith(b"\x01\x0cexit-address\x20")
    assert heard[2] == b"\x05\x01\x00\x03\x0cexample.test\x1f\x90"
    assert heard[3].startswith(b"GET /ip?x=1 HTTP/1.0\r\nHost: example.test\r\n")


@pytest.mark.parametrize(
    ("reply", "answer", "words"),
    [
        (b"\x05\x04\x00\x01\0\0\0\0\0\0", b"", "no exit reaches example.test port 80"),
        (GRANTED, b"HTTP/1.1 503 \x1b[2J\r\n\r\n", r"answers: HTTP/1.1 503 \?\[2J"),
        (GRANTED, b"HTTP/1.1 200 OK\r\n\r\nnobody", "names no address"),
        (GRANTED, b"", "has not answered through Tor in 0.3 s"),
    ],
)
def test_says_what_went_wrong(paths: Paths, reply: bytes, answer: bytes, words: str) -> None:
    with tor(paths, reply, answer), pytest.raises(TorError, match=words):
        ask(paths, "http://example.test/", timeout=0.3)


def test_no_tor(paths: Paths) -> None:
    with pytest.raises(TorError, match="cannot be asked through Tor"):
        ask(paths, "http://example.test/")


@pytest.mark.parametrize(
    "url",
    ["", "example.test", "ftp://x/", "http://", "http://x:99999/", "http://a b/", "http://ä/",
     "http://u:p@x/", "http://x/\r\nHost: y", f"http://{'x' * 300}/"],
)  # fmt: skip
def test_what_is_no_url_asks_nobody(paths: Paths, url: str) -> None:
    with pytest.raises(RefusedError):
        ask(paths, url)


@pytest.mark.parametrize(
    ("text", "address"),
    [('{"IP":"2001:db8::7"}', "2001:db8::7"), ("192.0.2.7\n", "192.0.2.7"),
     ("You come from 192.0.2.7.", "192.0.2.7"), ("be: 1:2 192.0.2.9", "192.0.2.9")],
)  # fmt: skip
def test_the_first_address_in_an_answer(text: str, address: str) -> None:
    assert address_in(text) == address
