"""Holds the scratch network: `python -I -S scratch_inside.py RESOLV_CONF HIDDEN…`.

It imports nothing of the package, runs in network and mount namespaces of its own, says "ready"
with the process id of the far end, and stays until its input ends. There, RESOLV_CONF stands for
the machine's own file, and sockets of name services in HIDDEN directories are not to be found.
Without arguments it is the far end: what is asked by TCP has to be said to somebody.
"""

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

_DNS = 53
# of a network that is new; sysctls of the machine's may be the default of new ones
_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/forwarding": "0",
}


def _mount(*words: str) -> None:
    subprocess.run(["mount", "-n", *words], check=True)


def main() -> None:
    """Prepare, and hold."""
    for name, value in _SETTINGS.items():
        path = Path("/proc/sys") / name
        if path.exists():
            path.write_text(value)
    resolv_conf, *hidden = sys.argv[1:]
    for directory in hidden:
        if Path(directory).is_dir():
            _mount("-t", "tmpfs", "onionward-verify", directory)
    own = Path("/etc/resolv.conf").resolve()
    if own.exists():
        _mount("--bind", resolv_conf, str(own))
    elif own.parent.is_dir() and str(own.parent) in hidden:
        own.write_text(Path(resolv_conf).read_text())
    argv = ["unshare", "--net", "--", sys.executable, "-I", "-S", __file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as far:
        if far.stdout:
            far.stdout.readline()
        os.write(1, f"ready {far.pid}\n".encode())
        os.read(0, 1)


def far_end() -> None:
    """Accept what is said to a resolver, until the input ends, in the network of the far end."""
    os.write(1, b"ready\n")
    with socket.socket() as service:
        service.bind(("", _DNS))
        service.listen()
        accepted = []  # kept, so that nothing is reset
        while True:
            ready, _, _ = select.select([sys.stdin, service], [], [])
            if sys.stdin in ready:
                return
            accepted.append(service.accept())


if __name__ == "__main__":
    main() if sys.argv[1:] else far_end()
