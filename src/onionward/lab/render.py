"""Texts of the lab: torrc, DNS, addresses and files of the hosts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from onionward.lab import topology
from onionward.lab.topology import (
    BRIDGE,
    CONTAINER,
    GATEWAY,
    LAN,
    LAN_DEVICE,
    LAN_PORT,
    UPLINK,
    Account,
    Link,
    Machine,
    Relay,
    TorNetwork,
)

# Clients consider a consensus fresh for one interval and usable for VALID_INTERVALS of them.
VOTING_INTERVAL = 300
VALID_INTERVALS = 12
# The least that tor accepts in a testing network (MIN_VOTE_SECONDS_TESTING, MIN_DIST_…).
INITIAL_VOTE_DELAY = 2
INITIAL_DIST_DELAY = 2

NETWORK_TORRC = PurePosixPath("/run/onionward-lab/network.torrc")
"""Where the host finds the lines that make a client use this network."""


@dataclass(frozen=True)
class AuthorityKeys:
    """Fingerprints of one authority, each 40 hexadecimal digits.

    Args:
        identity: SHA-1 of its relay identity key.
        v3ident: SHA-1 of the key that signs consensuses.

    """

    identity: str
    v3ident: str


def voting_offset(valid_after: int) -> int:
    """Offset in seconds that makes voting intervals begin at `valid_after` (seconds since 1970)."""
    return valid_after % 86400 % VOTING_INTERVAL


def first_consensus_at(now: float) -> int:
    """Second for which authorities that are told at `now` vote one second later, the earliest."""
    return int(now) + 1 + INITIAL_VOTE_DELAY + INITIAL_DIST_DELAY


def network_torrc(authorities: Sequence[tuple[Relay, AuthorityKeys]]) -> str:
    """Lines that every tor of this network needs, clients included."""
    lines = [
        "TestingTorNetwork 1",
        # what tor learns of a network without latency is too short as soon as the machine is busy
        "LearnCircuitBuildTimeout 0",
        "CircuitBuildTimeout 10",
    ]
    lines += [
        f"DirAuthority {relay.nickname} orport={topology.OR_PORT} no-v2 v3ident={keys.v3ident}"
        f" {relay.address4}:{topology.DIR_PORT} {keys.identity}"
        for relay, keys in authorities
    ]
    return "\n".join(lines) + "\n"


def _process_torrc(data: PurePosixPath) -> list[str]:
    return [
        f"DataDirectory {data}",
        f"PidFile {data}/pid",
        f"ControlSocket {data}/control",
        f"Log notice file {data}/log",
        "LogTimeGranularity 1",
        "RunAsDaemon 1",
        "SocksPort 0",
        "NumCPUs 1",
        "HeartbeatPeriod 0",
        "ShutdownWaitLength 0",
    ]


def relay_torrc(relay: Relay, network: str, data: PurePosixPath, first_vote: int) -> str:
    """The torrc of a relay or authority.

    Args:
        relay: which one.
        network: text of `network_torrc`.
        data: its data directory.
        first_vote: seconds since 1970 at which the first consensus is due (authorities only).

    """
    lines = _process_torrc(data)
    lines += [
        f"Nickname {relay.nickname}",
        f"Address {relay.address4}",
        f"ORPort {relay.address4}:{topology.OR_PORT}",
        f"OutboundBindAddress {relay.address4}",
        "AssumeReachable 1",
        "ExtraInfoStatistics 0",
    ]
    if relay.address6:
        lines += [
            f"ORPort [{relay.address6}]:{topology.OR_PORT}",
            f"OutboundBindAddress [{relay.address6}]",
        ]
    if relay.role == "exit":
        lines += [
            "ExitRelay 1",
            "IPv6Exit 1",
            "ExitPolicy accept *:*",
            f"ServerDNSResolvConfFile {data.parent}/resolv.conf",
            "ServerDNSDetectHijacking 0",
        ]
    else:
        lines += ["ExitRelay 0", "ExitPolicy reject *:*"]
    if relay.role == "authority":
        lines += _authority_torrc(relay, first_vote)
    else:
        # Asking for a consensus that does not exist yet would only make the next try later.
        lines.append("FetchServerDescriptors 0")
    return "\n".join(lines) + "\n" + network


def _authority_torrc(relay: Relay, first_vote: int) -> list[str]:
    return [
        f"DirPort {relay.address4}:{topology.DIR_PORT}",
        "AuthoritativeDirectory 1",
        "V3AuthoritativeDirectory 1",
        f"V3AuthVotingInterval {VOTING_INTERVAL} seconds",
        f"V3AuthNIntervalsValid {VALID_INTERVALS}",
        # The same interval from the start: clients derive the time periods of onion services
        # from it, so a change would move every descriptor to other directories.
        f"TestingV3AuthInitialVotingInterval {VOTING_INTERVAL} seconds",
        f"TestingV3AuthInitialVoteDelay {INITIAL_VOTE_DELAY} seconds",
        f"TestingV3AuthInitialDistDelay {INITIAL_DIST_DELAY} seconds",
        f"TestingV3AuthVotingStartOffset {voting_offset(first_vote)} seconds",
        # Flags that relays otherwise earn in days.
        "TestingDirAuthVoteGuard *",
        "TestingDirAuthVoteHSDir *",
        "TestingMinExitFlagThreshold 0",
    ]


def onion_torrc(network: str, data: PurePosixPath, topo: TorNetwork) -> str:
    """The torrc of the tor that offers the onion services; its network is off until told."""
    authorities = [relay.nickname for relay in topo.relays() if relay.role == "authority"]
    lines = [
        *_process_torrc(data),
        f"OutboundBindAddress {topology.ONION_ADDRESS}",
        "DisableNetwork 1",
        # they have what it asks for a second before the other relays do
        f"EntryNodes {','.join(authorities)}",
    ]
    for number in range(1, topo.onion_services + 1):
        lines += [
            f"HiddenServiceDir {data}/service{number}",
            "HiddenServicePort 80 127.0.0.1:80",
        ]
    return "\n".join(lines) + "\n" + network


def dnsmasq_conf(directory: PurePosixPath) -> str:
    """Names under example.test; every other name does not exist."""
    web4, web6 = topology.WEB4, topology.WEB6
    lines = [
        "no-resolv",
        "no-hosts",
        "bind-interfaces",
        f"listen-address={topology.DNS4},{topology.DNS6}",
        f"pid-file={directory}/dnsmasq.pid",
        "user=root",
        "cache-size=0",
        # with no upstream server dnsmasq would refuse other names, and exits would think it dead
        "address=/#/",
        f"host-record=www.example.test,{web4},{web6}",
        f"host-record=v4.example.test,{web4}",
        f"host-record=v6.example.test,{web6}",
        f"host-record=dns.example.test,{topology.DNS4},{topology.DNS6}",
        f"host-record=stranger.example.test,{topology.STRANGER4},{topology.STRANGER6}",
        f"address=/any.example.test/{web4}",
        f"address=/any.example.test/{web6}",
        "cname=alias.example.test,www.example.test",
        "txt-record=example.test,onionward lab",
        "mx-host=example.test,www.example.test,10",
        "srv-host=_http._tcp.example.test,www.example.test,80",
        # type HTTPS (RFC 9460): priority 1, the name itself, alpn h2
        "dns-rr=www.example.test,65,00010000010003026832",
        # together longer than a datagram holds
        *(f"txt-record=long.example.test,{','.join([f'{n}' * 200] * 4)}" for n in range(6)),
    ]
    return "\n".join(lines) + "\n"


def internet_links(network: TorNetwork) -> str:
    """`ip -batch` text that gives `internet` its addresses and the uplink's bridge."""
    own4 = [topology.WEB4, topology.DNS4, topology.STRANGER4, topology.ONION_ADDRESS]
    own6 = [topology.WEB6, topology.DNS6, topology.STRANGER6]
    for relay in network.relays():
        own4.append(relay.address4)
        own6 += [relay.address6] if relay.address6 else []
    lines = ["link set lo up"]
    lines += [f"address add {address}/32 dev lo" for address in own4]
    lines += [f"address add {address}/128 dev lo nodad" for address in own6]
    return _text([*lines, *_bridge(UPLINK)])


