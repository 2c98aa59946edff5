"""What on this machine acts in the network for a routed account, and what of it can be closed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onionward import acl
from onionward.accounts import User, WayAround
from onionward.deputies import DEPUTIES, DIRECTORIES_OF_ACCOUNTS, Deputy
from onionward.system import find_tool

_POLICY = Path("/etc/dbus-1/system.d/onionward.conf")
_BUS_SOCKET = Path("/run/dbus/system_bus_socket")
_BUS_CONFIG = Path("/usr/share/dbus-1/system.conf")
_BUS_FILES = (
    Path("/etc/dbus-1/system.d"),
    Path("/usr/share/dbus-1/system.d"),
    Path("/usr/share/dbus-1/system-services"),
    Path("/usr/local/share/dbus-1/system-services"),
)
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
RELOAD = {
    "busctl": ["busctl", "--system", "call", *_BUS, "ReloadConfig"],
    "dbus-send": [
        *("dbus-send", "--system", "--print-reply", f"--dest={_BUS[0]}"),
        *(_BUS[1], f"{_BUS[2]}.ReloadConfig"),
    ],
}


@dataclass(frozen=True, slots=True)
class Place:
    """A directory or socket that exists.

    Attributes:
        path: of it.
        way: permissions of the directories above and, last, its own.
        has_list: whether it has an access control list.
        obstacle: why it cannot be given one, or "".

    """

    path: Path
    way: tuple[acl.Permissions, ...]
    has_list: bool = False
    obstacle: str = ""

    def is_open_to(self, user: User) -> bool:
        """Whether the account gets there: into a directory, or connected to a socket."""
        *above, own = self.way
        # connect(2) wants to write to a socket (unix(7))
        wanted = acl.EXECUTE if stat.S_ISDIR(own.mode) else acl.WRITE
        needs = [*((p, acl.EXECUTE) for p in above), (own, wanted)]
        return all(p.allow(user.account.uid, user.groups, needed) for p, needed in needs)


@dataclass(frozen=True, slots=True)
class Bus:
    """The system bus of D-Bus.

    Attributes:
        names: of services that are known to it, of those listed in `deputies`.
        file: where our policy is put.
        socket: where the bus listens when it is running.
        policy: what stands in that file, or None.
        has_directory: whether there is a directory for it.
        is_running: whether it listens; otherwise it will read the policy when it starts.
        obstacle: why a policy cannot be put in force, or "".

    """

    names: frozenset[str]
    file: Path = _POLICY
    socket: Path = _BUS_SOCKET
    policy: str | None = None
    has_directory: bool = True
    is_running: bool = True
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to close on this machine.

    Attributes:
        places: directories and sockets of services, by the path that `deputies` has for them.
        bus: the system bus, or None without one.
        newuidmap: permissions of the program that hands out subordinate ids, or None.
        automounts: directories where looking up a name mounts that host (autofs(8), -hosts).
        upcalls: the kernel's helper that looks up names for whoever asks, or None
            (request-key(8), key.dns_resolver(8)).

    """

    places: Mapping[Path, Place] = field(default_factory=dict)
    bus: Bus | None = None
    newuidmap: acl.Permissions | None = None
    automounts: tuple[str, ...] = ()
    upcalls: Path | None = None

    def of(self, deputy: Deputy) -> tuple[Place, ...]:
        """The places of a service, directories first."""
        paths = (*deputy.directories, *deputy.sockets)
        return tuple(self.places[path] for path in paths if path in self.places)


def look(root: Path = Path("/")) -> Found:
    """Read what there is.

    Args:
        root: where the machine's files are; tests have others.

    Raises:
        OSError: a file of root's cannot be read.

    """
    deputies = (*DEPUTIES, *DIRECTORIES_OF_ACCOUNTS)
    paths = [path for d in deputies for path in (*d.directories, *d.sockets)]
    helper = next((p for p in (Path("/sbin/key.dns_resolver"),) if _below(root, p).exists()), None)
    mounts = _text(_below(root, Path("/proc/self/mounts")))
    return Found(
        places={path: place for path in paths if (place := _place(root, path)) is not None},
        bus=_bus(root),
        newuidmap=acl.permissions(_below(root, Path("/usr/bin/newuidmap"))),
        automounts=parse_automounts(mounts),
        upcalls=helper,
    )


