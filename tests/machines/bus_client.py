"""One connection to the system bus that stays: pings each service named on standard input.

A line of output per service: "answered", or the error's name. Run inside a machine, as the account
in question (D-Bus Specification, Message Protocol).
"""

from __future__ import annotations

import os
import socket
import struct
import sys

_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION = 1, 2, 3, 4, 5, 6


def _padded(data: bytes, to: int = 8) -> bytes:
    return data + bytes(-len(data) % to)


def _field(code: int, kind: bytes, value: str) -> bytes:
    return bytes([code, 1]) + kind + b"\0" + struct.pack("<I", len(value)) + value.encode() + b"\0"


def _call(serial: int, destination: str, interface: str, member: str) -> bytes:
    fields = b""
    for field in (
        _field(_PATH, b"o", "/org/freedesktop/DBus"),
        _field(_INTERFACE, b"s", interface),
        _field(_MEMBER, b"s", member),
        _field(_DESTINATION, b"s", destination),
    ):
        fields = _padded(fields) + field
    header = struct.pack("<cBBBIII", b"l", _CALL, 0, 1, 0, serial, len(fields))
    return _padded(header + fields)


def _exactly(bus: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = bus.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the bus has closed the connection")
        data += more
    return data


def _message(bus: socket.socket) -> tuple[int, dict[int, object]]:
    """Kind and header fields of the next message; strings and the serial, nothing else."""
    head = _exactly(bus, 16)
    _, kind, _, _, body, _, length = struct.unpack("<cBBBIII", head)
    raw = _exactly(bus, length + -length % 8)[:length]
    _exactly(bus, body)
    fields: dict[int, object] = {}
    at = 0
    while at < length:
        code, width = raw[at], raw[at + 1]
        signature = raw[at + 2 : at + 2 + width]
        at += 3 + width
        if signature == b"g":
            at += 2 + raw[at]
        else:
            at += -at % 4
            (number,) = struct.unpack_from("<I", raw, at)
            at += 4
            fields[code] = number
            if signature in (b"s", b"o"):
                fields[code] = raw[at : at + number].decode()
                at += number + 1
        at += -at % 8
    return kind, fields


def main() -> None:
    bus = socket.socket(socket.AF_UNIX)
    bus.connect("/run/dbus/system_bus_socket")
    bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        answer += _exactly(bus, 1)
    if not answer.startswith(b"OK"):
        raise PermissionError(answer)
    bus.sendall(b"BEGIN\r\n")
    bus.sendall(_call(1, "org.freedesktop.DBus", "org.freedesktop.DBus", "Hello"))
    serial = 1
    while True:
        kind, fields = _message(bus)
        if kind not in (_RETURN, _ERROR) or fields.get(_REPLY_SERIAL) != serial:
            continue
        sys.stdout.write(f"{'answered' if kind == _RETURN else fields[_ERROR_NAME]}\n")
        sys.stdout.flush()
        if not (line := sys.stdin.readline().strip()):
            return
        serial += 1
        bus.sendall(_call(serial, line, "org.freedesktop.DBus.Peer", "Ping"))


if __name__ == "__main__":
    main()