def internet_cables(pids: Mapping[str, int]) -> str:
    """`ip -batch` text that connects the machines to `internet`, and to the switch of the LAN.

    Args:
        pids: init process of each machine, into whose network namespace its end of the veth goes.

    """
    lines = [
        f"link add {LAN.bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        # a switch has no addresses, and must not answer for those of the internet
        f"link set {LAN.bridge} arp off addrgenmode none",
        f"link set {LAN.bridge} up",
        *_cable(LAN, LAN_PORT, pids[GATEWAY.name], LAN_DEVICE),
    ]
    for machine in topology.MACHINES:
        if machine.link is not BRIDGE:
            lines += _cable(machine.link, machine.port, pids[machine.name])
    for link in (LAN, BRIDGE):
        lines += [
            f"route add {link.network4} via {GATEWAY.address4}",
            f"route add {link.network6} via {GATEWAY.address6}",
        ]
    return _text(lines)


def gateway_links(pids: Mapping[str, int]) -> str:
    """`ip -batch` text for what the gateway has beside its uplink: the LAN and the bridge."""
    lines = [
        f"address add {LAN.router4}/24 dev {LAN_DEVICE}",
        f"address add {LAN.router6}/64 dev {LAN_DEVICE} nodad",
        f"link set {LAN_DEVICE} up",
        *_bridge(BRIDGE),
        *_cable(BRIDGE, CONTAINER.port, pids[CONTAINER.name]),
    ]
    return _text(lines)


