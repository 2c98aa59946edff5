"""A connection of a rootless run: real sockets, and a test that plays the command and tor."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time

import pytest

from onionward.app.rootless.flow import HALF_CLOSED_PATIENCE, PIECE
from tests.lab.app_flow import (
    GRANTED,
    poll,
    receive,
    receive_until_empty,
    scene,
    send_until_full,
)


def test_bytes_go_both_ways_and_the_command_s_close_reaches_tor() -> None:
    with scene() as at:
        at.grant()
        at.command.sendall(b"question")
        assert receive(at.tor, 8) == b"question"
        at.tor.sendall(b"answer")
        assert receive(at.command, 6) == b"answer"
        at.command.close()
        assert at.tor.recv(1) == b""
        at.tor.close()
        at.wait_until_over()


def test_data_goes_to_tor_before_tor_has_connected() -> None:
    with scene() as at:
        at.command.sendall(b"early")
        at.greet()
        assert receive(at.tor, 5) == b"early"
        # the answer in single bytes, and the payload behind it
        for byte in b"\x01\0" + GRANTED + b"late":
            at.tor.send(bytes([byte]))
        assert receive(at.command, 4) == b"late"


def test_what_tor_would_have_to_keep_is_limited() -> None:
    with scene() as at:
        at.greet()
        sent = send_until_full(at.command, 64 << 20)
        taken = receive_until_empty(at.tor)
        assert taken <= 65536 + PIECE
        at.tor.settimeout(10)
        at.tor.sendall(GRANTED)
        assert receive(at.tor, sent - taken)


def test_a_command_that_closes_before_tor_has_connected_is_still_heard() -> None:
    with scene() as at:
        at.command.sendall(b"all of it")
        at.command.close()
        at.greet()
        assert receive(at.tor, 9) == b"all of it"
        at.tor.settimeout(0.2)
        with pytest.raises(TimeoutError):  # the end would make tor throw it away
            at.tor.recv(1)
        at.tor.sendall(GRANTED)
        at.tor.settimeout(10)
        assert at.tor.recv(1) == b""


@pytest.mark.parametrize("answer", [b"\x05\x04\0\x01" + bytes(6), b"\x05\xff", b"HTTP", b""])
def test_a_refusal_of_tor_s_is_a_reset(answer: bytes) -> None:
    with scene() as at:
        if answer == b"\x05\xff":
            at.tor.sendall(answer)
        else:
            at.greet()
            at.tor.sendall(answer)
        if not answer or answer == b"HTTP":
            at.tor.close()
        with pytest.raises(ConnectionResetError):
            at.command.recv(1)
        at.wait_until_over()


def test_the_end_of_a_stream_comes_after_its_last_byte() -> None:
    with scene() as at:
        at.grant()
        data = os.urandom(3 << 20)
        sender = threading.Thread(target=send_and_close, args=(at.tor, data))
        sender.start()
        time.sleep(0.2)  # a reader that comes late
        assert hashlib.sha256(receive(at.command, len(data) + 1)).digest() == (
            hashlib.sha256(data).digest()
        )
        sender.join()
        at.command.close()
        at.wait_until_over()


def send_and_close(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.close()


def test_a_slow_reader_holds_back_the_sender() -> None:
    with scene() as at:
        at.grant()
        # what the kernel keeps for both sockets, and one piece
        sent = send_until_full(at.tor, 64 << 20)
        received = 0
        at.tor.close()
        while piece := at.command.recv(1 << 20):
            received += len(piece)
        assert received == sent


def test_a_reset_of_the_command_s_ends_the_stream() -> None:
    with scene() as at:
        at.grant()
        at.tor.sendall(b"unread")
        at.command.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at.command.close()
        at.wait_until_over()
        assert at.tor.recv(1) == b""


def test_an_answer_to_a_half_closed_connection_arrives() -> None:
    with scene(closed=False) as at:
        at.grant()
        at.command.sendall(b"question")
        at.command.shutdown(socket.SHUT_WR)
        poll(lambda: bool(at.loop.ticking))
        assert receive(at.tor, 8) == b"question"
        # tor would end the stream if it were told
        at.tor.settimeout(0.2)
        with pytest.raises(TimeoutError):
            at.tor.recv(1)
        at.tor.sendall(b"answer")
        assert receive(at.command, 6) == b"answer"
        at.tor.close()
        assert at.command.recv(1) == b""
        at.wait_until_over()


def test_a_half_closed_connection_ends_when_no_answer_comes() -> None:
    with scene(closed=False) as at:
        at.grant()
        at.command.shutdown(socket.SHUT_WR)
        poll(lambda: bool(at.loop.ticking))
        (flow,) = at.loop.ticking
        assert flow.tick(1000.0)
        assert flow.tick(1000.0 + HALF_CLOSED_PATIENCE / 2)
        at.tor.sendall(b"one more")
        assert receive(at.command, 8) == b"one more"
        assert flow.tick(1001.0 + HALF_CLOSED_PATIENCE)
        assert not flow.tick(1002.0 + 2 * HALF_CLOSED_PATIENCE)
        assert at.tor.recv(1) == b""
        at.tor.sendall(b"the rest")
        at.tor.close()
        assert receive(at.command, 9) == b"the rest"


def test_what_nobody_takes_is_a_reset() -> None:
    with scene() as at:
        at.grant()
        at.tor.close()
        assert at.command.recv(1) == b""
        at.command.sendall(b"to nobody")
        at.wait_until_over()
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            at.command.sendall(b"to nobody")
