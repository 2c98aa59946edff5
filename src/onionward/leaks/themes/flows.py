"""Flows that outlive something: the activation, their conntrack entry, their process.

The far end of these flows is the *peer*: a server at `web4` and `web6`, TCP and UDP, which reads
one line and does what that says once it is told to go on: `hold` (nothing), `speak` (send a line),
`close`, `reset`, `segment` (send one segment by hand). `close-now` does not wait, and
`call ADDRESS PORT` makes the peer open a connection of its own from `stranger4`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Needs, Place, Probe, Vector
from onionward.leaks.settings import ip_batch, run
from onionward.leaks.sights import SEES_LETTER
from onionward.leaks.themes.inbound import segment, tcp_service
from onionward.leaks.tools import IPPROTO_MPTCP, abort, connect, from_wire, open_socket, sockaddr

NOBODY4 = "198.18.66.77"  # beyond the router, which drops what is sent there
_CONNECT_SECONDS = 20.0
_PEER_SECONDS = 0.6
_KERNEL_SECONDS = 1.3

Act = Callable[[socket.socket, Attempt], None]

SEES_FLOW = "tcp and src port {n}"
SEES_FIN = "tcp and src port {n} and tcp[13] & 1 != 0"
SEES_RST = "tcp and src port {n} and tcp[13] & 4 != 0"
SEES_FLOW6 = "ip6[6] = 6 and ip6[40:2] = {n}"
SEES_FIN6 = f"{SEES_FLOW6} and ip6[53] & 1 != 0"


def opened(attempt: Attempt, to: str, word: str, *, protocol: int = 0) -> socket.socket:
    """A connection to the peer, which has been told what to do later."""
    address = attempt.address(to)
    sock = open_socket(address, socket.SOCK_STREAM, attempt, protocol=protocol)
    try:
        if not connect(sock, address, attempt.targets.peer_port, _CONNECT_SECONDS):
            raise RuntimeError("the peer does not answer")
        sock.settimeout(None)
        sock.sendall(word.encode() + b"\n")
    except BaseException:
        abort(sock)
        raise
    return sock


def _send(sock: socket.socket, attempt: Attempt) -> None:
    sock.send(attempt.payload)


def _urgent(sock: socket.socket, attempt: Attempt) -> None:
    sock.send(attempt.payload, socket.MSG_OOB)


def _close(sock: socket.socket, _attempt: Attempt) -> None:
    sock.close()


def _half_close(sock: socket.socket, _attempt: Attempt) -> None:
    sock.shutdown(socket.SHUT_WR)


def _abort(sock: socket.socket, _attempt: Attempt) -> None:
    abort(sock)


def _await_peer(sock: socket.socket, _attempt: Attempt) -> None:
    select.select([sock], [], [], _PEER_SECONDS)


def _await_kernel(_sock: socket.socket, _attempt: Attempt) -> None:
    time.sleep(_KERNEL_SECONDS)


def _alive(sock: socket.socket, _attempt: Attempt) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)


def _fill(sock: socket.socket, attempt: Attempt) -> None:
    """Send until the far end takes no more, so that data stays in the kernel."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sock.settimeout(0)
    letter = attempt.payload * 1000
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not select.select([], [sock], [], 0.2)[1]:
            return
        with contextlib.suppress(BlockingIOError):
            sock.send(letter)
    raise RuntimeError("the far end takes everything")


def _flow(
    act: Act, *, to: str = "web4", word: str = "hold", first: Act | None = None, protocol: int = 0
) -> Probe:
    """Open before, act after."""

    def probe(attempt: Attempt) -> Iterator[None]:
        sock = opened(attempt, to, word, protocol=protocol)
        try:
            if first:
                first(sock, attempt)
            yield
            act(sock, attempt)
        finally:
            abort(sock)

    return probe


