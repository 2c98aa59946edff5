"""Which files of the machine a run sees otherwise: a pure plan of mounts.

The run sees the machine's files, but for these:

    /run                what is in it belongs to services; all is hidden but a few kinds of data
    sockets elsewhere   every Unix socket that somebody listens on is covered
    /etc/resolv.conf, nsswitch.conf, hosts     the run's own
    /proc, /sys         of the run's own processes and network

What is allowed by name (`onionward.app.allow`) stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

OWN = "/run/onionward-run"
"""Where a run's own files are, in its own /run."""
COVER = f"{OWN}/covered"
"""What lies over a socket: a file that nobody may open, and nobody can connect to."""

# of /run: data of which programs make use, and no way to any service
_DATA = (
    *("/run/udev/data", "/run/udev/tags", "/run/media", "/run/mount", "/run/utmp", "/run/shm"),
    *("/run/current-system", "/run/booted-system", "/run/opengl-driver", "/run/opengl-driver-32"),
)
# where sockets of services and displays appear while a run lives; and adapters that send for any
# account, whatever network it is in (rdma-system(8), netns shared)
_HIDDEN = (
    *("/tmp/.X11-unix", "/tmp/.ICE-unix", "/var/lib/sss/pipes"),  # noqa: S108
    "/dev/infiniband",
)
SYSTEM_BUS = "/run/dbus/system_bus_socket"


class Hide(NamedTuple):
    """An empty file system over a directory.

    Attributes:
        path: of the directory.
        mode: of it from then on.

    """

    path: str
    mode: int = 0o755


class Directory(NamedTuple):
    """A directory that is made where something was hidden; parents are made, too.

    Attributes:
        path: of it.
        mode: permissions.
        owned: whether the run's account owns it.

    """

    path: str
    mode: int = 0o755
    owned: bool = False


class Keep(NamedTuple):
    """A file or directory that is seen although its directory is hidden.

    Attributes:
        path: of it, before and after.

    """

    path: str


class Own(NamedTuple):
    """A file of the run's own.

    Attributes:
        path: what it takes the place of; made when it is in a directory that is hidden.
        name: its own, below `OWN`.
        text: its content.

    """

    path: str
    name: str
    text: str


class Cover(NamedTuple):
    """A socket that cannot be connected to; one that is gone by then is no failure.

    Attributes:
        path: of it.

    """

    path: str


class Proc(NamedTuple):
    """/proc of the run's own processes.

    Attributes:
        sealed: whether settings of the kernel are read-only, because they belong to root.

    """

    sealed: bool


class Sys(NamedTuple):
    """/sys of the run's own network, read-only."""


Step = Hide | Directory | Keep | Own | Cover | Proc | Sys


class View(NamedTuple):
    """What the plan is made for.

    Attributes:
        uid: of the run's account.
        environment: of the command.
        allowed: what is let through.
        sockets: absolute paths of Unix sockets of this machine.
        present: of `candidates`, what exists.
        targets: of /etc/resolv.conf, /etc/nsswitch.conf and /etc/hosts: where each leads in the
            end; "" for one that does not exist.
        nsswitch: what /etc/nsswitch.conf says.
        host_name: the machine's.
        name_server: whom the run asks for names.

    """

    uid: int
    environment: Mapping[str, str]
    allowed: frozenset[str]
    sockets: tuple[str, ...]
    present: frozenset[str]
    targets: tuple[str, str, str]
    nsswitch: str
    host_name: str
    name_server: str


def runtime_directory(uid: int) -> str:
    """Where an account's own services have their sockets (pam_systemd(8))."""
    return f"/run/user/{uid}"


def sockets_of(table: str) -> tuple[str, ...]:
    """Absolute paths out of /proc/net/unix (proc_pid_net(5)), as they were bound."""
    found = (line.split(maxsplit=7) for line in table.splitlines()[1:])
    paths = {columns[7] for columns in found if len(columns) == 8}
    return tuple(sorted(path for path in paths if path.startswith("/")))


