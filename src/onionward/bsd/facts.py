"""What a BSD machine is, out of ifconfig(8), netstat(1), sysctl(8) and the accounts."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onionward import facts as linux_values
from onionward.accounts import User
from onionward.bsd.kind import Kind
from onionward.config.values import Config
from onionward.facts import Account, Facts, Link
from onionward.networks import Address, Network
from onionward.policy import Flow, Policy
from onionward.system import System, find_tool
from onionward.tor.installed import look

TOOLS = ("pfctl", "ifconfig", "netstat", "sysctl", "tcpdrop", "ps")
# dhclient and dhcpleased (OpenBSD), dhclient (FreeBSD) with their accounts
_DHCP_ACCOUNTS = ("root", "_dhcp", "_dhcpcd")
# (tcp(4), states) nothing of theirs is still to be sent
_ENDED = frozenset({"LISTEN", "TIME_WAIT", "CLOSED", "FIN_WAIT_2"})
_PORTS = {
    "openbsd": ("net.inet.ip.portfirst", "net.inet.ip.portlast"),
    "freebsd": ("net.inet.ip.portrange.first", "net.inet.ip.portrange.last"),
}


def gather(system: System, config: Config, kind: Kind) -> Facts:
    """Read the machine; what exists on Linux only is empty."""
    missing = tuple(tool for tool in TOOLS if find_tool(tool) is None)
    shown = "" if "ifconfig" in missing else system.query(["ifconfig", "-a"])
    routes = "" if "netstat" in missing else system.query(["netstat", "-rn"])
    names = (*_PORTS[kind.name],)
    ports = "" if "sysctl" in missing else system.query(["sysctl", "-n", *names])
    low, high = (int(word) for word in (ports.split() or ["1024", "65535"]))
    return Facts(
        effective_uid=os.geteuid(),
        nft_version=None,
        tor_path=find_tool("tor"),
        missing_tools=missing,
        links=parse_links(shown, parse_uplinks(routes)),
        users=_users(config),
        ipv6=has_ipv6(shown),
        tor_account=linux_values.find_account(config.tor.user),
        account_processes=(),
        dhcp_uids=tuple(sorted({a.uid for name in _DHCP_ACCOUNTS if (a := _account(name))})),
        ephemeral_ports=(min(low, high), max(low, high)),
        privileged_ports_below=1024,
        cgroup_mount=None,
        installed=look(config),
    )


def _account(name: str) -> Account | None:
    return linux_values.find_account(name)


def _users(config: Config) -> tuple[User, ...]:
    if not config.user:
        return ()
    found = []
    for user in config.user:
        try:
            entry = pwd.getpwnam(user.name)
        except KeyError:
            continue
        login = Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))
        # there are no subordinate user ids
        found.append(User(login, frozenset({login.uid}), ()))
    return tuple(found)


def _interfaces(text: str) -> Iterator[tuple[str, frozenset[str], list[str]]]:
    """Name, flags and further lines of each interface of `ifconfig -a`."""
    for block in re.split(r"\n(?=\S)", text.strip("\n")):
        found = re.match(r"([\w.]+): flags=[0-9a-f]+<([\w,]*)>", block)
        if found:
            lines = [line.strip() for line in block.splitlines()[1:]]
            yield found[1], frozenset(found[2].split(",")), lines


def parse_links(text: str, uplinks: frozenset[str] = frozenset()) -> tuple[Link, ...]:
    """Interfaces out of `ifconfig -a`, loopback and pf's own (pflog, enc) left out."""
    links = []
    for name, flags, lines in _interfaces(text):
        if "LOOPBACK" in flags or re.fullmatch(r"(pflog|pfsync|enc)\d+", name):
            continue
        addresses, networks = _assigned(lines)
        number = next((int(m[1]) for line in lines if (m := re.match(r"index (\d+)", line))), 0)
        links.append(
            Link(
                name,
                addresses,
                networks,
                is_bridge=name.startswith("bridge"),
                is_uplink=name in uplinks,
                number=number,
                master=_master(name, text),
            )
        )
    return tuple(links)


def parse_groups(text: str) -> dict[str, frozenset[str]]:
    """Groups of each interface, loopback included, out of `ifconfig -a` (ifconfig(8), group)."""
    found = {}
    for name, _, lines in _interfaces(text):
        named = next((line for line in lines if line.startswith("groups:")), "groups:")
        family = name.rstrip("0123456789")
        found[name] = frozenset((*named.split()[1:], family, "all"))
    return found


def has_ipv6(text: str) -> bool:
    """Whether loopback has an IPv6 address."""
    for _, flags, lines in _interfaces(text):
        if "LOOPBACK" in flags and any(line.startswith("inet6 ::1 ") for line in lines):
            return True
    return False