def machine_links(machine: Machine) -> str:
    """`ip -batch` text that configures lo and eth0 of a machine."""
    lines = [
        "link set lo up",
        f"address add {machine.address4}/24 dev eth0",
        f"address add {machine.address6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {machine.link.router4}",
        f"route add ::/0 via {machine.link.router6}",
    ]
    return _text(lines)


def _bridge(link: Link) -> list[str]:
    return [
        f"link add {link.bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"address add {link.router4}/24 dev {link.bridge}",
        f"address add {link.router6}/64 dev {link.bridge} nodad",
        f"link set {link.bridge} up",
    ]


def _cable(link: Link, port: str, pid: int, device: str = "eth0") -> list[str]:
    silent = [f"link set {port} addrgenmode none"] if link is LAN else []
    return [
        f"link add {port} type veth peer name {device} netns {pid}",
        *silent,
        f"link set {port} master {link.bridge} up",
    ]


def resolv_conf(resolver: str = topology.DNS4) -> str:
    """A resolv.conf with one server."""
    return f"nameserver {resolver}\n"


def useradd_defaults() -> str:
    """The /etc/default/useradd of a machine: where homes are made."""
    return f"HOME={topology.HOMES}\nSHELL=/bin/sh\n"


def etc_hosts(machine: Machine) -> str:
    """The /etc/hosts of a machine."""
    lines = [f"127.0.0.1 localhost {machine.name}", "::1 localhost"]
    lines += [f"{other.address4} {other.name}.example.test" for other in topology.MACHINES]
    return _text(lines)


def account_files(accounts: Sequence[Account]) -> dict[str, list[str]]:
    """Lines that the files of /etc need for accounts, by file name."""
    ranges = [f"{a.name}:{a.subordinate}:65536" for a in accounts if a.subordinate is not None]
    return {
        "passwd": [f"{a.name}:x:{a.uid}:{a.uid}::{a.home}:/bin/sh" for a in accounts],
        "group": [f"{a.name}:x:{a.uid}:" for a in accounts],
        # no password opens them (shadow(5))
        "shadow": [f"{a.name}:!:::::::" for a in accounts],
        "gshadow": [f"{a.name}:!::" for a in accounts],
        "subuid": ranges,
        "subgid": ranges,
    }


def with_lines(text: str, lines: Sequence[str]) -> str:
    """`text` of a file as passwd(5), its lines of the same names replaced by `lines`."""
    names = {line.partition(":")[0] for line in lines}
    kept = [line for line in text.splitlines() if line.partition(":")[0] not in names]
    return _text([*kept, *lines])


def onionward_toml() -> str:
    """The configuration of a machine to protect: route it, through the lab's network."""
    return f'[tor]\nnetwork = "{NETWORK_TORRC}"\n'


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
