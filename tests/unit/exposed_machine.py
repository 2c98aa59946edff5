"""A machine's files below a directory, with services that act for others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from onionward.accounts import Uids, User
from onionward.facts import Account

BOB = User(Account("bob", 61002, 61002, Path("/home/bob")), frozenset({61002}))
CAROL = User(Account("carol", 61003, 61003, Path("/home/carol")), frozenset({61003, 50}))
BOXED = User(BOB.account, BOB.groups, (Uids(100000, 165535),))

RESOLVED = "run/systemd/resolve"
NSCD = "run/nscd"
AVAHI_POLICY = """<busconfig><policy context="default">
  <allow send_destination="org.freedesktop.Avahi"/></policy></busconfig>
"""


def furnish(root: Path) -> None:
    """systemd-resolved, nscd, docker and D-Bus with avahi, as Debian has them."""
    root.chmod(0o755)
    _sockets(root, RESOLVED, ("io.systemd.Resolve", "io.systemd.Resolve.Monitor"))
    _sockets(root, NSCD, ("socket",))
    _sockets(root, "run", ("docker.sock",))
    (root / "run/docker.sock").chmod(0o660)
    _sockets(root, "run/dbus", ("system_bus_socket",))
    write(root, "usr/share/dbus-1/system.conf", "<busconfig/>")
    write(root, "usr/share/dbus-1/system.d/avahi-dbus.conf", AVAHI_POLICY)
    (root / "etc/dbus-1/system.d").mkdir(parents=True)


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def _sockets(root: Path, directory: str, names: Iterable[str]) -> None:
    (root / directory).mkdir(parents=True, exist_ok=True)
    for name in names:
        os.mknod(root / directory / name, stat.S_IFSOCK | 0o666)
        (root / directory / name).chmod(0o666)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Kind, mode, owner, access control list and content of everything below."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        lists = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        text = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_ino if not path.is_file() else 0,
            lists,
            text,
        )
    return found
