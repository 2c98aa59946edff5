"""Ways out of one account's scope: other programs, other user ids, sockets of others.

They are tried with root's rights and an account that owns the sockets (`--owner` of the probe).
What an account itself can do is tried by the vectors of all other themes.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from onionward.leaks import packets
from onionward.leaks.model import Account, Attempt, Probe, Scope, Sees, Vector
from onionward.leaks.settings import new_user_namespace, owned_by
from onionward.leaks.sights import (
    SEES_LETTER,
    SEES_LETTER6,
    SEES_PING4,
    SEES_PING6,
    SEES_TCP,
    SEES_UDP,
    sees_asked,
)
from onionward.leaks.tools import abort, ask, connect, open_socket, sockaddr, tcp, udp

_STUB4, _STUB6 = "127.0.0.53", "::1"
_PATIENCE = 5.0
_ANSWER_SECONDS = 0.4
_PYTHON = Path("/usr/bin/python3")

# what a small program with one capability does: it sends what it is told to, from a raw socket
_RAW_PROGRAM = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_RAW, int(sys.argv[2])) as sock:
    try:
        sock.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[1], 0))
    except PermissionError:
        sys.exit(77)
"""
_REFUSED_STATUS = 77


# -- processes -------------------------------------------------------------------------------------


def _account(name: str) -> tuple[int, int]:
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _fork(inside: Probe, attempt: Attempt, uid: int, gid: int, *, daemon: bool = False) -> int:
    """Run a probe in a process of a user id; returns the read end of what it has to say."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        os.waitpid(child, 0)
        return reader
    words = b"broken: it said nothing"
    try:
        # orphaned, so that it is nobody's child; a daemon also leaves the session
        if os.fork():
            os._exit(0)
        if daemon:
            os.setsid()
            os.environ.clear()
        _become(uid, gid)
        words = b"sent"
        inside(attempt)
    except OSError as error:
        words = f"refused: {error.errno} {error}".encode()
    except BaseException as error:  # noqa: BLE001  a forked child must not return
        words = f"broken: {error!r}".encode()
    finally:
        os.write(writer, words)
        os._exit(0)


def _told(reader: int) -> None:
    """Wait for what a forked process says, and fail as it did."""
    with os.fdopen(reader, "rb") as stream:
        words = stream.read().decode()
    kind, _, rest = words.partition(": ")
    if kind == "refused":
        number, _, text = rest.partition(" ")
        raise OSError(int(number), text)
    if kind != "sent":
        raise RuntimeError(words or "it ended without a word")


def _with_uid(inside: Probe, *, daemon: bool = False, subordinate: bool = False) -> Probe:
    def probe(attempt: Attempt) -> None:
        uid, gid = _account(attempt.targets.user_account)
        if subordinate:
            uid = gid = attempt.targets.subordinate
        _told(_fork(inside, attempt, uid, gid, daemon=daemon))

    return probe


def _daemon_from_before(inside: Probe) -> Probe:
    """A process that was started before and acts later, as a cron job or a user service."""

    def probe(attempt: Attempt) -> Iterator[None]:
        uid, gid = _account(attempt.targets.user_account)
        go, tell = os.pipe()

        def later(waiting: Attempt) -> None:
            os.read(go, 1)
            inside(waiting)

        reader = _fork(later, attempt, uid, gid, daemon=True)
        os.close(go)
        try:
            yield
        finally:
            # a byte, because processes of other attempts hold this end open too
            os.write(tell, b".")
            os.close(tell)
        _told(reader)

    return probe


def _in_user_namespace(inside: Probe) -> Probe:
    """As root of a user namespace of one's own."""

    def probe(attempt: Attempt) -> None:
        new_user_namespace()
        inside(attempt)

    return _with_uid(probe)


# -- sockets of another account --------------------------------------------------------------------


