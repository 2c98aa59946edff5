"""What became of a packet, and whether that is what the policy said."""

from __future__ import annotations

from dataclasses import dataclass, field

from onionward.explain import Verdict
from onionward.networks import Address
from tests.kernel.cases import Case, Send, is_group
from tests.kernel.frames import Frame
from tests.support import addr

LOOPBACK: dict[int, Address] = {4: addr("127.0.0.1"), 6: addr("::1")}
SILENCE = "silence: nobody was told, nothing was seen"


@dataclass
class Fate:
    """What became of a packet.

    Attributes:
        told: the error that its sender got, or None.
        answer: address and port that an answer came from.
        far: frames that the far end saw.
        near: frames on loopback.
        connected: what the stand-in for TransPort took for its destination.
        asked: whether it reached the stand-in for DNSPort.

    """

    told: str | None = None
    answer: tuple[Address, int] | None = None
    far: list[Frame] = field(default_factory=list)
    near: list[Frame] = field(default_factory=list)
    connected: tuple[Address, int] | None = None
    asked: bool = False


def expected(case: Case, send: Send, verdict: Verdict) -> tuple[str, ...]:
    """What may happen for the verdict to be true."""
    is_stream = send.packet.protocol == "tcp" and not send.raw
    has_loopback = send.packet.destination.version == 4 or case.policy.ipv6
    if verdict.outcome == "refused" and is_stream and not has_loopback:
        # the reset would come over loopback, which has no IPv6
        return (verdict.outcome, SILENCE)
    return (verdict.outcome,)


def outcome(case: Case, send: Send, fate: Fate) -> str:
    """An outcome as `explain` names it, or what is wrong with it."""
    packet = send.packet
    if fate.far:
        left = [(frame.to, frame.port) for frame in fate.far]
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
    if packet.protocol == "tcp" and frame.port == case.policy.trans_port:
        if send.raw or fate.connected == (to, packet.port):
            return "trans-port"
        return f"trans-port, which took {fate.connected} for its destination"
    if packet.protocol == "udp" and frame.port == case.policy.dns_port and fate.asked:
        # answers in the name of a group are not believed; DHCP's port may be several senders'
        may_be_lost = is_group(case.link, to) or packet.source_port is not None
        if fate.answer is None and may_be_lost:
            return "dns-port"
        if fate.answer is not None and fate.answer[0] in _meant(to) and fate.answer[1] == 53:
            return "dns-port"
        return f"dns-port, whose answer came from {fate.answer}"
    return f"on loopback to port {frame.port}"


def _meant(to: Address) -> tuple[Address, ...]:
    """What the kernel makes of a destination: nobody's address is loopback."""
    return (to, LOOPBACK[to.version]) if to.is_unspecified else (to,)


def report(case: Case, send: Send, verdict: Verdict, happened: str, fate: Fate) -> str:
    """A mismatch in words."""
    own = ", ".join(map(str, case.link.addresses))
    ipv6 = "with" if case.policy.ipv6 else "without"
    return "\n".join(
        (
            f"{case.state}; {ipv6} IPv6 on loopback; own addresses {own}",
            case.policy.describe(),
            f"packet by {send.account}{', raw' if send.raw else ''}, kind {send.kind}:",
            f"  {send.packet}",
            f"explain: {verdict.outcome}: {verdict.words()}",
            f"kernel:  {happened}",
            f"  {fate}",
        )
    )
