"""Connections that are open when the rules change: which survive, and how the others are cut."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from dataclasses import dataclass

from onionward.errors import CommandError, StepError
from onionward.networks import Address, Network
from onionward.policy import Flow, Policy
from onionward.system import System

_PATIENCE = 2.0  # seconds for destroyed sockets to be gone
_SENDING_STATES = frozenset({"ESTAB", "FIN-WAIT-1", "CLOSE-WAIT", "LAST-ACK", "CLOSING"})


def open_inbound(system: System) -> tuple[Flow, ...]:
    """TCP connections on ports that something listens on: what others opened to this machine."""
    listening = parse_ports(system.query(["ss", "-Hltn"]))
    established = parse_flows(system.query(["ss", "-Htn", "state", "established"]))
    return tuple(flow for flow in established if flow.local_port in listening)


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


def surviving(policy: Policy, flows: Iterable[Flow], own: Iterable[Address]) -> tuple[Flow, ...]:
    """Of the inbound connections those that the policy lets in, local ones aside."""
    addresses = set(own)
    low, high = policy.ephemeral_ports
    return tuple(
        flow
        for flow in flows
        # a port that the kernel gives to outward connections proves nothing
        if not low <= flow.local_port <= high
        and not flow.peer.is_loopback
        and flow.peer not in addresses
        and policy.admits_inbound(flow.peer)
    )


@dataclass(frozen=True, slots=True)
class Spared:
    """Which sockets are not cut.

    Attributes:
        own: addresses of this machine; what stays on it is no traffic.
        bypass: networks reached directly.
        inbound: connections that others opened.

    """

    own: tuple[Address, ...]
    bypass: tuple[Network, ...]
    inbound: tuple[Flow, ...]

    def expression(self) -> str:
        """All other sockets, as an expression for ss(8)."""
        spared = [
            "dst 127.0.0.0/8",
            "dst [::1]",
            *(f"dst {_bracketed(address)}" for address in self.own),
            *(f"dst {_bracketed_network(network)}" for network in self.bypass),
            *(
                f"( dst {_bracketed(flow.peer)}:{flow.peer_port} and "
                f"src {_bracketed(flow.local)}:{flow.local_port} )"
                for flow in self.inbound
            ),
        ]
        return f"not ( {' or '.join(spared)} )"


def cut_sockets(system: System, spared: Spared) -> None:
    """Destroy every TCP socket that speaks to the outside and is not spared (ss(8), -K).

    While the rules are in place they refuse the packets of these sockets anyway; this tells idle
    programs at once. Listening sockets are not connected and stay.
    """
    system.change(["ss", "-K", "-Htn", "state", "connected", spared.expression()], timeout=60)


def cut_redirected(system: System, spared: Spared) -> None:
    """Destroy what went through tor, so that no tail of it is sent once the rules are gone.

    Sockets that asked a resolver go too, or their next try would carry the name in clear.

    Raises:
        StepError: the kernel left some; with their programs.

    """
    cut_sockets(system, spared)
    system.change(["ss", "-K", "-Hun", "state", "connected", "dport = :53"])
    deadline = time.monotonic() + _PATIENCE
    while left := _sending(system, spared):
        if time.monotonic() > deadline:
            raise StepError(
                f"{len(left)} connections that went through Tor cannot be destroyed, and would go "
                f"on in clear: {'; '.join(left[:3])}",
                "end these programs, then repeat `onionward down` (a kernel with "
                "CONFIG_INET_DIAG_DESTROY needs no help)",
            )
        time.sleep(0.05)


def _sending(system: System, spared: Spared) -> list[str]:
    """Sockets that could still send data."""
    shown = system.query(["ss", "-Htnp", "state", "connected", spared.expression()])
    return [line for line in shown.splitlines() if line.split()[0] in _SENDING_STATES]


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


def forget_redirected(system: System, mark: int) -> None:
    """Forget the translations of flows that went through tor."""
    _delete(system, ["-m", str(mark)])


def _delete(system: System, what: list[str]) -> None:
    # conntrack(8) exits with 1 when there is nothing to delete
    for family in ("ipv4", "ipv6"):
        try:
            system.change(["conntrack", "-D", "-f", family, *what])
        except CommandError as error:
            if "0 flow entries" not in error.stderr:
                raise