def _held(to: str, kind: socket.SocketKind) -> Probe:
    """Root opened it before, the account's program holds it; to the kernel, root sends."""

    def probe(attempt: Attempt) -> Iterator[None]:
        address, port = attempt.address(to), attempt.targets.peer_port
        with owned_by("root"):
            sock = open_socket(address, kind, attempt)
        try:
            connect(sock, address, port, _PATIENCE)
            sock.send(b"hold\n")
            go, tell = os.pipe()

            def inside(waiting: Attempt) -> None:
                os.read(go, 1)
                sock.setblocking(True)  # noqa: FBT003
                sock.send(waiting.payload)

            uid, gid = _account(attempt.targets.user_account)
            reader = _fork(inside, attempt, uid, gid)
            os.close(go)
        finally:
            sock.close()
        try:
            yield
        finally:
            os.write(tell, b".")
            os.close(tell)
        _told(reader)

    return probe


# -- a resolver of another account -----------------------------------------------------------------


@contextlib.contextmanager
def stub(attempt: Attempt, address: str = _STUB4) -> Iterator[None]:
    """A real dnsmasq on loopback that another account runs; it asks a name server far away."""
    account = attempt.targets.other_account
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += [f"--server={attempt.targets.dns4}", f"--listen-address={address}"]
    argv += ["--bind-interfaces", f"--user={account}", "--pid-file=", "--log-facility=-"]
    argv += ["--cache-size=0"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for_stub(process, address)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_PATIENCE)


