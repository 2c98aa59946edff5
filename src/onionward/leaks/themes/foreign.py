"""Somebody else's nftables rules, before and after ours."""

from __future__ import annotations

from onionward.leaks.model import Account, Attempt, Needs, Probe, Vector
from onionward.leaks.settings import foreign_table, sysctl
from onionward.leaks.sights import SEES_TCP, SEES_UDP
from onionward.leaks.tools import ask, bound, tcp, udp


def _with(family: str, rules: str, inside: Probe) -> Probe:
    """Run a probe under somebody's table; `{n}` and names of Targets are filled in."""

    def probe(attempt: Attempt) -> None:
        targets = attempt.targets
        text = rules.replace("{n}", str(attempt.number))
        for name in ("stranger4", "stranger6", "neighbour4", "host4", "device"):
            text = text.replace(f"{{{name}}}", getattr(targets, name))
        with foreign_table(family, attempt.device, text):
            inside(attempt)

    return probe


def _localnet(inside: Probe) -> Probe:
    """Let 127.0.0.0/8 be routed, as container engines do for their published ports."""

    def probe(attempt: Attempt) -> None:
        with sysctl(f"net/ipv4/conf/{attempt.targets.device}/route_localnet", "1"):
            inside(attempt)

    return probe


def _dnat(priority: int, *, to: str = "{stranger4}", match: str = "tcp sport {n}") -> str:
    family = "ip6" if "6" in to else "ip"
    return (
        f"chain c {{ type nat hook output priority {priority}; policy accept;"
        f" {match} dnat {family} to {to}; }}"
    )


def _to_self(address: str) -> Probe:
    """A datagram that stays on this machine, or should."""
    return udp(address, 4433)


_UDP = "udp sport {n}"
_ACCEPT = "chain c { type filter hook output priority -400; policy accept; accept; }"
_NOTRACK = (
    "chain c { type filter hook output priority -300; policy accept;"
    " meta l4proto { tcp, udp } th sport {n} notrack; }"
)
_COPY = (
    "chain c { type filter hook output priority 150; policy accept;"
    ' udp sport {n} dup to {stranger4} device "{device}"; }'
)
_COPY_IN = (
    "chain c { type filter hook prerouting priority 150; policy accept;"
    ' udp sport {n} dup to {stranger4} device "{device}"; }'
)
_COPY6 = (
    "chain c { type filter hook output priority 150; policy accept;"
    ' udp sport {n} dup to {stranger6} device "{device}"; }'
)
_SNAT = (
    "chain c { type nat hook postrouting priority 100; policy accept;"
    " udp sport {n} snat ip to {host4}; }"
)

_ROWS: tuple[tuple[str, str, str, Probe], ...] = (
    ("dnat-earlier", "somebody's DNAT before ours", SEES_TCP,
     _with("inet", _dnat(-150), tcp("web4", 80))),
    ("dnat-later", "somebody's DNAT after ours", SEES_TCP,
     _with("inet", _dnat(-90), tcp("web4", 80))),
    ("dnat-late", "somebody's DNAT after the filter", SEES_TCP,
     _with("inet", _dnat(50), tcp("web4", 80))),
    ("dnat6", "somebody's DNAT before ours, IPv6", SEES_TCP,
     _with("inet", _dnat(-150, to="{stranger6}"), tcp("web6", 80))),
    ("dnat-udp", "somebody's DNAT of UDP before ours", SEES_UDP,
     _with("inet", _dnat(-150, match=_UDP), udp("web4", 4433))),
    ("dnat-dns", "somebody's DNAT of DNS before ours", SEES_UDP,
     _with("inet", _dnat(-150, match=_UDP), ask("dns4"))),
    ("dnat-dns-bound", "somebody's DNAT of DNS before ours, socket tied to the uplink", SEES_UDP,
     _with("inet", _dnat(-150, match=_UDP), ask("dns4", 53, bound))),
    ("dnat-loopback", "somebody's DNAT of 127.0.0.1 to a host far away", SEES_TCP,
     _localnet(_with("inet", _dnat(-150), tcp("127.0.0.1", 4433)))),
    ("dnat-loopback-late", "somebody's DNAT of 127.0.0.1 after the filter", SEES_TCP,
     _localnet(_with("inet", _dnat(50), tcp("127.0.0.1", 4433)))),
    ("dnat-loopback-udp", "somebody's DNAT of 127.0.0.1 after the filter, UDP", SEES_UDP,
     _localnet(_with("inet", _dnat(50, match=_UDP), _to_self("127.0.0.1")))),
    ("accept", "somebody accepts everything first", SEES_UDP,
     _with("inet", _ACCEPT, udp("web4", 4433))),
    ("accept-tcp", "somebody accepts everything first, TCP", SEES_TCP,
     _with("inet", _ACCEPT, tcp("web4", 80))),
    ("notrack-tcp", "somebody switches connection tracking off, TCP", SEES_TCP,
     _with("inet", _NOTRACK, tcp("web4", 80))),
    ("notrack-udp", "somebody switches connection tracking off, UDP", SEES_UDP,
     _with("inet", _NOTRACK, udp("web4", 4433))),
    ("notrack-dns", "somebody switches connection tracking off, DNS", SEES_UDP, _with("inet",
     _NOTRACK, ask("dns4"))),
    ("snat", "somebody rewrites the source", SEES_UDP,
     _with("inet", _SNAT, udp("web4", 4433))),
    ("dup", "somebody's rule copies loopback packets to a host far away", SEES_UDP,
     _with("ip", _COPY, _to_self("127.0.0.1"))),
    ("dup-inbound", "somebody's rule copies loopback packets as they arrive", SEES_UDP,
     _with("ip", _COPY_IN, _to_self("127.0.0.1"))),
    ("dup6", "somebody's rule copies IPv6 loopback packets to a host far away",
     SEES_UDP, _with("ip6", _COPY6, _to_self("::1"))),
)  # fmt: skip

VECTORS: tuple[Vector, ...] = (
    *(
        Vector(f"foreign.{name}", "X5", title, sees, probe, Account.ROOT)
        for name, title, sees, probe in _ROWS
    ),
    Vector(
        "bypass.dnat",
        "X5",
        "somebody's DNAT of a bypassed host to one far away",
        SEES_TCP,
        _with("inet", _dnat(-150), tcp("neighbour4", 4433)),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
    Vector(
        "bypass.dnat-late",
        "X5",
        "somebody's DNAT of a bypassed host, after the filter",
        SEES_TCP,
        _with("inet", _dnat(50), tcp("neighbour4", 4433)),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
    Vector(
        "bypass.dnat-dns",
        "X5",
        "somebody's DNAT of a bypassed host's port to a resolver far away",
        SEES_UDP,
        _with("inet", _dnat(-150, to="{stranger4}:53", match=_UDP), udp("neighbour4", 4433)),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
    Vector(
        "bypass.dnat-into-dns",
        "D1",
        "somebody's DNAT of a bypassed host's port to its DNS",
        SEES_UDP,
        _with("inet", _dnat(-150, to="{neighbour4}:53", match=_UDP), udp("neighbour4", 4433)),
        Account.ROOT,
        needs=Needs.BYPASS,
    ),
)
