"""What became of a packet, and whether that is what the policy said."""

from __future__ import annotations

from dataclasses import dataclass, field

from onionward.describe import describe
from onionward.explain import Verdict
from onionward.networks import Address
from onionward.policy import CIRCUITS4, CIRCUITS6
from tests.kernel.cases import SYN, Case, Send, is_group
from tests.kernel.frames import Frame
from tests.support import addr, net

LOOPBACK: dict[int, Address] = {4: addr("127.0.0.1"), 6: addr("::1")}
SILENCE = "silence: nobody was told, nothing was seen"
# type and code of "administratively prohibited" (RFC 1812, RFC 4443)
_PROHIBITED = {4: "ICMP 3, 13", 6: "ICMP 1, 1"}


@dataclass
class Fate:
    """What became of a packet.

    Attributes:
        told: the error that its sender got, or None.
        answer: address and port that an answer came from.
        far: frames that left the machine, each with the interface.
        near: frames on loopback.
        connected: what the stand-in for TransPort took for its destination.
        asked: whether it reached the stand-in for DNSPort.
        peer: who tor took for the sender.
        served: what a service of the machine took for its destination or its sender.

    """

    told: str | None = None
    answer: tuple[Address, int] | None = None
    far: list[tuple[str, Frame]] = field(default_factory=list)
    near: list[Frame] = field(default_factory=list)
    connected: tuple[Address, int] | None = None
    asked: bool = False
    peer: tuple[Address, int] | None = None
    served: tuple[Address, int] | None = None


def expected(case: Case, send: Send, verdict: Verdict) -> tuple[str, ...]:
    """What may happen for the verdict to be true."""
    packet = send.packet
    is_stream = packet.protocol == "tcp" and not send.raw
    if send.is_client:
        # who continues what was never opened gets the reset of tor's side
        if verdict.outcome == "trans-port" and send.kind != SYN:
            return ("refused",)
        return (SILENCE,) if verdict.outcome == "dropped" else (verdict.outcome,)
    has_loopback = packet.destination.version == 4 or case.policy.ipv6
    if verdict.outcome == "refused" and is_stream and not has_loopback:
        # the reset would come over loopback, which has no IPv6
        return (verdict.outcome, SILENCE)
    if verdict.outcome == "dropped":
        # a system call sees that nothing was sent, a connection does not
        return (SILENCE,) if is_stream else ("refused",)
    if verdict.outcome == "direct" and case.forwarding[1] and _is_anycast(case, packet.destination):
        # a router answers there (RFC 4291, 2.6.1)
        return ("direct", "local")
    return (verdict.outcome,)


def _is_anycast(case: Case, address: Address) -> bool:
    networks = [n for n in case.networks if n.version == 6 and n.prefixlen <= 126]
    return address in {n.network_address for n in networks}


def outcome(case: Case, send: Send, fate: Fate) -> str:
    """An outcome as `explain` names it, or what is wrong with it."""
    if send.is_client:
        return _of_client(send, fate)
    packet = send.packet
    if fate.far:
        left = [(frame.to, frame.port) for _, frame in fate.far]
        if not all(to in _meant(packet.destination) and port == packet.port for to, port in left):
            return f"left for another destination: {left}"
        if fate.told is not None:
            return f"direct, but its sender was told {fate.told}"
        return "direct and on loopback" if fate.near else "direct"
    if fate.near:
        return _near(case, send, fate)
    if fate.told is not None:
        return "refused"
    return SILENCE


def _near(case: Case, send: Send, fate: Fate) -> str:
    packet, frame = send.packet, fate.near[0]
    assert frame.to is not None
    to = packet.destination
    if packet.port == frame.port and frame.to in _meant(to):
        return "local"
    if not frame.to.is_loopback:
        return f"on loopback to {frame.to} port {frame.port}"
    if case.policy.full_dns and frame.port == case.policy.names_port:
        return _at_resolver(send, fate)
    if packet.protocol == "tcp" and frame.port == case.policy.trans_port:
        if send.raw:
            return "trans-port"
        if fate.connected != (to, packet.port):
            return f"trans-port, which took {fate.connected} for its destination"
        return _in_circuits(case, send, fate, "trans-port")
    if packet.protocol == "udp" and frame.port == case.policy.dns_port and fate.asked:
        # answers in the name of a group are not believed; DHCP's port may be several senders'
        may_be_lost = is_group(case.networks, to) or packet.source_port is not None
        if fate.answer is None and may_be_lost:
            return _in_circuits(case, send, fate, "dns-port")
        if fate.answer is not None and fate.answer[0] in _meant(to) and fate.answer[1] == 53:
            return _in_circuits(case, send, fate, "dns-port")
        return f"dns-port, whose answer came from {fate.answer}"
    return f"on loopback to port {frame.port}"


