"""A quick look at tor: what its answer means, and that a silent one costs little."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from onionward.paths import Paths
from onionward.tor.glance import Glance, look, parse

ANSWER = """\
250 OK
250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"
250+circuit-status=
1 BUILT $AA~guard1,$BB~middle1,$CC~exit1 BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL TIME_CREATED=1
2 BUILT $AA~guard1,$BB~middle2,$DD PURPOSE=CONFLUX_LINKED
3 BUILT $EE~guard2,$BB~middle2,$FF~rend BUILD_FLAGS=IS_INTERNAL,NEED_UPTIME PURPOSE=GENERAL
4 BUILT $EE~guard2 BUILD_FLAGS=ONEHOP_TUNNEL PURPOSE=GENERAL
5 EXTENDED $EE~guard2,$BB~middle2 PURPOSE=GENERAL
6 BUILT $EE~guard2,$BB~middle2,$FF~rend PURPOSE=HS_CLIENT_REND
.
250 OK
250 closing connection
"""


def test_circuits_for_traffic() -> None:
    assert parse(ANSWER) == Glance(100, "Done", ("guard1",), ("exit1", "DD"), 2)


def test_no_answer_says_nothing() -> None:
    assert parse("515 Authentication failed") == Glance()
    assert parse("") == Glance()


def paths_of(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path, tmp_path / "run", tmp_path / "resolv.conf")
    paths.tor_runtime.mkdir(parents=True)
    paths.control_cookie.write_bytes(b"\x01\xff")
    return paths


def test_asks_with_the_cookie(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(paths.control_socket))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                while not heard or b"QUIT" not in b"".join(heard):
                    heard.append(client.recv(4096))
                client.sendall(ANSWER.replace("\n", "\r\n").encode())

        thread = threading.Thread(target=serve)
        thread.start()
        found = look(paths)
        thread.join()
    assert found.exits == ("exit1", "DD")
    assert b"".join(heard).startswith(b"AUTHENTICATE 01ff\r\n")


def test_a_silent_tor_is_not_waited_for(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    assert look(paths) == Glance()  # nobody listens
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(paths.control_socket))
        server.listen()
        began = time.monotonic()
        assert look(paths) == Glance()
        assert time.monotonic() - began < 5
