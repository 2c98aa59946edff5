"""What is wrong with a configuration on this machine: found before anything is touched."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from onionward import backend
from onionward.config.values import Config
from onionward.facts import Facts
from onionward.networks import Network, address_range, overlapping
from onionward.system import find_tool
from onionward.tables import is_speakable
from onionward.toml_lines import KeyPath
from onionward.tor import installed
from onionward.tor.account import SYSTEM_TOR_ACCOUNTS

OLDEST_NFT = (1, 0, 6)

_PACKAGES = {
    "nft": "nftables",
    "tor": "tor",
    "ip": "iproute2",
    "ss": "iproute2",
    "conntrack": "conntrack",
    "sysctl": "procps",
}


def problems(config: Config, facts: Facts, *, create_users: bool = False) -> tuple[str, ...]:
    """Every reason why this configuration cannot be put in force here.

    Args:
        config: read and free of contradictions.
        facts: of this machine.
        create_users: whether accounts that do not exist will be created.

    """
    found = [*_rights_and_tools(config, facts)]
    for path, words in (
        *_log_problems(config),
        *_account_problems(config, facts),
        *installed.problems(config, facts.installed),
        *_relay_problems(config, facts),
        *_network_problems(config, facts),
        *_lan_problems(config, facts),
        *_user_problems(config, facts, create_users=create_users),
    ):
        found.append(config.source.locate(path, words))
    return tuple(found)


def _rights_and_tools(config: Config, facts: Facts) -> Iterator[str]:
    if facts.effective_uid != 0:
        yield (
            "this needs root, and nothing was touched: packet filters, accounts and "
            "resolv.conf are root's; use sudo"
        )
    if backend.chosen(config).NAME != "nftables":
        pass
    elif facts.nft_version is None:
        yield missing("nft")
    elif facts.nft_version < OLDEST_NFT:
        have = ".".join(map(str, facts.nft_version)) or "unknown"
        yield f"nft is version {have}; {'.'.join(map(str, OLDEST_NFT))} is the oldest that works"
    if facts.tor_path is None:
        yield missing("tor")
    for tool in facts.missing_tools:
        yield missing(tool)
    for link in facts.links:
        if not is_speakable(link.name):
            yield (
                f"interface {link.name!r} has a name that nft cannot be told; rename it: "
                "ip link set dev … name …"
            )


def missing(tool: str) -> str:
    """What to say of a program that is needed and not there."""
    return f"{tool} is missing; install it: {installing(tool)}"


def installing(tool: str) -> str:
    """The command that brings a program that is needed."""
    return f"apt install {'iptables' if 'tables-' in tool else _PACKAGES[tool]}"


def _log_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    path = config.log.attempts
    if path is None:
        return
    try:
        yield from _path_problems(path)
    except OSError as error:
        words = f"it cannot be looked at: {error.strerror}"
        yield ("log", "attempts"), words


def _path_problems(path: Path) -> Iterator[tuple[KeyPath, str]]:
    if not path.parent.is_dir():
        yield ("log", "attempts"), f"{path.parent} is no directory; make it, or name another file"
    elif path.is_symlink() or (path.exists() and not path.is_file()):
        yield ("log", "attempts"), f"{path} is no plain file; links are not followed"
    elif path.exists() and path.stat().st_uid != 0:
        yield (
            ("log", "attempts"),
            f"{path} belongs to another account than root, which would read it; remove it, or "
            "name another file",
        )


def _account_problems(config: Config, facts: Facts) -> Iterator[tuple[KeyPath, str]]:
    name = config.tor.user
    key = ("tor", "user")
    account = facts.tor_account
    if name == "root" or (account is not None and account.uid == 0):
        yield key, f"{name} is root; tor needs an account of its own"
    elif name in SYSTEM_TOR_ACCOUNTS:
        yield (
            key,
            f"{name} belongs to the system's own tor, whose traffic would leave too; "
            "leave the key out and an account is created",
        )
    elif account is None and key in config.source.lines:
        yield (
            key,
            f"there is no account {name} on this machine; leave the key out and one is created",
        )
    elif facts.account_processes:
        pids = ", ".join(map(str, facts.account_processes[:5]))
        yield (
            key,
            f"account {name} is in use (process {pids}); tor's account must be tor's alone",
        )


def _relay_problems(config: Config, facts: Facts) -> Iterator[tuple[KeyPath, str]]:
    name = backend.chosen(config).NAME
    if config.tor.strict and name != "nftables":
        yield (
            ("tor", "strict"),
            f"{name} does not hold tor to its relays; leave it out, or use nftables",
        )
    if config.tor.follows_relays and not facts.directory.first:
        where = "tor.network" if config.network_lines else f"{facts.tor_path or 'tor'} itself"
        yield (
            ("tor", "strict"),
            f"the directory authorities that tor begins with are not found in {where}, and it "
            "would reach nobody; leave strict out",
        )
    if name != "nftables" and config.tor.bridges:
        yield (
            ("tor", "bridges"),
            f"{name} does not hold tor to its bridges: other accounts could reach anything through "
            "the transport's program; use nftables",
        )


def _network_problems(config: Config, facts: Facts) -> Iterator[tuple[KeyPath, str]]:
    attached: list[tuple[str, Network]] = [
        (link.name, network) for link in facts.links for network in link.neighbours
    ]
    for virtual in config.virtual:
        for name, network in attached:
            if overlapping(virtual, network):
                yield (
                    ("tor", "virtual_networks"),
                    f"{virtual} overlaps {network} ({address_range(network)}) of interface {name}; "
                    "take another virtual network",
                )


def _lan_problems(config: Config, facts: Facts) -> Iterator[tuple[KeyPath, str]]:
    links = {link.name: link for link in facts.links}
    behind = {lan.interface: number for number, lan in enumerate(config.lan)}
    for index, lan in enumerate(config.lan):
        path = ("lan", index, "interface")
        link = links.get(lan.interface)
        named = next((one for one in facts.links if lan.interface in one.other_names), None)
        if named is not None:
            yield path, f"{lan.interface} is another name of {named.name}; write {named.name}"
        elif link is None and not lan.hotplug:
            known = ", ".join(sorted(links)) or "none"
            yield (
                path,
                f"there is no interface {lan.interface} (there is: {known}); if it appears later, "
                "add hotplug = true",
            )
        if link is None:
            continue
        if link.master:
            yield (
                path,
                f"{lan.interface} is a port of {link.master}: what its clients send arrives at "
                f"{link.master}; name that interface",
            )
        if link.is_uplink:
            yield (
                path,
                f"{lan.interface} is the uplink (a default route leads through it); clients must "
                "be behind another interface",
            )
        for other in facts.links:
            # of two that are named the later one is wrong
            if behind.get(other.name, index) > index:
                continue
            # an absurdly broad network of the uplink is its DHCP's doing, and no reason to refuse
            theirs = other.networks if other.name in behind else other.neighbours
            for one, two in product(link.networks, theirs):
                if other is not link and overlapping(one, two) and not one.is_link_local:
                    yield (
                        path,
                        f"its network {one} overlaps {two} of interface {other.name}: who is a "
                        "client could not be told",
                    )


def _user_problems(
    config: Config, facts: Facts, *, create_users: bool
) -> Iterator[tuple[KeyPath, str]]:
    found = {user.account.name: user for user in facts.users}
    owners: dict[int, str] = {}
    for index, entry in enumerate(config.user):
        path = ("user", index, "name")
        user = found.get(entry.name)
        if user is None:
            if not create_users:
                yield (
                    path,
                    f"there is no account {entry.name}; create it, or let "
                    "`onionward up --create-users` do it",
                )
            continue
        uid = user.account.uid
        if uid == 0:
            yield path, f"{entry.name} is root, which rules cannot hold; route another account"
        elif facts.tor_account is not None and user.owns(facts.tor_account.uid):
            yield path, f"{entry.name} has the user id of tor's account {config.tor.user}"
        elif any(user.owns(other) for other in facts.dhcp_uids if other):
            yield path, f"{entry.name} is the account of a DHCP client, which must reach the link"
        for other, name in owners.items():
            if other == uid or user.owns(other):
                yield path, f"{entry.name} and {name} share the user id {other}"
        owners[uid] = entry.name


def taken_ports(config: Config, listeners: Mapping[str, str]) -> tuple[str, ...]:
    """Tor's ports that others listen on.

    Args:
        config: read and free of contradictions.
        listeners: who listens on TransPort ("tcp:940"), DNSPort ("udp:941") and, where they are
            wanted, the ports of full DNS already.

    """
    found = _port_problems(config, listeners)
    return tuple(config.source.locate(path, words) for path, words in found)


def _port_problems(config: Config, listeners: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    for key, listener in (
        ("trans_port", f"tcp:{config.tor.trans_port}"),
        ("dns_port", f"udp:{config.tor.dns_port}"),
        ("full_dns_port", f"udp:{config.tor.full_dns_port}"),
        ("full_dns_port", f"tcp:{config.tor.full_dns_port}"),
    ):
        if who := listeners.get(listener):
            protocol, _, port = listener.partition(":")
            yield (
                ("tor", key),
                f"{protocol} port {port} is taken already by {who}; take another one",
            )


def warnings(config: Config, facts: Facts) -> tuple[str, ...]:
    """What is not covered on this machine, each with its reason."""
    found = []
    if facts.cgroup_mount is None:
        found.append(
            "no version 2 control groups below /sys/fs/cgroup: tor is recognised by its account "
            "alone"
        )
    exposed = [
        port
        for port in (config.tor.trans_port, config.tor.dns_port)
        if port >= facts.privileged_ports_below
    ]
    if exposed:
        ports = " and ".join(map(str, exposed))
        found.append(
            f"port {ports} can be opened by every account (privileged ports end at "
            f"{facts.privileged_ports_below}): while tor is down, another program could take its "
            "place"
        )
    found += [
        f"IN CLEAR: what {user.name} sends, because it is bypassed; only addresses of .onion "
        "names, and names that it asks for on loopback, go through Tor"
        for user in config.user
        if user.route == "direct"
    ]
    if backend.chosen(config).NAME != "nftables":
        found += _limits_of_iptables(config, facts)
    if not facts.nflog:
        found.append(
            "the kernel has no nfnetlink_log: what is stopped is counted for each account, but no "
            "program is named"
        )
    if not facts.ipv6:
        found.append("IPv6 is off on loopback: IPv6 is refused instead of being routed")
    return tuple(found)


def _limits_of_iptables(config: Config, facts: Facts) -> Iterator[str]:
    has_nft, has_sets = facts.nft_version is not None, find_tool("ipset") is not None
    yield (
        "iptables: what is stopped is counted by reason alone, not for each account or client, and "
        "no program is named"
    )
    yield (
        "iptables: there is one transaction for each table of each family; for some milliseconds "
        "old and new tables judge together, which lets through less than either"
    )
    if config.host_route == "tor" and not has_nft:
        yield (
            "iptables: packet sockets, and machines bridged to an interface, are not watched "
            "below IP; install nftables for that alone"
        )
    if config.host_route == "tor" and config.inbound == "all":
        yield (
            'iptables: no routing belt with inbound = "all", because answers to anybody need the '
            "machine's own routes; what flushes the tables opens them"
        )
    elif config.host_route == "tor":
        yield (
            "iptables: the routing belt leads astray IPv4 packets of tor or of a bypassed account "
            "whose mark, class of service or destination another program's rules change in "
            "`output`: the kernel looks for their way anew, as for root's, and they go nowhere"
        )
    if not has_nft:
        yield (
            "iptables: no rules that others cannot flush; what flushes the tables opens the "
            "network until they are put back; install nftables for that alone"
        )
    if config.lan:
        yield (
            "iptables: connections of clients are remembered by connection tracking alone; if "
            "that is flushed, the last packets of some may be forwarded after `onionward down`; "
            "and an interface of clients that is renamed is another interface"
        )
    routed = any(user.route == "tor" for user in config.user) or config.host_route == "onion"
    if routed and not has_sets:
        yield (
            "iptables without ipset: a neighbour who guesses addresses and ports of a routed "
            "account's connection can tell that it exists; and a query that another account "
            "sends from the port of a routed one's, to the same resolver, goes through Tor, too"
        )


def ssh_peer(environment: Mapping[str, str], ancestors: Iterator[Path]) -> str | None:
    """The address from which this command was typed over SSH, or None.

    Args:
        environment: of this process; sudo removes SSH_CONNECTION from it.
        ancestors: environ files of the parent processes, nearest first.

    """
    if found := _first_address(environment.get("SSH_CONNECTION", "")):
        return found
    for path in ancestors:
        try:
            raw = path.read_bytes()
        except OSError:
            continue
        for entry in raw.decode(errors="replace").split("\0"):
            name, _, value = entry.partition("=")
            if name == "SSH_CONNECTION" and (found := _first_address(value)):
                return found
    return None


def _first_address(connection: str) -> str | None:
    """The peer's address in a value of SSH_CONNECTION, which anybody can have set."""
    word = connection.split(maxsplit=1)[0] if connection.strip() else ""
    try:
        ipaddress.ip_address(word.split("%")[0])
    except ValueError:
        return None
    return word


def ancestor_environments(proc: Path, pid: int) -> Iterator[Path]:
    """Environ files of the ancestors of a process."""
    while pid > 1:
        yield proc / str(pid) / "environ"
        try:
            stat = (proc / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return
        pid = int(stat.rpartition(")")[2].split()[1])