def _in_process(ending: signal.Signals | None, *, fill: bool, to: str = "web4") -> Probe:
    """The flow belongs to a process that then ends, by itself or by a signal."""

    def probe(attempt: Attempt) -> Iterator[None]:
        with opened(attempt, to, "hold") as sock:
            if fill:
                _fill(sock, attempt)
            go, tell = os.pipe()
            child = os.fork()
            if not child:
                os.close(tell)
                os.read(go, 1)
                os._exit(0)
            os.close(go)
        try:
            yield
            if ending:
                os.kill(child, ending)
        finally:
            # a byte and not the end of the pipe, which processes of other attempts hold open too
            with contextlib.suppress(BrokenPipeError):
                os.write(tell, b".")
            os.close(tell)
            os.waitpid(child, 0)
        time.sleep(0.3)

    return probe


def _called(attempt: Attempt) -> Iterator[None]:
    """A connection that a stranger opened to a service of the host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind((attempt.targets.host4, attempt.number))
        service.listen()
        service.settimeout(5)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as call:
            call.connect((attempt.targets.web4, attempt.targets.peer_port))
            call.sendall(f"call {attempt.targets.host4} {attempt.number}\n".encode())
            sock, _ = service.accept()
        try:
            yield
            sock.send(attempt.payload)
            time.sleep(0.2)
        finally:
            abort(sock)


def _unanswered(attempt: Attempt) -> Iterator[None]:
    sock = open_socket(NOBODY4, socket.SOCK_STREAM, attempt)
    try:
        sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            sock.connect((NOBODY4, 4433))
        yield
        select.select([], [sock], [], 3.2)
    finally:
        abort(sock)


def _half_open(attempt: Attempt) -> Iterator[None]:
    """A stranger's SYN whose answer is never acknowledged: the kernel repeats the answer."""
    from_wire(segment(packets.SYN, 0, who=NOBODY4))(attempt)
    yield
    time.sleep(3.2)


def _time_wait(attempt: Attempt) -> Iterator[None]:
    sock = opened(attempt, "web4", "segment")
    sock.shutdown(socket.SHUT_WR)
    sock.settimeout(5)
    sock.recv(1)
    sock.close()
    yield
    time.sleep(_PEER_SECONDS)


def _datagrams(
    to: str, *, port: int | None = None, word: str = "hold", answer: bool = True
) -> Probe:
    """A UDP flow that was answered before, and goes on after."""

    def probe(attempt: Attempt) -> Iterator[None]:
        address = attempt.address(to)
        _, where = sockaddr(address, port or attempt.targets.peer_port)
        letter = word.encode() + b"\n" if port is None else packets.dns_query(attempt.name)
        with open_socket(address, socket.SOCK_DGRAM, attempt) as sock:
            sock.connect(where)
            sock.send(letter)
            sock.settimeout(5)
            sock.recv(2000)
            if not answer:
                sock.close()
            yield
            if answer:
                sock.send(letter if port else attempt.payload)
            else:
                time.sleep(_PEER_SECONDS)

    return probe


def _subflow(attempt: Attempt) -> Iterator[None]:
    """A Multipath TCP connection opens a second path of its own accord."""
    sock = opened(attempt, "web4", "hold", protocol=IPPROTO_MPTCP)
    second = "198.18.0.222"
    try:
        yield
        ip_batch(
            f"address add {second}/24 dev {attempt.targets.device}",
            f"mptcp endpoint add {second} dev {attempt.targets.device} subflow",
        )
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            sock.send(attempt.payload)
        run("ip", "mptcp", "endpoint", "flush")
        run("ip", "address", "delete", f"{second}/24", "dev", attempt.targets.device)
    finally:
        abort(sock)


def _forgotten(act: Act, *, to: str = "web4", how: str = "flush", fill: bool = False) -> Probe:
    """Open, make connection tracking forget the flow, act."""

    def probe(attempt: Attempt) -> None:
        sock = opened(attempt, to, "hold")
        try:
            if fill:
                _fill(sock, attempt)
            _forget(attempt, how)
            act(sock, attempt)
            time.sleep(0.1)
        finally:
            abort(sock)

    return probe


