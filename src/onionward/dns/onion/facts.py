"""What of a machine decides how names are resolved there: values, parsers, one reader."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onionward.dns.onion.texts import MARK, OWN_ADDRESS
from onionward.facts import find_account
from onionward.paths import PATHS, Paths
from onionward.system import System, find_tool

# resolv.conf(5): MAXNS, and what holds when there is no line
_MOST_NAMESERVERS = 3
_DEFAULT_NAMESERVER = "127.0.0.1"
_ACCOUNT = "nobody"
TOOLS = ("dnsmasq", "resolvectl", "nmcli", "systemctl", "unbound-checkconf", "networkctl")
"""Programs that one plan or the other needs."""
_WILDCARDS = ("0.0.0.0", "::", "*")  # noqa: S104  # compared, not bound
_NAME = "onionward.conf"
_UNBOUND_INCLUDE = re.compile(
    r'^\s*include(?:-toplevel)?:\s*"?([^"\s]+)/\*\.conf"?\s*(?:#.*)?$', re.MULTILINE
)
_UNIT = re.compile(r"[^/]+\.service")


@dataclass(frozen=True, slots=True)
class Server:
    """A program that answers on UDP port 53.

    Attributes:
        address: where it listens, without a zone; "0.0.0.0", "::" or "*" for every address.
        program: its name as the kernel has it (at most 15 letters).
        unit: the systemd service that it belongs to, or "".
        parent: the program that started it.
        arguments: its command line.
        config: its main configuration file, or "" when that is not known.
        directories: of configuration files that it reads, those that exist.

    """

    address: str
    program: str
    unit: str = ""
    parent: str = ""
    arguments: tuple[str, ...] = ()
    config: str = ""
    directories: tuple[str, ...] = ()

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every address."""
        return self.address in _WILDCARDS


@dataclass(frozen=True, slots=True)
class Environment:
    """How a machine resolves names.

    Attributes:
        resolv_conf: the text of /etc/resolv.conf, "" when it does not exist.
        target: where it leads when it is a link, else "".
        followed: whether every account can read that file, so that changes can be followed.
        servers: who answers on port 53, onionward's own resolver left out.
        resolved: whether systemd-resolved runs.
        networkd: whether systemd-networkd runs.
        missing: programs that are not installed, of those that may be needed.
        account: whom a resolver of our own becomes, as (account, group), or None.
        taken: files where ours would have to be, with text that is not ours.
        unusable: why resolv.conf cannot be replaced, if so.

    """

    resolv_conf: str = ""
    target: str = ""
    followed: bool = False
    servers: tuple[Server, ...] = ()
    resolved: bool = False
    networkd: bool = False
    missing: tuple[str, ...] = ()
    account: tuple[str, str] | None = ("nobody", "nogroup")
    taken: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def nameservers(self) -> tuple[str, ...]:
        """The addresses that programs ask, in order, zones included (resolv.conf(5))."""
        return nameservers(self.resolv_conf)

    def at(self, address: str) -> Server | None:
        """Who answers on an address of this machine."""
        exact = [s for s in self.servers if s.address == address]
        return next(iter([*exact, *(s for s in self.servers if s.everywhere)]), None)


