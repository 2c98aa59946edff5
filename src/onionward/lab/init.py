"""Process 1 of a lab host: reports its pid and reaps orphans until it is killed.

Runs alone, as `python -I -S init.py MARKER DIRECTORY HOST`; imports nothing of the package. The
marker and the directory are how a lab's processes are recognised, see `onionward.lab.host`.
"""

import os
import signal
import socket
import sys
from pathlib import Path


def main() -> None:
    """Report, then reap."""
    # /proc is still that of the machine, so this is the pid as the machine sees it
    pid = Path("/proc/self").readlink().name
    socket.sethostname(sys.argv[3])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, pid.encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()