def _forget(attempt: Attempt, how: str) -> None:
    family = ["-f", "ipv6"] if how.endswith("6") else []
    if how.startswith("flush"):
        run("conntrack", "-F", *family)
        return
    # with protection off there may be no entry to find, which conntrack reports as a failure
    selector = ["-p", "tcp", "--orig-port-src", str(attempt.number)]
    action = ["-U", "-t", "1"] if how == "timeout" else ["-D"]
    with contextlib.suppress(RuntimeError):
        run("conntrack", action[0], *selector, *action[1:])
    if how == "timeout":
        time.sleep(1.5)


def _forgotten_orphan(ending: signal.Signals | None) -> Probe:
    def probe(attempt: Attempt) -> None:
        rest = _in_process(ending, fill=True)(attempt)
        if rest is None:
            raise TypeError("a flow in a process prepares first")
        next(rest)
        run("conntrack", "-F")
        for _ in rest:
            raise RuntimeError("a probe waits once")

    return probe


_BEFORE: tuple[tuple[str, str, str, Probe], ...] = (
    ("send", "the application sends", SEES_LETTER, _flow(_send)),
    ("send6", "the application sends, IPv6", SEES_FLOW6, _flow(_send, to="web6")),
    ("urgent", "the application sends urgent data", SEES_FLOW, _flow(_urgent)),
    ("close", "the application closes", SEES_FIN, _flow(_close)),
    ("close6", "the application closes, IPv6", SEES_FIN6, _flow(_close, to="web6")),
    ("half-close", "the application closes one half", SEES_FIN, _flow(_half_close)),
    ("abort", "the application aborts", SEES_RST, _flow(_abort)),
    ("killed", "the application is killed", SEES_FIN, _in_process(signal.SIGKILL, fill=False)),
    ("killed-unsent", "the application is killed with data unsent", SEES_FLOW,
     _in_process(signal.SIGKILL, fill=True)),
    ("exits-unsent", "the application exits with data unsent", SEES_FLOW,
     _in_process(None, fill=True)),
    ("unsent", "the kernel goes on sending data", SEES_FLOW, _flow(_await_kernel, first=_fill)),
    ("keepalive", "the kernel sends keep-alives", SEES_FLOW, _flow(_await_kernel, first=_alive)),
    ("server-speaks", "the server speaks first", SEES_FLOW, _flow(_await_peer, word="speak")),
    ("server-speaks6", "the server speaks first, IPv6", SEES_FLOW6,
     _flow(_await_peer, word="speak", to="web6")),
    ("server-closes", "the server closes first", SEES_FLOW, _flow(_await_peer, word="close")),
    ("fin-wait", "closed here, the server goes on speaking", SEES_FLOW,
     _flow(_await_peer, word="speak", first=_half_close)),
    ("close-wait", "closed there, the application closes later", SEES_FIN,
     _flow(_close, word="close-now", first=_await_peer)),
    ("unanswered", "a SYN that nobody answered is repeated", SEES_FLOW, _unanswered),
    ("called", "a connection that a stranger had opened: the application sends", SEES_LETTER,
     _called),
)  # fmt: skip

_DATAGRAMS: tuple[tuple[str, str, str, Probe], ...] = (
    ("udp4", "the application sends", "udp and src port {n}", _datagrams("web4")),
    ("udp6", "the application sends, IPv6", "udp and src port {n}", _datagrams("web6")),
    ("dns4", "the resolver asks again", "udp and src port {n}", _datagrams("dns4", port=53)),
    ("dns6", "the resolver asks again, IPv6", "udp and src port {n}",
     _datagrams("dns6", port=53)),
    ("unreachable", "closed here, the server goes on sending", "icmp[0] = 3 and icmp[30:2] = {n}",
     _datagrams("web4", word="speak", answer=False)),
)  # fmt: skip

