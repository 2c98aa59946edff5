"""Measures connections: `app_rootless_meter.py WHAT ADDRESS [SOCKS-SOCKET PASSWORD]`. Runs alone.

WHAT is `bytes/SIZE`, and prints the seconds until all of it was there, or `setup/COUNT`, and prints
the median of the seconds from the call of connect(2) to the first byte of an answer. With a SOCKS
socket of tor's it speaks SOCKS there, as an ordinary client does.
"""

import socket
import statistics
import sys
import time

_USER = b"onionward"


def _connected(address: str, port: int, proxy: "list[str]") -> socket.socket:
    if not proxy:
        return socket.create_connection((address, port), 60)
    path, password = proxy
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    made.connect(path)
    made.sendall(b"\x05\x01\x02")
    _take(made, 2)
    made.sendall(bytes([1, len(_USER)]) + _USER + bytes([len(password)]) + password.encode())
    _take(made, 2)
    made.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(address) + port.to_bytes(2, "big"))
    answer = _take(made, 10)
    if answer[3] == 4:
        _take(made, 12)
    if answer[1]:
        raise ConnectionError(f"tor says {answer[1]}")
    return made


def _take(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise ConnectionError("closed")
        found += piece
    return found


def _download(address: str, size: int, proxy: "list[str]") -> float:
    begun = time.perf_counter()
    received = 0
    with _connected(address, 80, proxy) as sock:
        sock.sendall(f"GET /bytes/{size} HTTP/1.0\r\n\r\n".encode())
        buffer = bytearray(1 << 18)
        while got := sock.recv_into(buffer):
            received += got
    if received < size:
        raise ConnectionError(f"{received} bytes")
    return time.perf_counter() - begun


def _setup(address: str, proxy: "list[str]") -> float:
    begun = time.perf_counter()
    with _connected(address, 7, proxy) as sock:
        sock.sendall(b"x")
        _take(sock, 1)
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    what, address, *proxy = sys.argv[1:]
    kind, _, number = what.partition("/")
    if kind == "bytes":
        print(_download(address, int(number), proxy))  # noqa: T201
    else:
        _setup(address, proxy)  # the circuit is there from here on
        found = [_setup(address, proxy) for _ in range(int(number))]
        print(statistics.median(found))  # noqa: T201


main()
