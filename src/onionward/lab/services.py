"""The web server, echo and ticker of the lab's internet.

Runs alone, as `python -I -S services.py KIND=ADDRESS=PORT …`; imports nothing of the package.
Binds everything, then goes to the background, so that an exit status of 0 means "listening".

    http    GET / tells who asked, as JSON; GET /bytes/N sends N bytes of `content`;
            GET /api/ip says whether that is a Tor exit, in the words of check.torproject.org
    echo    TCP: sends back what comes
    udp     UDP: sends back what comes
    ticker  TCP: speaks first, one line every 0.2 s
"""

import asyncio
import functools
import hashlib
import json
import os
import random
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

_BLOCK = random.Random(0).randbytes(1 << 16)  # noqa: S311 (a test pattern)
_LARGEST = 1 << 32
_EXITS = ("198.18.3.", "2001:db8:3:")  # of onionward.lab.topology

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def content(size: int) -> Iterator[bytes]:
    """The bytes of /bytes/SIZE, the same on every machine, in pieces."""
    for _ in range(size // len(_BLOCK)):
        yield _BLOCK
    yield _BLOCK[: size % len(_BLOCK)]


@functools.lru_cache
def checksum(size: int) -> str:
    """SHA-256 of /bytes/SIZE in hexadecimal; the server sends it as X-Checksum."""
    digest = hashlib.sha256()
    for piece in content(size):
        digest.update(piece)
    return digest.hexdigest()


def _headers(status: str, kind: str, size: int, *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {size}",
        *more,
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    request, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path = [*request.split(" "), "", ""][:2]
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
    number = path.removeprefix("/bytes/")
    if path != number and number.isdecimal() and int(number) <= _LARGEST:
        size = int(number)
        sum_header = f"X-Checksum: {checksum(size)}"
        writer.write(_headers("200 OK", "application/octet-stream", size, sum_header))
        for piece in content(size) if method != "HEAD" else ():
            writer.write(piece)
            await writer.drain()
        return
    asker = writer.get_extra_info("peername")[0]
    page: dict[str, object] = {
        "client": asker,
        "port": writer.get_extra_info("peername")[1],
        "server": writer.get_extra_info("sockname")[0],
        "host": fields.get("host", ""),
        "method": method,
        "path": path,
    }
    if path == "/api/ip":
        page = {"IsTor": asker.startswith(_EXITS), "IP": asker}
    body = json.dumps(page).encode() + b"\n"
    writer.write(_headers("200 OK", "application/json", len(body)))
    writer.write(body if method != "HEAD" else b"")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def ticker(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, and go on."""
    number = 0
    while True:
        number += 1
        writer.write(f"tick {number}\n".encode())
        await writer.drain()
        await asyncio.sleep(0.2)


class _UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


def _until_closed(handler: Handler) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            writer.close()

    return handle


def _bound(kind: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind != "udp":
        made.listen(1024)
    made.settimeout(0)
    return made


async def _serve(sockets: list[tuple[str, socket.socket]]) -> None:
    handlers: dict[str, Handler] = {"http": http, "echo": echo, "ticker": ticker}
    loop = asyncio.get_running_loop()
    for kind, made in sockets:
        if kind == "udp":
            await loop.create_datagram_endpoint(_UdpEcho, sock=made)
        else:
            await asyncio.start_server(_until_closed(handlers[kind]), sock=made, backlog=1024)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Bind, go to the background, serve."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = []
    for argument in arguments:
        kind, address, port = argument.split("=")
        sockets.append((kind, _bound(kind, address, int(port))))
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    asyncio.run(_serve(sockets))


if __name__ == "__main__":
    main(sys.argv[1:])