def _place(root: Path, path: Path) -> Place | None:
    there = _below(root, path)
    way = []
    for step in (*acl.way_to(path), path):
        if (found := acl.permissions(_below(root, step))) is None:
            return None
        way.append(found)
    obstacle = ""
    has_list = False
    try:
        has_list = acl.read(there) is not None
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        obstacle = "its file system has no access control lists"
    if not obstacle and os.statvfs(there).f_flag & os.ST_RDONLY:
        obstacle = "its file system is read-only"
    return Place(there, tuple(way), has_list, obstacle)


def _bus(root: Path) -> Bus | None:
    socket, place = _below(root, _BUS_SOCKET), _below(root, _POLICY)
    is_running = socket.exists()
    if not is_running and not _below(root, _BUS_CONFIG).exists():
        return None
    wanted = {name for deputy in DEPUTIES for name in deputy.bus_names}
    known = set()
    for directory in _BUS_FILES:
        for file in sorted(_below(root, directory).glob("*")):
            text = _text(file)
            known |= {name for name in wanted if name in text and file != place}
    obstacle = ""
    if is_running and not any(map(find_tool, RELOAD)):
        obstacle = "neither busctl nor dbus-send is there to have the bus read it"
    elif not os.access(next(p for p in place.parents if p.is_dir()), os.W_OK):
        obstacle = f"{place.parent} cannot be written"
    return Bus(
        frozenset(known),
        place,
        socket,
        place.read_text(errors="replace") if place.is_file() else None,
        place.parent.is_dir(),
        is_running,
        obstacle,
    )


def parse_automounts(mounts: str) -> tuple[str, ...]:
    """Where hosts are mounted as their names are looked up, out of /proc/self/mounts (proc(5))."""
    lines = (line.split() for line in mounts.splitlines())
    return tuple(
        fields[1]
        for fields in lines
        if len(fields) > 2 and fields[2] == "autofs" and fields[0] in ("-hosts", "-net")
    )


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, UnicodeError):
        return ""


def ways_around(found: Found, user: User) -> tuple[WayAround, ...]:
    """What is there for the account to use and cannot be closed; `accept` may name each."""
    ways = []
    for deputy in DEPUTIES:
        reasons = [
            f"{place.path} cannot be closed: {place.obstacle}"
            for place in found.of(deputy)
            if place.obstacle and place.is_open_to(user)
        ]
        if found.bus is not None and found.bus.obstacle and set(deputy.bus_names) & found.bus.names:
            reasons.append(f"it cannot be closed on D-Bus: {found.bus.obstacle}")
        if reasons:
            ways.append(WayAround(deputy.name, f"{deputy.does} for others; {'; '.join(reasons)}"))
    for deputy in DIRECTORIES_OF_ACCOUNTS:
        if any(place.is_open_to(user) for place in found.of(deputy)):
            reason = f"{deputy.does}; closing it would close the account's own entry too"
            ways.append(WayAround(deputy.name, reason))
    ways += _of_the_kernel(found)
    ways += _of_subordinates(found, user)
    return tuple(ways)


def _of_the_kernel(found: Found) -> Iterable[WayAround]:
    for directory in found.automounts:
        yield WayAround(
            "autofs",
            f"whoever opens {directory}/NAME has root look up and mount the host of that name; "
            f"unmount {directory}",
        )
    if found.upcalls is not None:
        yield WayAround(
            "request-key",
            f"whoever asks the kernel for a key of a name has root look it up by {found.upcalls}; "
            "remove the package keyutils",
        )


def _of_subordinates(found: Found, user: User) -> Iterable[WayAround]:
    """Access control lists name single ids, and there are 65,536 subordinate ones."""
    if not user.subordinate or found.newuidmap is None:
        return
    if not found.newuidmap.allow(user.account.uid, user.groups, acl.EXECUTE):
        return
    names = [deputy.name for deputy in DEPUTIES if found.of(deputy)]
    if names:
        yield WayAround(
            "subordinate",
            f"programs in rootless containers run as {_listed(user.subordinate)}, to which "
            f"{', '.join(names)} cannot be closed; take the account's line out of /etc/subuid",
        )


def _listed(items: Iterable[object]) -> str:
    return " and ".join(map(str, items))