def has_interface(text: str, wanted: str) -> bool:
    """Whether there is an interface of this name."""
    return any(name == wanted for name, _, _ in _interfaces(text))


def _assigned(lines: list[str]) -> tuple[tuple[Address, ...], tuple[Network, ...]]:
    addresses: list[Address] = []
    networks: list[Network] = []
    for line in lines:
        words = line.split()
        if words[:1] not in (["inet"], ["inet6"]):
            continue
        address = ipaddress.ip_address(words[1].split("%")[0])
        # on a point-to-point link the prefix belongs to the peer
        peer = words[words.index("-->") + 1].split("%")[0] if "-->" in words else str(address)
        addresses.append(address)
        networks.append(ipaddress.ip_network(f"{peer}/{_prefix(words)}", strict=False))
    return tuple(addresses), tuple(networks)


def _prefix(words: list[str]) -> int:
    if "prefixlen" in words:
        return int(words[words.index("prefixlen") + 1])
    mask = words[words.index("netmask") + 1] if "netmask" in words else "0xffffffff"
    return int(mask, 16).bit_count()


def _master(name: str, text: str) -> str:
    """The bridge, trunk or lagg that an interface is a port of."""
    for master, _, lines in _interfaces(text):
        words = [line.split() for line in lines]
        # FreeBSD: `member: em1 flags=…`, `laggport: em1 flags=…`; OpenBSD: `em1 flags=3<…>`,
        # `trunkport em1 active`
        joined = any(
            w[:2] in (["member:", name], ["laggport:", name], ["trunkport", name])
            or (w[:1] == [name] and len(w) > 1 and w[1].startswith("flags="))
            for w in words
        )
        if joined:
            return master
    return ""


def parse_uplinks(text: str) -> frozenset[str]:
    """Interfaces of default routes out of `netstat -rn`."""
    found = set()
    column = -1
    for line in text.splitlines():
        words = line.split()
        if "Gateway" in words:
            header = "Netif" if "Netif" in words else "Iface"
            column = words.index(header) if header in words else -1
        elif words[:1] == ["default"] and 0 <= column < len(words):
            found.add(words[column])
    return frozenset(found)


class Connection(NamedTuple):
    """A TCP connection as netstat prints it.

    Attributes:
        flow: who with whom, from the peer's side.
        ends: own address and port, the peer's address and port, as tcpdrop(8) takes them.

    """

    flow: Flow
    ends: tuple[str, str, str, str]


def sockets(system: System, kind: Kind) -> tuple[frozenset[int], tuple[Connection, ...]]:
    """As `parse_sockets`, now."""
    # FreeBSD cuts addresses short without it
    wide = ["-W"] if kind.name == "freebsd" else []
    return parse_sockets(system.query(["netstat", "-an", *wide]))


def parse_sockets(text: str) -> tuple[frozenset[int], tuple[Connection, ...]]:
    """TCP ports that something listens on, and connections that may send, of `netstat -an`."""
    listening: set[int] = set()
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 6 or not words[0].startswith("tcp"):
            continue
        local, peer = _endpoint(words[3]), _endpoint(words[4])
        if words[5] == "LISTEN" and local is not None:
            listening.add(local[1])
        if words[5] in _ENDED or local is None or peer is None or not (local[0] and peer[0]):
            continue
        flow = Flow(peer[0], peer[1], local[0], local[1])
        (own, _, port), (other, _, other_port) = (w.rpartition(".") for w in words[3:5])
        found.append(Connection(flow, (own, port, other, other_port)))
    return frozenset(listening), tuple(found)


def _endpoint(text: str) -> tuple[Address | None, int] | None:
    """Address and port of `192.0.2.2.22`, `*.22`, `fe80::1%em0.22`; None when it is cut short."""
    address, _, port = text.rpartition(".")
    if not port.isdecimal():
        return None
    if address == "*":
        return None, int(port)
    try:
        return ipaddress.ip_address(address.split("%")[0]), int(port)
    except ValueError:
        return None


def inbound(
    ephemeral: tuple[int, int], listening: frozenset[int], found: tuple[Connection, ...]
) -> tuple[Connection, ...]:
    """Connections that others have opened to this machine."""
    low, high = ephemeral
    return tuple(
        one
        for one in found
        if one.flow.local_port in listening
        # a port that the kernel gives to outward connections proves nothing
        and (one.flow.local_port < 1024 or not low <= one.flow.local_port <= high)
    )


def kept(
    policy: Policy, listening: frozenset[int], found: tuple[Connection, ...]
) -> tuple[Flow, ...]:
    """Those of them that the policy lets in."""
    return tuple(
        one.flow
        for one in inbound(policy.ephemeral_ports, listening, found)
        if not one.flow.peer.is_loopback
        and policy.admits_inbound(one.flow.peer, one.flow.local_port)
    )