def _wait_for_stub(process: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    where = sockaddr(address, 53)
    while True:
        with owned_by("root"), socket.socket(where[0], socket.SOCK_STREAM) as sock:
            try:
                sock.connect(where[1])
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    words = process.communicate()[1]
                    raise RuntimeError(f"dnsmasq does not listen: {words}") from None
                time.sleep(0.01)
            else:
                return


def _asks_stub(address: str, kind: socket.SocketKind) -> Probe:
    def probe(attempt: Attempt) -> None:
        query = packets.dns_query(attempt.name)
        with stub(attempt, address):
            sock = open_socket(address, kind, attempt)
            try:
                if kind == socket.SOCK_DGRAM:
                    sock.sendto(query, sockaddr(address, 53)[1])
                elif connect(sock, address, 53, _ANSWER_SECONDS):
                    sock.sendall(len(query).to_bytes(2, "big") + query)
                sock.settimeout(_ANSWER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    sock.recv(2000)
            finally:
                abort(sock)

    return probe


# -- programs with capabilities --------------------------------------------------------------------


def _capable(to: str) -> Probe:
    """A ping that is not set-user-ID but has a file capability, run by the account."""

    def probe(attempt: Attempt) -> None:
        address = attempt.address(to)
        six = ":" in address
        request = packets.icmp(128 if six else 8, 0, attempt.number << 16 | 1, attempt.payload)
        protocol = packets.ICMP6 if six else packets.ICMP
        uid, gid = _account(attempt.targets.user_account)
        with owned_by("root"), tempfile.TemporaryDirectory(dir="/run") as directory:
            Path(directory).chmod(0o755)
            program = Path(directory) / "ping"
            shutil.copy(_PYTHON.resolve(), program)
            subprocess.run(["setcap", "cap_net_raw+ep", str(program)], check=True)
            argv = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", str(program)]
            argv += ["-I", "-S", "-c", _RAW_PROGRAM, address, str(protocol), request.hex()]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == _REFUSED_STATUS:
            raise PermissionError(1, "the program was refused")
        if done.returncode:
            raise RuntimeError(done.stderr)

    return probe


_TCP, _UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM

_ROWS: tuple[tuple[str, str, str, str, Probe], ...] = (
    ("subordinate.tcp4", "X3", "a subordinate user id: TCP", SEES_TCP,
     _with_uid(tcp("web4", 80), subordinate=True)),
    ("subordinate.udp4", "X3", "a subordinate user id: UDP", SEES_UDP,
     _with_uid(udp("web4", 4433), subordinate=True)),
    ("subordinate.udp6", "X3", "a subordinate user id: UDP over IPv6", SEES_UDP,
     _with_uid(udp("web6", 4433), subordinate=True)),
    ("subordinate.dns4", "X3", "a subordinate user id: DNS", SEES_UDP,
     _with_uid(ask("dns4"), subordinate=True)),
    ("subordinate.dns-tcp", "X3", "a subordinate user id: DNS over TCP", SEES_TCP,
     _with_uid(tcp("dns4", 53), subordinate=True)),
    ("namespace.tcp4", "X3", "root of a user namespace of the account: TCP", SEES_TCP,
     _in_user_namespace(tcp("web4", 80))),
    ("namespace.udp4", "X3", "root of a user namespace of the account: UDP", SEES_UDP,
     _in_user_namespace(udp("web4", 4433))),
    ("namespace.dns6", "X3", "root of a user namespace of the account: DNS over IPv6", SEES_UDP,
     _in_user_namespace(ask("dns6"))),
    ("daemon.tcp4", "U1", "a process without session or terminal: TCP", SEES_TCP,
     _with_uid(tcp("web4", 80), daemon=True)),
    ("daemon.udp6", "V6", "a process without session or terminal: UDP over IPv6", SEES_UDP,
     _with_uid(udp("web6", 4433), daemon=True)),
    ("daemon.dns4", "U1", "a process without session or terminal: DNS", SEES_UDP,
     _with_uid(ask("dns4"), daemon=True)),
    ("capable.ping4", "U1", "ping with a file capability", SEES_PING4, _capable("stranger4")),
    ("capable.ping6", "V6", "ping over IPv6 with a file capability", SEES_PING6,
     _capable("stranger6")),
)  # fmt: skip

_STUBS: tuple[tuple[str, str, Sees, Probe], ...] = (
    ("udp4", "by UDP", sees_asked(), _asks_stub(_STUB4, _UDP)),
    ("tcp4", "by TCP", sees_asked(over="tcp"), _asks_stub(_STUB4, _TCP)),
    ("udp6", "by UDP to ::1", sees_asked(), _asks_stub(_STUB6, _UDP)),
    ("tcp6", "by TCP to ::1", sees_asked(over="tcp"), _asks_stub(_STUB6, _TCP)),
)

_PREPARED: tuple[tuple[str, str, str, str, Probe], ...] = (
    ("held.tcp4", "T2", "root's connection, which the account's program holds", SEES_LETTER,
     _held("web4", _TCP)),
    ("held.tcp6", "T2", "root's IPv6 connection, which the account's program holds",
     SEES_LETTER6, _held("web6", _TCP)),
    ("held.udp4", "T2", "root's connected UDP socket, which the account's program holds", SEES_UDP,
     _held("web4", _UDP)),
    ("daemon.before-tcp4", "P1", "a process from before, without a session: TCP", SEES_TCP,
     _daemon_from_before(tcp("web4", 80))),
    ("daemon.before-udp4", "P2", "a process from before, without a session: UDP", SEES_UDP,
     _daemon_from_before(udp("web4", 4433))),
    ("daemon.before-dns4", "P2", "a process from before, without a session: DNS", SEES_UDP,
     _daemon_from_before(ask("dns4"))),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(name, family, title, sees, probe, Account.ROOT, scope=Scope.USER)
        for name, family, title, sees, probe in _ROWS
    ),
    *(
        Vector(
            f"stub.{name}",
            "D3",
            f"a resolver on loopback, run by another account, is asked {title}",
            sees,
            probe,
            Account.ROOT,
            scope=Scope.USER,
        )
        for name, title, sees, probe in _STUBS
    ),
    *(
        Vector(name, family, title, sees, probe, Account.ROOT, prepared=True, scope=Scope.USER)
        for name, family, title, sees, probe in _PREPARED
    ),
)
