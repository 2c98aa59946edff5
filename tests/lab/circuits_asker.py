"""A program that opens connections and asks names, one per line of input, and holds what it has.

Runs inside a machine, alone: `circuits_asker.py`. A line is JSON: `kind` ("tcp" or "name"), `to`
(address and port), `port` (its own), and if need be `bind` (an own address that may be nobody's)
and `name`. Each is answered with a line of JSON: what came back, or the error's words. Standard
input's end is its end.
"""

import json
import socket
import struct
import sys
from typing import Any

# ip(7), ipv6(7)
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_PATIENCE = 30.0


def _socket(request: dict[str, Any], kind: int) -> socket.socket:
    address = request["to"][0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    made.settimeout(_PATIENCE)
    if bind := request.get("bind", ""):
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.settimeout(1)  # answers may go to whose address it is
    made.bind((bind, request["port"]))
    return made


def _tcp(request: dict[str, Any]) -> tuple[socket.socket, str]:
    made = _socket(request, socket.SOCK_STREAM)
    # its port is free when it ends: a reset instead of TIME_WAIT
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.connect(tuple(request["to"]))
    made.sendall(request.get("say", "x").encode())
    return made, made.recv(4096).decode(errors="replace")


def _name(request: dict[str, Any]) -> str:
    """The last address of an answer."""
    labels = request["name"].encode().split(b".")
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    head = struct.pack("!6H", request["port"], 0x0100, 1, 0, 0, 0)
    with _socket(request, socket.SOCK_DGRAM) as made:
        made.connect(tuple(request["to"]))
        made.send(head + question + struct.pack("!2H", 1, 1))
        answer = made.recv(4096)
    flags, count = struct.unpack_from("!2xH2xH", answer)
    if flags & 15 or not count:
        return f"status {flags & 15}, {count} answers"
    return socket.inet_ntoa(answer[-4:])


def main() -> None:
    """Answer until the input ends."""
    held = []
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["kind"] == "tcp":
                made, heard = _tcp(request)
                held.append(made)
            else:
                heard = _name(request)
            told = {"heard": heard, "error": ""}
        except OSError as error:
            told = {"heard": "", "error": str(error)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
