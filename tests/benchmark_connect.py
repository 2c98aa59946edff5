"""Connect again and again, as an account: python benchmark_connect.py COUNT UID ADDRESS SOURCE…

Prints the seconds that it took. Imports nothing but the standard library, and that before it
becomes the account, which may not read this Python's files.
"""

import os
import socket
import struct
import sys
import time

# closing resets, so that no port waits in TIME_WAIT
_LINGER = struct.pack("ii", 1, 0)


def main() -> None:
    """One connection after the other, from each source in turn; "any" leaves it to the kernel."""
    count, uid, to, *sources = sys.argv[1:]
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    start = time.perf_counter()
    for number in range(int(count)):
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            source = sources[number % len(sources)]
            if source != "any":
                made.bind((source, 0))
            made.connect((to, 80))
    sys.stdout.write(str(time.perf_counter() - start))


if __name__ == "__main__":
    main()
