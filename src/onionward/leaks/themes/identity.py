"""Who may use the wire: tor's account, in tor's control group, for TCP; and nobody else."""

from __future__ import annotations

from onionward.leaks.model import Account, Attempt, Needs, Vector
from onionward.leaks.sights import SEES_TCP, SEES_UDP
from onionward.leaks.tools import ask, bound, tcp, udp


def _to_relay(attempt: Attempt) -> None:
    tcp("relay", attempt.targets.relay[1])(attempt)


_ALONE = (
    ("tor.udp4", "T1", "tor's account: UDP", SEES_UDP, udp("web4", 4433)),
    ("tor.udp6", "T1", "tor's account: UDP over IPv6", SEES_UDP, udp("web6", 4433)),
    ("tor.quic", "T1", "tor's account: QUIC", SEES_UDP, udp("web4", 443)),
    ("tor.dns4", "T1", "tor's account: DNS", SEES_UDP, ask("dns4")),
    ("tor.dns-bound", "T1", "tor's account: DNS tied to the uplink", SEES_UDP,
     ask("dns4", 53, bound)),
    ("tor.tcp4", "T2", "tor's account, another program: TCP to a web server", SEES_TCP,
     tcp("web4", 80)),
    ("tor.tcp6", "T2", "tor's account, another program: TCP over IPv6 to a web server",
     SEES_TCP, tcp("web6", 80)),
    ("tor.dns-tcp", "T2", "tor's account, another program: DNS over TCP", SEES_TCP,
     tcp("dns4", 53)),
    ("tor.relay", "T2", "tor's account, another program: TCP to a Tor relay", SEES_TCP, _to_relay),
    ("tor.bound", "T2", "tor's account, another program: TCP tied to the uplink", SEES_TCP,
     tcp("web4", 80, bound)),
)  # fmt: skip

_IN_GROUP = (
    ("tor-group.udp4", "UDP", SEES_UDP, udp("web4", 4433)),
    ("tor-group.udp6", "UDP over IPv6", SEES_UDP, udp("web6", 4433)),
    ("tor-group.dns4", "DNS", SEES_UDP, ask("dns4")),
    ("tor-group.dns6", "DNS over IPv6", SEES_UDP, ask("dns6")),
)

_USER_IN_GROUP = Vector(
    "tor-group.user",
    "T2",
    "a child of tor's service under another account: TCP to a Tor relay",
    SEES_TCP,
    _to_relay,
    needs=Needs.TOR_GROUP,
)

VECTORS: tuple[Vector, ...] = (
    *(Vector(*row, account=Account.TOR) for row in _ALONE),
    *(
        Vector(
            name,
            "T1",
            f"tor's account in tor's service: {title}",
            sees,
            probe,
            account=Account.TOR,
            needs=Needs.TOR_GROUP,
        )
        for name, title, sees, probe in _IN_GROUP
    ),
    _USER_IN_GROUP,
)
