"""What an application sees of itself and of the machine, as one line of JSON.

python3 -I app_inside.py [PATH…]      PATHs are Unix sockets to be tried, "@…" abstract ones
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import termios
from pathlib import Path


def tried(path: str) -> str:
    """What comes of connecting to a Unix socket."""
    address = f"\0{path[1:]}" if path.startswith("@") else path
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as sock:
            try:
                sock.connect(address)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    continue
                return errno.errorcode[error.errno or 0]
            return "connected"
    return "EPROTOTYPE"


def of_call(family: int) -> str:
    """What comes of making a socket of a family."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "made"


def typed() -> str:
    """What comes of typing into the terminal, for whoever reads there next."""
    try:
        fcntl.ioctl(0, termios.TIOCSTI, b"x")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "typed"


def names(directory: str) -> list[str]:
    """What is in a directory."""
    return sorted(entry.name for entry in Path(directory).iterdir())


def main() -> None:
    """Print it."""
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":\t" in line
    )
    devices = Path("/proc/net/dev").read_text().splitlines()[2:]
    told = {
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "pid": os.getpid(),
        "directory": str(Path.cwd()),
        "environment": dict(os.environ),
        "descriptors": sorted(
            int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.exists()
        ),
        "capabilities": [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
        "no_new_privileges": status["NoNewPrivs"],
        "processes": sorted(int(name) for name in names("/proc") if name.isdecimal()),
        "devices": sorted(line.split(":")[0].strip() for line in devices),
        "sys_devices": names("/sys/class/net"),
        "sockets": {path: tried(path) for path in sys.argv[1:]},
        "vsock": of_call(socket.AF_VSOCK),
        "typed": typed(),
        "run": names("/run"),
        "files": {
            name: Path(f"/etc/{name}").read_text()
            for name in ("resolv.conf", "nsswitch.conf", "hosts")
        },
    }
    print(json.dumps(told))  # noqa: T201


main()