def nameservers(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf; loopback when it names none."""
    rows = [line.split() for line in text.splitlines()]
    found = [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
    return tuple(found[:_MOST_NAMESERVERS]) or (_DEFAULT_NAMESERVER,)


def is_loopback(address: str) -> bool:
    """Whether an address of resolv.conf is this machine's loopback."""
    return address.startswith("127.") or address == "::1"


def is_own(address: str) -> bool:
    """Whether an address of resolv.conf is that of onionward's own resolver."""
    return address == OWN_ADDRESS


def parse_servers(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Addresses with port 53 and the processes there, out of `ss -Hlunp` (ss(8))."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not fields[3].endswith(":53"):
            continue
        address = fields[3].removesuffix(":53").replace("[", "").replace("]", "").partition("%")[0]
        pids = tuple(dict.fromkeys(int(pid) for pid in re.findall(r"\bpid=(\d+)", line)))
        found.append((address, pids))
    return tuple(found)


def unit_of(cgroup: str) -> str:
    """The service in the text of /proc/PID/cgroup, or ""."""
    for line in cgroup.splitlines():
        number, kind, path = line.split(":", 2)
        if number == "0" or kind == "name=systemd":
            units = [name for name in path.split("/") if _UNIT.fullmatch(name)]
            if units:
                return units[-1]
    return ""


def dnsmasq_configuration(arguments: Sequence[str]) -> str:
    """The main configuration file of a dnsmasq with this command line (dnsmasq(8), -C)."""
    return next(iter(_values(arguments, "-C", "--conf-file")), "/etc/dnsmasq.conf")


def dnsmasq_directories(arguments: Sequence[str], text: str) -> tuple[str, ...]:
    """Directories in which a dnsmasq reads a file named onionward.conf (dnsmasq(8), -7).

    Args:
        arguments: its command line.
        text: of its main configuration file.

    """
    values = list(_values(arguments, "-7", "--conf-dir"))
    for line in text.splitlines():
        name, _, value = line.partition("#")[0].partition("=")
        if name.strip() == "conf-dir":
            values.append(value.strip())
    found = []
    for value in values:
        directory, *patterns = value.split(",")
        # "*.x" admits names that end so, "x" or ".x" refuses them
        only = [p[1:] for p in patterns if p.startswith("*")]
        never = [p for p in patterns if p and not p.startswith("*")]
        if (not only or any(_NAME.endswith(p) for p in only)) and not any(
            _NAME.endswith(p) for p in never
        ):
            found.append(directory.rstrip("/"))
    return tuple(found)


def unbound_configuration(arguments: Sequence[str]) -> str:
    """The main configuration file of an unbound with this command line (unbound(8), -c)."""
    return next(iter(_values(arguments, "-c", "--config")), "/etc/unbound/unbound.conf")


def unbound_directories(text: str) -> tuple[str, ...]:
    """Directories of which an unbound reads every file *.conf (unbound.conf(5), include)."""
    return tuple(match[1] for match in _UNBOUND_INCLUDE.finditer(text))


def _values(arguments: Sequence[str], short: str, long: str) -> Iterable[str]:
    words = iter(arguments[1:])
    for word in words:
        if word in (short, long):
            yield next(words, "")
        elif word.startswith(f"{long}="):
            yield word.partition("=")[2]
        elif word.startswith(short) and not word.startswith("--"):
            yield word.removeprefix(short)


def environment(system: System, paths: Paths = PATHS) -> Environment:
    """Read how this machine resolves names.

    Raises:
        CommandError: sockets cannot be listed.

    """
    from onionward.dns import file
    from onionward.dns.onion import dnsmasq

    own = dnsmasq.running(paths)
    listed = parse_servers(system.query(["ss", "-Hlunp", "sport = :53"]))
    servers = tuple(_server(address, pids) for address, pids in listed if not set(pids) & set(own))
    path = paths.resolv_conf
    found = programs(("systemd-resolve", "systemd-network"))
    directories = {d for server in servers for d in server.directories}
    candidates = [f"{directory}/{_NAME}" for directory in sorted(directories)]
    return Environment(
        resolv_conf=text_of(path),
        target=target_of(path),
        followed=path.is_symlink() and _is_public(Path(target_of(path))),
        servers=servers,
        resolved="systemd-resolve" in found,
        networkd="systemd-network" in found,
        missing=tuple(tool for tool in TOOLS if find_tool(tool) is None),
        account=_account(),
        taken=tuple(name for name in candidates if _is_strange(Path(name))),
        unusable=file.unusable(path),
    )


def _server(address: str, pids: Sequence[int]) -> Server:
    if not pids:
        return Server(address, "a program that does not show itself")
    process = Path(f"/proc/{pids[0]}")
    program = text_of(process / "comm").strip()
    arguments = text_of(process / "cmdline").rstrip("\0").split("\0")
    config = ""
    found: tuple[str, ...] = ()
    if program == "dnsmasq":
        config = dnsmasq_configuration(arguments)
        found = dnsmasq_directories(arguments, text_of(Path(config)))
    elif program == "unbound":
        config = unbound_configuration(arguments)
        found = unbound_directories(text_of(Path(config)))
    return Server(
        address,
        program,
        unit=unit_of(text_of(process / "cgroup")),
        parent=_parent(process),
        arguments=tuple(arguments),
        config=config,
        directories=tuple(name for name in found if Path(name).is_dir()),
    )


def _parent(process: Path) -> str:
    for line in text_of(process / "status").splitlines():
        if line.startswith("PPid:"):
            return text_of(Path("/proc", line.split()[1], "comm")).strip()
    return ""


def is_running(program: str) -> bool:
    """Whether a program of this name (at most 15 letters) runs."""
    return bool(process_ids(program))


def process_ids(program: str) -> tuple[int, ...]:
    """The processes of a program of this name, those of containers left out."""
    pids = (name for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    found = (int(pid) for pid in pids if text_of(Path("/proc", pid, "comm")).strip() == program)
    return tuple(pid for pid in found if _is_here(pid))


def programs(names: Iterable[str]) -> frozenset[str]:
    """Which programs of these names (at most 15 letters) run, those of containers left out."""
    wanted = frozenset(names)
    found = set()
    for pid in (name for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208
        name = text_of(Path("/proc", pid, "comm")).strip()
        if name in wanted and name not in found and _is_here(int(pid)):
            found.add(name)
    return frozenset(found)


def _is_here(pid: int) -> bool:
    """Whether a process is this machine's own and no container's (pid_namespaces(7))."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except PermissionError:  # somebody else's: only root is told
        return True
    except OSError:  # it has just ended
        return False


def _account() -> tuple[str, str] | None:
    account = find_account(_ACCOUNT)
    if account is None:
        return None
    return account.name, grp.getgrgid(account.gid).gr_name


def _is_public(path: Path) -> bool:
    """Whether every account can read a file; one that does not exist yet counts with its place."""
    try:
        readable = not path.exists() or path.stat().st_mode & 0o004
        return bool(readable) and all(p.stat().st_mode & 0o001 for p in path.parents)
    except OSError:
        return False


def _is_strange(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not text_of(path).startswith(MARK))


def target_of(path: Path) -> str:
    """Where a link leads in the end, "" when it is none; one that leads to itself stays there."""
    # Path.resolve() raises where links go round in a circle
    return os.path.realpath(path) if path.is_symlink() else ""


def text_of(path: Path) -> str:
    """The text of a file, "" when there is none."""
    try:
        # a pipe has no end, and nobody may ever write to it
        return path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    except OSError:  # it does not exist, or has just ended
        return ""