def _normal(path: str) -> str:
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def let_through(uid: int, environment: Mapping[str, str], allowed: frozenset[str]) -> set[str]:
    """Paths of sockets (and what is needed to use them) that are allowed."""
    own = environment.get("XDG_RUNTIME_DIR") or runtime_directory(uid)
    paths = {word.removeprefix("socket:") for word in allowed if word.startswith("socket:")}
    if "display" in allowed:
        wayland = environment.get("WAYLAND_DISPLAY", "wayland-0")
        paths.add(wayland if wayland.startswith("/") else f"{own}/{wayland}")
        number = environment.get("DISPLAY", "").removeprefix("unix").removeprefix(":")
        if (number := number.partition(".")[0]).isdecimal():
            paths.add(f"/tmp/.X11-unix/X{number}")  # noqa: S108
        paths.add(environment.get("XAUTHORITY", ""))
    if "audio" in allowed:
        paths |= {f"{own}/pulse/native", f"{own}/pipewire-0"}
    if "session-bus" in allowed:
        address = environment.get("DBUS_SESSION_BUS_ADDRESS", "")
        paths |= {f"{own}/bus", address.partition("unix:path=")[2].partition(",")[0]}
    if "system-bus" in allowed:
        paths.add(SYSTEM_BUS)
    if "ssh-agent" in allowed:
        paths.add(environment.get("SSH_AUTH_SOCK", ""))
    return {_normal(path) for path in paths if path.startswith("/")}


def candidates(
    uid: int, environment: Mapping[str, str], allowed: frozenset[str]
) -> tuple[str, ...]:
    """Paths of which the plan wants to know whether they exist."""
    through = sorted(let_through(uid, environment, allowed))
    return (*_DATA, *_HIDDEN, *own_state(environment), *through)


def own_state(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where the account's own tor is: who controls that knows the machine's address."""
    chosen, home = environment.get("XDG_STATE_HOME", ""), environment.get("HOME", "")
    base = chosen if chosen.startswith("/") else f"{home}/.local/state"
    return (f"{base}/onionward",) if base.startswith("/") else ()


def plan(view: View) -> tuple[Step, ...]:
    """The mounts, in their order."""
    through = let_through(view.uid, view.environment, view.allowed) & view.present
    places = (*_HIDDEN, *own_state(view.environment))
    # what is below /run is hidden with it
    places = tuple(path for path in places if not _is_below(path, ("/run",)))
    hidden = ("/run", *(path for path in places if path in view.present))
    steps: list[Step] = [
        Hide(path, 0o1777 if path.startswith("/tmp") else 0o755)  # noqa: S108
        for path in hidden
    ]
    steps += [
        Directory(OWN),
        Directory("/run/lock", 0o1777),
        Directory("/run/user"),
        Directory(runtime_directory(view.uid), 0o700, owned=True),
    ]
    kept = [path for path in _DATA if path in view.present]
    kept += sorted(path for path in through if _is_below(path, hidden))
    steps += [Keep(path) for path in kept]
    steps += _own_files(view)
    # what is hidden with its directory needs no cover, but for what was kept of that
    steps += [
        Cover(path)
        for path in view.sockets
        if path not in through and (not _is_below(path, hidden) or _is_below(path, tuple(kept)))
    ]
    return (*steps, Sys(), Proc(sealed=view.uid == 0))


def _is_below(path: str, directories: tuple[str, ...]) -> bool:
    return any(path.startswith(f"{directory}/") for directory in directories)


def _own_files(view: View) -> list[Step]:
    texts = (
        ("resolv.conf", resolv_conf(view.name_server)),
        ("nsswitch.conf", nsswitch_conf(view.nsswitch)),
        ("hosts", hosts(view.host_name)),
    )
    return [
        Own(target, name, text)
        for target, (name, text) in zip(view.targets, texts, strict=True)
        if target
    ]


def resolv_conf(server: str) -> str:
    """The run's resolv.conf(5): names are asked of Tor, with the patience that Tor needs."""
    return f"# this run's names go through Tor\nnameserver {server}\noptions timeout:15\n"


def nsswitch_conf(text: str) -> str:
    """The run's nsswitch.conf(5): hosts are asked of files and of DNS, and of no service."""
    kept = (line for line in text.splitlines() if line.split(":")[0].strip() != "hosts")
    return "\n".join([*kept, "hosts: files dns", ""])


def hosts(host_name: str) -> str:
    """What the run reads as its table of hosts."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    if host_name and host_name != "localhost":
        lines.append(f"127.0.1.1 {host_name}")
    return "\n".join([*lines, ""])