def _at_resolver(send: Send, fate: Fate) -> str:
    """Where this host's names go with full DNS."""
    packet = send.packet
    if packet.protocol == "tcp":
        meant = send.raw or fate.connected == (packet.destination, packet.port)
        return "full-dns" if meant else f"full-dns, which took {fate.connected} for its destination"
    if not fate.asked:
        return "full-dns, and nobody was asked"
    if fate.answer is not None and fate.answer[1] != 53:
        return f"full-dns, whose answer came from {fate.answer}"
    return "full-dns"


def _in_circuits(case: Case, send: Send, fate: Fate, reached: str) -> str:
    """Each routed account is a client of its own to tor."""
    users, version = case.policy.users, send.packet.destination.version
    if not users or fate.peer is None:
        return reached
    user = case.policy.user_of(send.packet.uid)
    wanted = LOOPBACK[version]
    if user is not None:
        first = CIRCUITS4[1] if version == 4 else CIRCUITS6[1 << 16]
        wanted = first + users.index(user)
    return reached if fate.peer[0] == wanted else f"{reached}, in the circuits of {fate.peer[0]}"


def _of_client(send: Send, fate: Fate) -> str:
    packet = send.packet
    to, port = packet.destination, packet.port
    if fate.far:
        left = [(device, str(frame.source), str(frame.to), frame) for device, frame in fate.far]
        return f"the machine sent something elsewhere for it: {left}"
    if fate.connected is not None or fate.asked:
        reached = "dns-port" if fate.asked else "trans-port"
        meant = (to, 53) if fate.asked else fate.connected
        if meant != (to, port) or fate.peer is None or fate.peer[0] != packet.source:
            return f"{reached}, which took {meant} for its destination, {fate.peer} for the client"
        return reached if fate.answer == (to, port) else f"{reached}, answered by {fate.answer}"
    if fate.served is not None:
        return "local"
    if send.kind_is_icmp and fate.answer is not None:
        return "local" if fate.answer[0] == to else f"answered by {fate.answer}"
    if fate.told is None and fate.answer is None:
        return SILENCE
    wanted = [f"a reset by {to} port {port}"] if packet.protocol == "tcp" else []
    # a reset of the rules would have no way back into one link of several, but tor's own has
    if not wanted or packet.source in net("fe80::/10"):
        wanted.append(_PROHIBITED[to.version])
    if fate.told in wanted and fate.answer is None:
        return "refused"
    return f"told {fate.told}, answered by {fate.answer}"


def _meant(to: Address) -> tuple[Address, ...]:
    """What the kernel makes of a destination: nobody's address is loopback."""
    return (to, LOOPBACK[to.version]) if to.is_unspecified else (to,)


def report(case: Case, send: Send, verdict: Verdict, happened: str, fate: Fate) -> str:
    """A mismatch in words."""
    own = "; ".join(f"{link.name} {', '.join(map(str, link.addresses))}" for link in case.links)
    ipv6 = "with" if case.policy.ipv6 else "without"
    who = "client behind " if send.is_client else ""
    return "\n".join(
        (
            f"{case.state}; {ipv6} IPv6 on loopback; forwarding {case.forwarding}; {own}",
            describe(case.policy),
            f"packet by {who}{send.account}{', raw' if send.raw else ''}, kind {send.kind}:",
            f"  {send.packet}{f' for {send.name}' if send.name else ''}",
            f"explain: {verdict.outcome}: {verdict.words()}",
            f"kernel:  {happened}",
            f"  {fate}",
        )
    )
