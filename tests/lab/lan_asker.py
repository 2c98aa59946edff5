"""Asks at ports: `lan_asker.py KIND=ADDRESS=PORT…`. Runs inside, alone.

A TCP connection that is accepted, and a name query that anything comes back for, are an "answer";
else it was "refused" or there was "silence". Prints what came of each as JSON.
"""

import errno
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

_SECONDS = 1.5
_REFUSED = {
    *(errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES),
}
# for an address of v4.example.test
_QUERY = b"\x77\x77\x01\0\0\1\0\0\0\0\0\0\2v4\7example\4test\0\0\1\0\1"


def ask(wanted: str) -> str:
    """What comes of it."""
    kind, address, port = wanted.split("=")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    number = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, number) as made:
        made.settimeout(_SECONDS)
        try:
            made.connect((address, int(port)))
            if kind == "udp":
                made.send(_QUERY)
                made.recv(1000)
        except TimeoutError:
            return "silence"
        except OSError as error:
            if error.errno in _REFUSED:
                return "refused"
            raise
    return "answer"


if __name__ == "__main__":
    with ThreadPoolExecutor(len(sys.argv)) as pool:
        found = dict(zip(sys.argv[1:], pool.map(ask, sys.argv[1:]), strict=True))
    sys.stdout.write(json.dumps(found))
