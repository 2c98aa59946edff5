"""Connections that are open when the rules change: which survive, and how the others are cut."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from onionward.errors import CommandError, StepError
from onionward.networks import Address, AddressSet, Network, contains
from onionward.policy import RELAY4, RELAY6, Flow, Policy
from onionward.render.nftables.marks import MARK_CLIENT, MARK_REDIRECTED
from onionward.system import System, at_once

if TYPE_CHECKING:
    from onionward.held_sockets import HeldSocket, UidRange

_SHOW_CONNECTED = ["ss", "-Htn", "state", "connected"]
_AT_ONCE = 50  # sockets in one expression
_PATIENCE = 2.0  # seconds for destroyed sockets to be gone
_SENDING_STATES = frozenset({"ESTAB", "FIN-WAIT-1", "CLOSE-WAIT", "LAST-ACK", "CLOSING"})


def open_inbound(system: System) -> tuple[Flow, ...]:
    """TCP connections on ports that something listens on: what others opened to this machine."""
    listening, established = _listening_and_established(system)
    return tuple(flow for flow in established if flow.local_port in listening)


def _listening_and_established(system: System) -> tuple[frozenset[int], tuple[Flow, ...]]:
    ports, flows = at_once(
        lambda: system.query(["ss", "-Hltn"]),
        lambda: system.query(["ss", "-Htn", "state", "established"]),
    )
    return parse_ports(ports), parse_flows(flows)


def parse_ports(text: str) -> frozenset[int]:
    """Local ports out of `ss -Hltn`."""
    return frozenset(_endpoint(line.split()[3])[1] for line in text.splitlines() if line.strip())


def parse_flows(text: str) -> tuple[Flow, ...]:
    """Connections out of `ss -Htn state established`, which has no state column."""
    flows = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= 4:
            local, local_port = _endpoint(columns[2])
            peer, peer_port = _endpoint(columns[3])
            flows.append(Flow(peer, peer_port, local, local_port))
    return tuple(flows)


def _endpoint(text: str) -> tuple[Address, int]:
    address, _, port = text.rpartition(":")
    # an address with a scope is printed as [fe80::1]%eth0
    address = address.split("%")[0].strip("[]").replace("*", "0.0.0.0")  # noqa: S104  # ss's word
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed, 0 if port == "*" else int(port)


def kept(system: System, policy: Policy, own: Iterable[Address]) -> tuple[Flow, ...]:
    """Open connections that the policy lets live on, where its rules would end them."""
    if policy.route != "tor" and not policy.lans:
        return ()
    listening, established = _listening_and_established(system)
    inbound = surviving(policy, (f for f in established if f.local_port in listening), own)
    if policy.route == "tor":
        uids = tuple(uids for user in policy.direct_users for uids in user.uids)
        return (*inbound, *_left_alone(system, uids, policy.virtual))
    # clients are judged on a machine that is not, and what it has opened to them is its own
    networks = [network for lan in policy.lans for network in lan.networks]
    return tuple(
        flow
        for flow in established
        if contains(networks, flow.peer) and (flow in inbound or flow.local_port not in listening)
    )


def surviving(policy: Policy, flows: Iterable[Flow], own: Iterable[Address]) -> tuple[Flow, ...]:
    """Of the inbound connections those that the policy lets in, local ones aside."""
    addresses = set(own)
    low, high = policy.ephemeral_ports
    # a server has many connections of the same few, and there may be thousands of networks
    admits = cache(policy.admits_inbound)
    return tuple(
        flow
        for flow in flows
        # a port that the kernel gives to outward connections proves nothing
        if not low <= flow.local_port <= high
        and not flow.peer.is_loopback
        and flow.peer not in addresses
        and admits(flow.peer, flow.local_port)
    )


class Reach(NamedTuple):
    """Whose packets go to tor, and what they reach directly.

    Attributes:
        host: whether everything that this machine sends is routed.
        bypass: networks that are reached directly all the same.
        virtual: where .onion names are mapped.
        uids: ranges of routed accounts.
        direct: ranges of accounts that a routed host leaves alone.
        lans: interfaces whose clients are routed.
        trans_port: where tor takes what is redirected (TCP).

    """

    host: bool
    bypass: tuple[Network, ...]
    virtual: tuple[Network, ...]
    uids: tuple[UidRange, ...]
    direct: tuple[UidRange, ...]
    lans: tuple[str, ...]
    trans_port: int = 940

    @classmethod
    def of(cls, policy: Policy) -> Reach:
        """The reach of a policy."""
        return cls(
            host=policy.route == "tor",
            bypass=policy.bypass,
            virtual=policy.virtual,
            uids=tuple(sorted(uids for user in policy.users for uids in user.uids)),
            direct=tuple(sorted(uids for user in policy.direct_users for uids in user.uids)),
            lans=tuple(sorted(lan.interface for lan in policy.lans)),
            trans_port=policy.trans_port,
        )

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "host": self.host,
            "bypass": [str(network) for network in self.bypass],
            "virtual": [str(network) for network in self.virtual],
            "uids": [list(uids) for uids in self.uids],
            "direct": [list(uids) for uids in self.direct],
            "lans": list(self.lans),
            "trans_port": self.trans_port,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reach:
        """What `to_json` made; what is missing is taken for the widest reach."""
        return cls(
            host=document.get("host", True),
            bypass=tuple(ipaddress.ip_network(n) for n in document.get("bypass", ())),
            virtual=tuple(ipaddress.ip_network(n) for n in document.get("virtual", ())),
            uids=tuple((first, last) for first, last in document.get("uids", ())),
            direct=tuple((first, last) for first, last in document.get("direct", ())),
            lans=tuple(document.get("lans", ())),
            trans_port=document.get("trans_port", 940),
        )

    def lacks(self, other: Reach) -> bool:
        """Whether something that the other one routes is not routed by this one."""
        if not set(other.lans) <= set(self.lans):
            return True
        if not self.host:
            return (
                other.host or not set(other.uids) <= set(self.uids) or other.virtual != self.virtual
            )
        # a network that is bypassed from now on is reached by new connections only: what is
        # translated already goes on to tor
        return any(other.routes(uids) for uids in self.direct)

    def routes(self, uids: UidRange) -> bool:
        """Whether what an account of this range of ids sends goes to tor."""
        if self.host:
            return uids not in self.direct
        return any(first <= uids[1] and uids[0] <= last for first, last in self.uids)


def cut_from_before(
    system: System, policy: Policy, own: tuple[Address, ...], before: Reach | None = None
) -> None:
    """Cut what the policy's scopes had open before the rules.

    Args:
        system: the seam.
        policy: in force now.
        own: addresses of this machine.
        before: what was routed already, and goes on; None for nothing.

    """
    if policy.route == "tor":
        forget_tracked(system)
        cut_sockets(system, Spared(own, policy.bypass, policy.kept))
        return
    routed = before.uids if before is not None else ()
    uids = [uids for user in policy.users for uids in user.uids if uids not in routed]
    if uids:
        _cut_users(system, uids)


def cut_redirected(system: System, reach: Reach, own: tuple[Address, ...]) -> None:
    """Destroy what went through tor, so that no tail of it is sent once the rules are gone.

    Sockets that asked a resolver go too, or their next try would carry the name in clear. Tor must
    be stopped: what begins from then on does not go through it.

    Raises:
        StepError: the kernel left some; with their programs.

    """
    if reach.lans:
        cut_clients(system)
    # tor's ends outlive it; what they send to a flow that is forgotten is answered with a reset
    # to ::1, which the kernel puts on the wire
    own_ends = f"sport = :{reach.trans_port}"
    system.change(["ss", "-K", "-Htn", "state", "connected", own_ends], timeout=60)
    if reach.host:

        def spared() -> Spared:
            left_alone = _left_alone(system, reach.direct, reach.virtual)
            return Spared(own, reach.bypass, (*open_inbound(system), *left_alone))

        _cut_all(system, spared)
        return
    if reach.uids:
        _cut_users(system, reach.uids)
    if reach.virtual:
        to = " or ".join(f"dst {_bracketed_network(network)}" for network in reach.virtual)
        system.change(["ss", "-K", "-Htn", "state", "connected", f"( {to} )"], timeout=60)


def cut_clients(system: System) -> None:
    """Reset what tor has open with clients of a LAN; a reset reaches them while the rules last."""
    for address in (RELAY4, RELAY6):
        to = f"src {_bracketed(address)}"
        system.change(["ss", "-K", "-Htn", "state", "connected", to], timeout=60)


class Spared(NamedTuple):
    """Which sockets are not cut.

    Attributes:
        own: addresses of this machine; what stays on it is no traffic.
        bypass: networks reached directly.
        flows: connections that others opened, or accounts that are left alone.

    """

    own: tuple[Address, ...]
    bypass: tuple[Network, ...]
    flows: tuple[Flow, ...]

    def others(self, sockets: Iterable[TcpSocket]) -> tuple[TcpSocket, ...]:
        """Those of the sockets that are cut."""
        own, flows = frozenset(self.own), frozenset(self.flows)
        bypass = AddressSet(self.bypass)
        return tuple(
            socket
            for socket in sockets
            if not (
                socket.flow.peer.is_loopback
                or socket.flow.peer in own
                or socket.flow in flows
                or socket.flow.peer in bypass
            )
        )


class TcpSocket(NamedTuple):
    """A connected socket: its flow, its state as ss(8) names it, and the whole line."""

    flow: Flow
    state: str
    line: str


def parse_sockets(text: str) -> tuple[TcpSocket, ...]:
    """Sockets out of `ss -Htn state connected`."""
    sockets = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= 5:
            local, local_port = _endpoint(columns[3])
            peer, peer_port = _endpoint(columns[4])
            sockets.append(TcpSocket(Flow(peer, peer_port, local, local_port), columns[0], line))
    return tuple(sockets)


def _cut_users(system: System, uids: Sequence[UidRange]) -> None:
    from onionward import held_sockets

    _destroy(system, held_sockets.outward(system, uids))


def cut_accounts(system: System, uids: Sequence[UidRange]) -> None:
    """Cut all that these accounts have open, with this machine as well.

    While rules refuse the packets of these sockets anyway, this tells idle programs at once.
    """
    from onionward import held_sockets

    _destroy(system, held_sockets.connected(system, uids))


def _destroy(system: System, sockets: Sequence[HeldSocket]) -> None:
    """Destroy sockets one by one known, in few calls."""
    for option, protocol in (("-Htn", "tcp"), ("-Hun", "udp")):
        flows = [
            Flow(s.peer, s.peer_port, s.local, s.local_port)
            for s in sockets
            if s.protocol == protocol
        ]
        _destroy_flows(system, option, flows)


def _destroy_flows(system: System, option: str, flows: Sequence[Flow]) -> None:
    named = [
        f"( src {_bracketed(f.local)}:{f.local_port} and dst {_bracketed(f.peer)}:{f.peer_port} )"
        for f in flows
    ]
    for start in range(0, len(named), _AT_ONCE):
        some = " or ".join(named[start : start + _AT_ONCE])
        system.change(["ss", "-K", option, "state", "connected", f"( {some} )"], timeout=60)


def cut_sockets(system: System, spared: Spared) -> frozenset[Flow]:
    """Destroy every TCP socket that speaks to the outside and is not spared (ss(8), -K).

    While the rules are in place they refuse the packets of these sockets anyway; this tells idle
    programs at once. Listening sockets are not connected and stay.

    Returns:
        What they were; the kernel may have left some.

    """
    # named one by one: an expression with thousands of spared networks is longer than the kernel
    # takes as an argument, or as a filter
    others = spared.others(parse_sockets(system.query(_SHOW_CONNECTED)))
    known = [socket.flow for socket in others]
    _destroy_flows(system, "-Htn", known)
    return frozenset(known)


def _left_alone(
    system: System, uids: Sequence[UidRange], virtual: Sequence[Network]
) -> tuple[Flow, ...]:
    """TCP connections of accounts that do not go to tor, as those to onion names do for all."""
    if not uids:
        return ()
    from onionward import held_sockets

    sockets = held_sockets.parse(system.query(["ss", "-Htuane"]))
    return tuple(
        Flow(s.peer, s.peer_port, s.local, s.local_port)
        for s in sockets
        if s.protocol == "tcp"
        and s.state != "LISTEN"
        and any(first <= s.uid <= last for first, last in uids)
        and not (s.peer.is_loopback or contains(virtual, s.peer))
    )


def _cut_all(system: System, spared: Callable[[], Spared]) -> None:
    known = cut_sockets(system, spared())
    system.change(["ss", "-K", "-Hun", "state", "connected", "dport = :53"])
    deadline = time.monotonic() + _PATIENCE
    # those that are spared come and go meanwhile
    while left := _sending(system, known, spared()):
        if time.monotonic() > deadline:
            raise StepError(
                f"{len(left)} connections that went through Tor cannot be destroyed, and would go "
                f"on in clear: {'; '.join(left[:3])}",
                "end these programs, then repeat `onionward down` (a kernel with "
                "CONFIG_INET_DIAG_DESTROY needs no help)",
            )
        time.sleep(0.05)


def _sending(system: System, known: frozenset[Flow], spared: Spared) -> list[str]:
    """Sockets of known flows that could still send data."""

    def sending(shown: str) -> list[str]:
        others = spared.others(parse_sockets(shown))
        return [s.line for s in others if s.flow in known and s.state in _SENDING_STATES]

    if not sending(system.query(_SHOW_CONNECTED)):
        return []
    # to ask for their programs takes longer
    return sending(system.query(["ss", "-Htnp", "state", "connected"]))


def _bracketed(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _bracketed_network(network: Network) -> str:
    if network.version == 6:
        return f"[{network.network_address}/{network.prefixlen}]"
    return str(network)


def forget_tracked(system: System) -> None:
    """Flush conntrack, so that no flow is judged by what it was before the rules."""
    system.change(["conntrack", "-F"])


def forget_resolver_flows(system: System) -> None:
    """Forget queries to local stubs that were made before there was a redirection."""
    _delete(system, ["-p", "udp", "--orig-port-dst", "53"])


_DELETIONS = 20  # times that flows are deleted while others of them end


def forget_redirected(system: System) -> None:
    """Forget the translations of flows that went through tor."""
    _delete(system, ["-m", str(MARK_REDIRECTED)])
    # a client's connection ends by the reset it has got; forgotten, its tail would be forwarded
    _delete(system, ["-p", "udp", "-m", str(MARK_CLIENT)])


def _delete(system: System, what: list[str]) -> None:
    for family in ("ipv4", "ipv6"):
        for left in reversed(range(_DELETIONS)):
            try:
                system.change(["conntrack", "-D", "-f", family, *what])
            except CommandError as error:
                # one that ends by itself meanwhile ends the whole command
                if "such conntrack doesn't exist" in error.stderr and left:
                    continue
                # conntrack(8) exits with 1 when there is nothing to delete
                if "0 flow entries" not in error.stderr:
                    raise
            break
