"""What this machine is: read once, before anything changes, into frozen values."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onionward import iproute2
from onionward.attempts.group import GROUP
from onionward.errors import CommandError
from onionward.networks import Address, Network
from onionward.paths import PATHS, Paths
from onionward.system import System, at_once, find_tool
from onionward.tables import is_of_run
from onionward.tor import directory
from onionward.tor.directory import Directory
from onionward.tor.installed import Installed, look

if TYPE_CHECKING:
    from onionward.accounts import User
    from onionward.config.values import Config

# Accounts of DHCP clients: dhclient and NetworkManager run as root, the others drop privileges.
_DHCP_ACCOUNTS = ("root", "systemd-network", "_dhcpcd", "dhcpcd")
# An attached network broader than this is a misconfiguration or an attack by DHCP (a /1 would make
# half the Internet a neighbour), so it is no neighbourhood.
_BROADEST_LINK = {4: 12, 6: 48}
_LOGGERS = Path("/proc/self/net/netfilter/nf_log")
_ASKS_FOR_NFLOG = f"table inet onionward_log {{\n chain ask {{\n log group {GROUP}\n }}\n}}\n"
_SHOW_LINKS = ("ip", "-j", "-d", "address", "show")


class Account(NamedTuple):
    """An account of the machine.

    Attributes:
        name: login name.
        uid: user id.
        gid: primary group id.
        home: home directory.

    """

    name: str
    uid: int
    gid: int
    home: Path


class Link(NamedTuple):
    """A network interface other than loopback.

    Attributes:
        name: as the kernel has it.
        addresses: its own addresses.
        networks: the networks it is attached to.
        is_bridge: whether it joins other interfaces, as those of containers and virtual machines.
        is_uplink: whether a default route leads through it.
        number: the kernel's number for it, which a new name does not change.
        master: the bridge, bond or VRF that it is a port of; "" when it is none.
        other_names: alternative ones (ip-link(8), altname).

    """

    name: str
    addresses: tuple[Address, ...]
    networks: tuple[Network, ...]
    is_bridge: bool = False
    is_uplink: bool = False
    number: int = 0
    master: str = ""
    other_names: tuple[str, ...] = ()

    @property
    def neighbours(self) -> tuple[Network, ...]:
        """Its networks, but those too broad to be believed."""
        return tuple(n for n in self.networks if n.prefixlen >= _BROADEST_LINK[n.version])


@dataclass(frozen=True, slots=True)
class Facts:
    """One reading of the machine.

    Attributes:
        effective_uid: of this process.
        nft_version: of the `nft` program, or None when it is missing.
        tor_path: the `tor` program, or None.
        missing_tools: other programs that are needed and missing.
        links: interfaces other than loopback.
        users: those accounts of the configuration that exist.
        ipv6: whether the kernel has IPv6 on loopback.
        tor_account: the account that tor is to run as, or None when it does not exist.
        account_processes: processes of that account that are not onionward's tor.
        dhcp_uids: accounts that DHCP clients run as, of those that exist.
        ephemeral_ports: first and last local port that the kernel gives to sockets
            (ip(7), ip_local_port_range).
        privileged_ports_below: ports below this need a privilege (ip_unprivileged_port_start).
        cgroup_mount: where version 2 control groups are mounted, or None.
        installed: what tor needs besides, of what the configuration names.
        directory: where relays are, if the configuration holds tor to them.
        nflog: whether the kernel tells programs of packets (nfnetlink_log); it is believed to
            where nobody can tell.

    """

    effective_uid: int
    nft_version: tuple[int, ...] | None
    tor_path: str | None
    missing_tools: tuple[str, ...]
    links: tuple[Link, ...]
    users: tuple[User, ...]
    ipv6: bool
    tor_account: Account | None
    account_processes: tuple[int, ...]
    dhcp_uids: tuple[int, ...]
    ephemeral_ports: tuple[int, int]
    privileged_ports_below: int
    cgroup_mount: Path | None
    installed: Installed = field(default=Installed())
    directory: Directory = field(default=Directory())
    nflog: bool = True

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses of this machine but loopback."""
        return tuple(address for link in self.links for address in link.addresses)


def own_addresses(system: System) -> tuple[Address, ...]:
    """All addresses of this machine but loopback, now."""
    shown = system.query(_SHOW_LINKS)
    return tuple(address for link in _links_of(shown) for address in link.addresses)


def gather(system: System, config: Config, paths: Paths = PATHS) -> Facts:
    """Read the machine, and what the configuration names of it."""
    found, tor_path = _account(config.tor.user), find_tool("tor")
    version, shown = at_once(lambda: _nft_words(system), lambda: _shown_links(system))
    return Facts(
        effective_uid=os.geteuid(),
        nft_version=None if version is None else parse_nft_version(version),
        tor_path=tor_path,
        missing_tools=missing_tools(config),
        links=_links_of(shown),
        users=_users(config),
        ipv6=_has_ipv6(),
        tor_account=found,
        account_processes=() if found is None else foreign_processes(found.uid),
        dhcp_uids=tuple(sorted(a.uid for n in _DHCP_ACCOUNTS if (a := _account(n)))),
        ephemeral_ports=_port_range(),
        privileged_ports_below=int(_sysctl("net/ipv4/ip_unprivileged_port_start", "1024")),
        cgroup_mount=cgroup_mount(Path("/proc/self/mountinfo").read_text()),
        installed=look(config),
        directory=directory.look(config, paths.tor_data, tor_path),
        nflog=_has_nflog(system),
    )


