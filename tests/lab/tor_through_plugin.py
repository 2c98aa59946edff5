"""What any account can ask of a transport's program: SOCKS 5, RFC 1928 and 1929.

PORT ARGUMENTS ADDRESS PORT: prints the answer's code, or "silence" after four seconds.
"""

import ipaddress
import socket
import sys

proxy, arguments, address, port = sys.argv[1:]
words = arguments.encode()
with socket.create_connection(("127.0.0.1", int(proxy)), timeout=4) as connection:
    connection.sendall(b"\x05\x01\x02")
    assert connection.recv(2) == b"\x05\x02"
    connection.sendall(bytes([1, len(words)]) + words + b"\x01\x00")
    assert connection.recv(2) == b"\x01\x00"
    place = ipaddress.IPv4Address(address).packed + int(port).to_bytes(2)
    connection.sendall(b"\x05\x01\x00\x01" + place)
    try:
        answer = str(connection.recv(10)[1])
    except TimeoutError:
        answer = "silence"
    sys.stdout.write(f"{answer}\n")
