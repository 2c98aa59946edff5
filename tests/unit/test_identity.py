"""The control port as messages, what streams tor tells of, and who may ask."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.errors import RefusedError, TorError
from onionward.identity import carried
from onionward.paths import Paths
from onionward.tor.session import Messages, session

SAID = (
    b"250 OK\r\n"
    b"650 STREAM 5 NEW 0 www.example.test:80\r\n"
    b"250+stream-status=\r\n5 SUCCEEDED 7 192.0.2.1:80\r\n..hidden\r\n.\r\n250 OK\r\n"
    b"650-NS\r\n650 OK\r\n"
)
MEANT = [
    (250, ("OK",)),
    (650, ("STREAM 5 NEW 0 www.example.test:80",)),
    (250, ("stream-status=", "5 SUCCEEDED 7 192.0.2.1:80", ".hidden", "OK")),
    (650, ("NS", "OK")),
]


@given(st.lists(st.integers(0, len(SAID)), max_size=8).map(sorted))
def test_messages_are_whole_wherever_they_are_cut(cuts: list[int]) -> None:
    messages = Messages()
    ends = [0, *cuts, len(SAID)]
    parts = [SAID[one:other] for one, other in itertools.pairwise(ends)]
    assert [message for part in parts for message in messages.add(part)] == MEANT


@pytest.mark.parametrize("said", [b"hello\r\n", b"25\r\n", b"250?no\r\n"])
def test_what_is_no_control_port_is_said(said: bytes) -> None:
    with pytest.raises(TorError, match="not understood"):
        Messages().add(said)


def test_streams_on_circuits() -> None:
    lines = ["5 SUCCEEDED 7 192.0.2.1:80", "6 NEW 0 192.0.2.1:80", "8 SENTRESOLVE 9 a:0", ""]
    assert [*carried(lines)] == ["5", "8"]


@pytest.fixture
def nobody() -> Iterator[None]:
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


def test_who_may_not_read_the_cookie_is_refused(tmp_path: Path, nobody: None) -> None:
    refused = pytest.raises(RefusedError, match=r"whoever may read .*control\.authcookie")
    with refused, session(Paths(runtime=Path("/proc/1/root/run"))):
        pass


def test_no_tor_is_said(tmp_path: Path) -> None:
    with pytest.raises(TorError, match="does not answer on"), session(Paths(runtime=tmp_path)):
        pass
