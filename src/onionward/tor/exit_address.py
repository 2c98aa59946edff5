"""The address that a server sees: asked of one, through Tor.

The connection has a circuit of its own, so that whoever runs the server cannot tie it to others;
other connections may leave by other exits.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from onionward.app.rootless import socks
from onionward.errors import RefusedError, TorError
from onionward.networks import Address
from onionward.paths import Paths
from onionward.printable import printable

DEFAULT_URL = "https://check.torproject.org/api/ip"
"""Of the Tor Project; answers with the address of whoever asks."""
TIMEOUT = 20.0
"""Seconds for all of it."""
_LONGEST = 1 << 16


class _Url(NamedTuple):
    is_secure: bool
    host: str
    port: int
    path: str


def ask(paths: Paths, url: str = DEFAULT_URL, timeout: float = TIMEOUT) -> str:
    """The address from which the server at a URL is reached through Tor.

    Args:
        paths: of tor's SOCKS port.
        url: http or https; the first address in what it answers is taken.
        timeout: seconds.

    Raises:
        RefusedError: it is no such URL.
        TorError: tor or the server do not answer, or with no address.

    """
    wanted = _parsed(url)
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            _await(raw, deadline)
            raw.connect(str(paths.socks4))
            _connect(raw, wanted, deadline)
            if not wanted.is_secure:
                return address_in(_get(raw, wanted, deadline))
            import ssl

            context = ssl.create_default_context()
            with context.wrap_socket(raw, server_hostname=wanted.host) as secure:
                return address_in(_get(secure, wanted, deadline))
    except TimeoutError as error:
        raise TorError(f"{url} has not answered through Tor in {timeout:g} s") from error
    except OSError as error:
        raise TorError(f"{url} cannot be asked through Tor: {error}") from error


def _parsed(url: str) -> _Url:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedError(f"{url!r} is not a URL: {error}") from error
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise RefusedError(f"{url!r} is not a URL that can be asked; write {DEFAULT_URL}")
    if len(parts.hostname) > 255 or parts.username is not None:
        raise RefusedError(f"{url!r} has a host name that is too long, or a user name")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_secure = parts.scheme == "https"
    return _Url(is_secure, parts.hostname, port or (443 if is_secure else 80), path)


def _await(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _connect(sock: socket.socket, url: _Url, deadline: float) -> None:
    sock.sendall(socks.GREETING)
    if _exactly(sock, 2, deadline) != socks.CHOSEN:
        raise TorError("tor's SOCKS port does not take the name of a circuit")
    sock.sendall(socks.credentials(b"exit-address", os.urandom(16).hex().encode()))
    socks.accepted(_exactly(sock, 2, deadline))
    sock.sendall(socks.connect(_target(url.host), url.port))
    head = bytearray()
    while (answer := socks.reply(head)) is None:
        head += _exactly(sock, 1, deadline)
    if answer.status:
        raise TorError(f"no exit reaches {url.host} port {url.port} (SOCKS: {answer.status:#04x})")


def _target(host: str) -> Address | str:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return host


def _exactly(sock: socket.socket, size: int, deadline: float) -> bytes:
    found = b""
    while len(found) < size:
        _await(sock, deadline)
        part = sock.recv(size - len(found))
        if not part:
            raise TorError("tor has closed the connection")
        found += part
    return found


def _get(sock: socket.socket, url: _Url, deadline: float) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    lines = (f"GET {url.path} HTTP/1.0", f"Host: {host}", "Accept: */*", "", "")
    _await(sock, deadline)
    sock.sendall("\r\n".join(lines).encode("ascii"))
    found = b""
    while len(found) < _LONGEST:
        _await(sock, deadline)
        part = sock.recv(_LONGEST)
        if not part:
            break
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if not re.match(r"HTTP/1\.\d 200\b", status):
        shown = printable(status[:80])
        raise TorError(f"{url.host} answers: {shown or 'nothing'}")
    return body.decode("utf-8", "replace")


def address_in(text: str) -> str:
    """The first address in a text.

    Raises:
        TorError: there is none.

    """
    for word in re.findall(r"[0-9A-Fa-f:.]{2,45}", text):
        try:
            return str(ipaddress.ip_address(word.strip(".")))
        except ValueError:
            continue
    raise TorError("the server's answer names no address")
