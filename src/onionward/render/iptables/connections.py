"""Rules about flows that are known already."""

from __future__ import annotations

from onionward.render.iptables.family import NO_SOCKET, NOT_SYN_ONLY, Family, marked, state
from onionward.render.iptables.text import Rule, rule
from onionward.rules import Rule as Name


def kept_outgoing(f: Family, verdict: str) -> tuple[Rule, ...]:
    """Packets of connections from before, but none that opens one."""
    return tuple(
        rule(
            f"{NOT_SYN_ONLY} -s {flow.local} -d {flow.peer} "
            f"-m tcp --sport {flow.local_port} --dport {flow.peer_port}",
            verdict,
            comment=Name.KEPT,
        )
        for flow in f.flows(f.policy.kept)
    )


def kept_incoming(f: Family) -> tuple[Rule, ...]:
    """The same from the other end."""
    return tuple(
        rule(
            f"-p tcp -s {flow.peer} -d {flow.local} "
            f"-m tcp --sport {flow.peer_port} --dport {flow.local_port}",
            "accept",
            comment=Name.KEPT,
        )
        for flow in f.flows(f.policy.kept)
    )


def orphans(mark: int, protocol: str = "") -> Rule:
    """The end of a connection whose socket is gone."""
    return rule(f"{protocol} {marked(mark)} {NO_SOCKET} {state('ESTABLISHED')}".lstrip(), "accept")


def related_errors(f: Family) -> Rule:
    """ICMP errors about flows that are known."""
    kinds = f.icmp(3) if f.n == 4 else f.icmp(2, 1)
    return rule((f"{kind} {state('RELATED')}" for kind in kinds), "accept")