_UNLISTED: tuple[tuple[str, str, str, Probe], ...] = (
    ("send", "the application sends", SEES_LETTER, _flow(_send, to="neighbour4")),
    ("send6", "the application sends, IPv6", SEES_FLOW6, _flow(_send, to="neighbour6")),
    ("close", "the application closes", SEES_FIN, _flow(_close, to="neighbour4")),
    ("killed", "the application is killed with data unsent", SEES_FLOW,
     _in_process(signal.SIGKILL, fill=True, to="neighbour4")),
    ("server-speaks", "the server speaks first", SEES_FLOW,
     _flow(_await_peer, word="speak", to="neighbour4")),
    ("udp4", "UDP", "udp and src port {n}", _datagrams("neighbour4")),
    ("udp6", "UDP over IPv6", "udp and src port {n}", _datagrams("neighbour6")),
)  # fmt: skip

_FORGOTTEN: tuple[tuple[str, str, str, Probe], ...] = (
    ("send", "the application sends", SEES_LETTER, _forgotten(_send)),
    ("send6", "the application sends, IPv6", SEES_FLOW6,
     _forgotten(_send, to="web6", how="flush6")),
    ("close", "the application closes (2014)", SEES_FIN, _forgotten(_close)),
    ("close6", "the application closes, IPv6", SEES_FIN6,
     _forgotten(_close, to="web6", how="flush6")),
    ("abort", "the application aborts", SEES_RST, _forgotten(_abort)),
    ("unsent", "data is still unsent", SEES_FLOW, _forgotten(_await_kernel, fill=True)),
    ("exits", "the application exits with data unsent", SEES_FLOW, _forgotten_orphan(None)),
    ("killed", "the application is killed with data unsent", SEES_FLOW,
     _forgotten_orphan(signal.SIGKILL)),
    ("deleted", "only this entry is deleted, the application sends", SEES_LETTER,
     _forgotten(_send, how="delete")),
    ("deleted-close", "only this entry is deleted, the application closes", SEES_FIN,
     _forgotten(_close, how="delete")),
    ("expired", "the entry expires, the application sends", SEES_LETTER,
     _forgotten(_send, how="timeout")),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(f"before.{name}", "P1", f"TCP opened before: {title}", sees, probe, prepared=True)
        for name, title, sees, probe in _BEFORE
    ),
    *(
        Vector(
            f"unlisted.{name}",
            "P1",
            f"opened to a host bypassed until now: {title}",
            sees,
            probe,
            needs=Needs.BYPASS,
            prepared=True,
        )
        for name, title, sees, probe in _UNLISTED
    ),
    Vector("before.time-wait", "P3", "a connection in TIME_WAIT acknowledges", SEES_FLOW,
           _time_wait, prepared=True),
    Vector("before.half-open", "P1", "half open before: the kernel repeats its SYN/ACK",
           "tcp and dst port {n}", _half_open, place=Place.WIRE, serve=tcp_service("host4"),
           prepared=True),
    Vector("before.mptcp", "X2", "Multipath TCP opened before: the application sends", SEES_FLOW,
           _flow(_send, protocol=IPPROTO_MPTCP), prepared=True),
    Vector("before.mptcp-subflow", "X2", "Multipath TCP opened before: a second path",
           "src host 198.18.0.222 and tcp", _subflow, Account.ROOT, prepared=True),
    *(
        Vector(f"before.{name}", "P2", f"UDP opened before: {title}", sees, probe, prepared=True)
        for name, title, sees, probe in _DATAGRAMS
    ),
    *(
        Vector(f"forgotten.{name}", "C1", f"conntrack forgets a flow: {title}", sees, probe,
               Account.ROOT)
        for name, title, sees, probe in _FORGOTTEN
    ),
)  # fmt: skip
