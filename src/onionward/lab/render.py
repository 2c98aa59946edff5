"""Texts of the lab: torrc, DNS, addresses and files of the hosts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from onionward.lab import topology
from onionward.lab.topology import MACHINES, UPLINK, Machine, Relay, TorNetwork

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
    lines = ["TestingTorNetwork 1"]
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
    ]
    return "\n".join(lines) + "\n"


def internet_links(network: TorNetwork, pids: dict[str, int]) -> str:
    """`ip -batch` text that builds `internet` and the links to the machines.

    Args:
        network: whose addresses to answer for.
        pids: init process of each machine, into whose network namespace its end of the veth goes.

    """
    own4 = [topology.WEB4, topology.DNS4, topology.STRANGER4, topology.ONION_ADDRESS]
    own6 = [topology.WEB6, topology.DNS6, topology.STRANGER6]
    for relay in network.relays():
        own4.append(relay.address4)
        own6 += [relay.address6] if relay.address6 else []
    lines = ["link set lo up"]
    lines += [f"address add {address}/32 dev lo" for address in own4]
    lines += [f"address add {address}/128 dev lo nodad" for address in own6]
    lines += [
        f"link add {UPLINK} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"address add {topology.GATEWAY4}/24 dev {UPLINK}",
        f"address add {topology.GATEWAY6}/64 dev {UPLINK} nodad",
        f"link set {UPLINK} up",
    ]
    for machine in MACHINES:
        lines += [
            f"link add {machine.port} type veth peer name eth0 netns {pids[machine.name]}",
            f"link set {machine.port} master {UPLINK} up",
        ]
    return "\n".join(lines) + "\n"


def machine_links(machine: Machine) -> str:
    """`ip -batch` text that configures a machine's uplink."""
    lines = [
        "link set lo up",
        f"address add {machine.address4}/24 dev eth0",
        f"address add {machine.address6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {topology.GATEWAY4}",
        f"route add ::/0 via {topology.GATEWAY6}",
    ]
    return "\n".join(lines) + "\n"


def resolv_conf() -> str:
    """The resolver that the hosts and the exits use."""
    return f"nameserver {topology.DNS4}\n"


def onionward_toml() -> str:
    """The host's configuration: route the host, through the lab's network."""
    return f'[tor]\nnetwork = "{NETWORK_TORRC}"\n'