def _has_nflog(system: System) -> bool:
    """Whether nfnetlink_log is there; a rule that needs it would be refused without."""
    if any("nfnetlink_log" in line for line in _lines(_LOGGERS)):
        return True
    if os.geteuid() != 0 or find_tool("nft") is None:
        return True
    try:
        # the kernel loads the module for whoever asks
        system.query(["nft", "--check", "--file", "-"], stdin=_ASKS_FOR_NFLOG)
    except CommandError:
        return False
    return True


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def missing_tools(config: Config) -> tuple[str, ...]:
    """Programs that are needed and missing, nft and tor aside."""
    from onionward import backend

    filters = backend.tools(backend.chosen(config).NAME)
    wanted = ("ip", "ss", "conntrack", *(("sysctl",) if config.lan else ()), *filters)
    return tuple(tool for tool in wanted if find_tool(tool) is None)


def _users(config: Config) -> tuple[User, ...]:
    if not config.user:
        return ()
    from onionward.accounts import find_user

    return tuple(found for user in config.user if (found := find_user(user.name)) is not None)


def all_accounts() -> tuple[Account, ...]:
    """Every account that the machine lists."""
    entries = pwd.getpwall()
    return tuple(Account(e.pw_name, e.pw_uid, e.pw_gid, Path(e.pw_dir)) for e in entries)


def find_account(name: str) -> Account | None:
    """The account of this name, or None."""
    return _account(name)


def _nft_words(system: System) -> str | None:
    return None if find_tool("nft") is None else system.query(["nft", "--version"])


def parse_nft_version(text: str) -> tuple[int, ...]:
    """Numbers of `nft --version`; an empty tuple when there are none."""
    found = re.search(r"v(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _shown_links(system: System) -> str | None:
    return None if find_tool("ip") is None else system.query(_SHOW_LINKS)


def _links_of(shown: str | None) -> tuple[Link, ...]:
    return parse_links(iproute2.entries(shown), uplinks()) if shown else ()


def uplinks() -> frozenset[str]:
    """Interfaces of default routes (proc_pid_net(5); route.c and route.c of IPv6 print them)."""
    found = set()
    for line in _lines(Path("/proc/self/net/route"))[1:]:
        name, destination, *_, mask = line.split()[:8]
        if destination == mask == "00000000":
            found.add(name)
    for line in _lines(Path("/proc/self/net/ipv6_route")):
        columns = line.split()
        # destination, its length, …, flags, device; loopback holds the reject route
        if columns[0] == "0" * 32 and columns[1] == "00" and columns[-1] != "lo":
            found.add(columns[-1])
    return frozenset(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def parse_links(
    entries: Iterable[Mapping[str, Any]], uplinks: frozenset[str] = frozenset()
) -> tuple[Link, ...]:
    """Interfaces out of `ip -j -d address show`, loopback left out."""
    links = []
    for entry in entries:
        if "ifname" not in entry or "LOOPBACK" in entry.get("flags", ()):
            continue
        if is_of_run(entry["ifname"]):
            continue  # it leads to nobody but an application, and has rules of its own
        assigned = [a for a in entry.get("addr_info", ()) if a.get("local")]
        addresses = tuple(ipaddress.ip_address(a["local"]) for a in assigned)
        # on a point-to-point link `address` is the peer's, and the prefix belongs to it
        attached = (
            ipaddress.ip_network(f"{a.get('address', a['local'])}/{a['prefixlen']}", strict=False)
            for a in assigned
        )
        networks = tuple(attached)
        kind = entry.get("linkinfo", {}).get("info_kind")
        name = entry["ifname"]
        links.append(
            Link(
                name,
                addresses,
                networks,
                is_bridge=kind == "bridge",
                is_uplink=name in uplinks,
                number=entry.get("ifindex", 0),
                master=entry.get("master", ""),
                other_names=tuple(entry.get("altnames", ())),
            )
        )
    return tuple(links)


def _has_ipv6() -> bool:
    try:
        return "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text()
    except OSError:
        return False


def _sysctl(name: str, default: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return default


def _port_range() -> tuple[int, int]:
    low, high = _sysctl("net/ipv4/ip_local_port_range", "32768 60999").split()
    return int(low), int(high)


def cgroup_mount(mountinfo: str) -> Path | None:
    """Where version 2 control groups are mounted according to /proc/self/mountinfo (proc(5)).

    nft resolves names below /sys/fs/cgroup, so a mount elsewhere cannot be used.
    """
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            path = Path(head.split()[4])
            if path.is_relative_to("/sys/fs/cgroup"):
                return path
    return None


def foreign_processes(uid: int) -> tuple[int, ...]:
    """Processes of an account that are not onionward's own."""
    from onionward.paths import OF_RUNS
    from onionward.tor import control_filter
    from onionward.tor.process import is_own, parent_of, user_of

    def is_tor(pid: int) -> bool:
        return is_own(pid) or is_own(pid, OF_RUNS)

    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            pid = int(entry.name)
            if user_of(entry) != uid or is_tor(pid) or control_filter.is_own(pid):
                continue
            # a transport for bridges is tor's child
            if not is_tor(parent_of(entry)):
                found.append(pid)
        except OSError:
            continue  # it ended meanwhile
    return tuple(sorted(found))
