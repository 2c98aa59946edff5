"""Servers of a machine: `lifecycle_server.py KIND=PORT …`, kinds `tcp` and `udp`, both families.

Send back what comes, and say of each connection or datagram on standard output where it was for.
"""

import asyncio
import socket
import sys
from typing import cast


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _say(f"tcp {writer.get_extra_info('sockname')[1]}")
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except OSError:
        _say("broken")
    writer.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, port: int) -> None:
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        _say(f"udp {self._port}")
        self._transport.sendto(data, addr)


async def _serve(arguments: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for argument in arguments:
        kind, _, port = argument.partition("=")
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            if kind == "tcp":
                await asyncio.start_server(_echo, address, int(port), family=family)
            else:
                made = socket.socket(family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind((address, int(port)))
                await loop.create_datagram_endpoint(lambda p=int(port): _Echo(p), sock=made)  # type: ignore[misc]
    _say("ready")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
