"""SOCKS messages as bytes, against RFC 1928 and tor's extensions."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.app.rootless import socks
from onionward.errors import TorError


def test_requests() -> None:
    assert socks.connect("a.onion", 80) == b"\5\1\0\3\x07a.onion\0\x50"
    address4, address6 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
    assert socks.connect(address4, 443) == b"\5\1\0\1\xc0\0\2\1\x01\xbb"
    assert socks.connect(address6, 1) == b"\5\1\0\4" + address6.packed + b"\0\1"
    assert socks.resolve_ptr(address4) == b"\5\xf1\0\1\xc0\0\2\1\0\0"
    assert socks.credentials(b"onionward", b"x") == b"\x01\x09onionward\x01x"


@pytest.mark.parametrize(("user", "password"), [(b"", b"x"), (b"x", b""), (b"x" * 256, b"x")])
def test_credentials_that_isolate_nothing_are_refused(user: bytes, password: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        socks.credentials(user, password)


@pytest.mark.parametrize(
    ("address", "name"),
    [(b"\1" + bytes(4), ""), (b"\4" + bytes(16), ""), (b"\3\x05a.b.c", "a.b.c"), (b"\3\0", "")],
)
def test_an_answer_is_read_when_it_is_whole(address: bytes, name: str) -> None:
    whole = b"\5\4\0" + address + b"\0\0"
    for length in range(len(whole)):
        assert socks.reply(whole[:length]) is None
    assert socks.reply(whole + b"payload") == socks.Reply(4, name, len(whole))


@pytest.mark.parametrize("words", [b"HTTP/1.0 200", b"\5\0\0\x09aaaa"])
def test_who_is_no_tor_is_told_so(words: bytes) -> None:
    with pytest.raises(TorError, match="not understood"):
        socks.reply(words)


def test_credentials_that_are_refused() -> None:
    assert socks.accepted(b"\1") == 0
    assert socks.accepted(b"\1\0rest") == 2
    with pytest.raises(TorError, match="refuses"):
        socks.accepted(b"\1\1")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_an_error(words: bytes) -> None:
    try:
        found = socks.reply(words)
    except TorError:
        return
    assert found is None or found.length <= len(words)
