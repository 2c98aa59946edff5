"""The machine's tor closed to the runs of some accounts: its port for them, and what is open there.

That port is a Unix socket, which no packet rule judges (`onionward.render.torrc`). Its directory
is denied to an account by an access control list (acl(5)).
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from onionward import acl
from onionward.errors import StepError
from onionward.paths import Paths
from onionward.system import System
from onionward.tor.process import user_of

_OPEN = 0o755


def apply(system: System, paths: Paths, uids: Iterable[int]) -> None:
    """Deny the port to these accounts and to nobody else; nothing happens while there is none.

    Raises:
        StepError: the file system has no access control lists.

    """
    directory = paths.socks4.parent
    if not directory.is_dir():
        return
    entries = acl.minimal(_OPEN)
    for uid in sorted(uids):
        entries = acl.denied(entries, uid)
    wanted = acl.encode(entries) if acl.names_somebody(entries) else None
    try:
        system.set_attribute(directory, acl.ATTRIBUTE, wanted)
    except OSError as error:
        if error.errno != errno.ENOTSUP or wanted is None:
            raise
        raise StepError(
            f"{directory} cannot be closed to single accounts: its file system has no access "
            "control lists, and a paused account would reach tor there",
            "mount /run as a tmpfs with CONFIG_TMPFS_POSIX_ACL, or use `onionward down`",
        ) from error


def end(system: System, paths: Paths, uids: Sequence[tuple[int, int]]) -> None:
    """End programs of these accounts that have a connection with that port: nobody can cut one."""
    shown = system.query(["ss", "-Hxp"])
    places = frozenset(map(str, (paths.socks4, paths.socks6)))
    for pid in sorted(set(speakers(shown, places))):
        try:
            uid = user_of(Path(f"/proc/{pid}"))
            if any(first <= uid <= last for first, last in uids):
                system.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile


def speakers(shown: str, places: frozenset[str]) -> Iterator[int]:
    """Processes at the other end of Unix sockets with these names, out of `ss -Hxp` (ss(8))."""
    rows = [line.split(maxsplit=8) for line in shown.splitlines()]
    whole = [row for row in rows if len(row) == 9]
    # type, state, two queues, name, inode, the peer's name and inode, programs
    peers = {row[7] for row in rows if len(row) >= 8 and row[4] in places}
    for row in whole:
        if row[5] in peers:
            yield from map(int, re.findall(r"pid=(\d+)", row[8]))
