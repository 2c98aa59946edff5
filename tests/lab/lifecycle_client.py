"""Programs of the host: `lifecycle_client.py COMMAND ARGUMENT…`. Runs inside, alone.

send KIND ADDRESS PORT    one packet or connection; prints {"error", "seconds"}
many COUNT ADDRESS        COUNT requests at once; prints the answers by path
hold ADDRESS PORT         a TCP connection; then, for each line of input, sends it and prints
                          "got …" with what comes back, or the name of the error
"""

import asyncio
import errno
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "icmp6": (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "gre": (socket.SOCK_RAW, socket.IPPROTO_GRE),
    "udplite": (socket.SOCK_DGRAM, 136),
    "raw": (socket.SOCK_RAW, 253),
}
_SILENCE = 0.8  # seconds after which nothing more is expected
_ECHO = {"icmp": b"\x08\x00\xf7\xfd\x00\x01\x00\x01", "icmp6": b"\x80\x00\x00\x00\x00\x01\x00\x01"}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def send(kind: str, address: str, port: str) -> None:
    """Say how it ends, and how quickly."""
    number, protocol = _KINDS[kind]
    made = socket.socket(_family(address), number, protocol)
    made.settimeout(3)
    ending = ""
    started = time.monotonic()
    try:
        made.connect((address, int(port) if protocol in (0, 136) else 0))
        made.send(_ECHO.get(kind, b"hello"))
        ending = "" if made.recv(100) else "closed"
    except OSError as error:
        ending = _name(error)
    json.dump({"error": ending, "seconds": time.monotonic() - started}, sys.stdout)


async def _ask(address: str, path: str) -> Any:
    reader, writer = await asyncio.open_connection(address, 80)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def _ask_all(count: int, address: str) -> dict[str, Any]:
    paths = [f"/{number}" for number in range(count)]
    answers = await asyncio.gather(*(_ask(address, path) for path in paths))
    return dict(zip(paths, answers, strict=True))


def many(count: str, address: str) -> None:
    """All at once."""
    json.dump(asyncio.run(_ask_all(int(count), address)), sys.stdout)


def _probe(source: str, address: str, wanted: str) -> str:
    kind, _, port = wanted.partition("=")
    if kind == "icmp" and ":" in address:
        kind = "icmp6"
    number, protocol = _KINDS[kind]
    made = socket.socket(_family(address), number, protocol)
    made.settimeout(_SILENCE)
    try:
        made.bind((source, 0))
        made.connect((address, int(port) if not protocol else 0))
        made.send(_ECHO.get(kind, b"hello"))
        made.recv(1000)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
    except OSError as error:
        return _name(error)
    return "answer"


def probe(source: str, address: str, wanted: list[str]) -> None:
    """From one address of this machine to another machine."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = pool.map(lambda each: _probe(source, address, each), wanted)
        json.dump(dict(zip(wanted, found, strict=True)), sys.stdout)


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def hold(address: str, port: str) -> None:
    """A connection that lives as long as this program."""
    made = socket.create_connection((address, int(port)), timeout=3)
    _say(f"open {made.getsockname()[1]}")
    for line in sys.stdin:
        try:
            made.sendall(line.encode())
            words = f"got {made.recv(1000).decode().strip()}"
        except OSError as error:
            words = _name(error)
        _say(words)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", kind, address, port]:
            send(kind, address, port)
        case ["many", count, address]:
            many(count, address)
        case ["probe", source, address, *wanted]:
            probe(source, address, wanted)
        case ["hold", address, port]:
            hold(address, port)
