"""The network of a rootless run, as text for ip(8) and nft(8).

    command ── tor0 (default route of both families; its other end is tor1, in the same namespace)
                 │ TCP: turned to the listener on loopback
                 │ UDP 53: turned to the name server on loopback
                 └ everything else: refused

No interface leads out of the namespace; what the listener takes is carried on by the forwarder,
which is outside.
"""

from __future__ import annotations

import ipaddress

from onionward.app.rootless.names import NETWORK4, NETWORK6
from onionward.networks import UNROUTABLE

LISTENER_PORT = 940
"""Privileged, so that the command cannot take it."""
NAME_PORT = 53
LOOPBACK4, LOOPBACK6 = "127.0.0.1", "::1"

_DEVICE, _OTHER_END = "tor0", "tor1"
# programs look whether there is an address of a family before they ask for names of it
_ADDRESS4 = ipaddress.IPv4Address("10.111.0.2")
_ADDRESS6 = ipaddress.IPv6Address("fd5a:7012::2")
_MTU = 65535


def links(*, ipv6: bool) -> str:
    """Input for `ip -batch`: loopback, and an interface with addresses and the default routes.

    Where the kernel has no dummy interfaces, one end of a pair does as well, so errors of single
    lines are to be ignored (`-force`); `has_route` tells whether it worked.
    """
    lines = [
        "link set lo up",
        f"link add {_DEVICE} mtu {_MTU} type dummy",
        f"link add {_DEVICE} mtu {_MTU} type veth peer name {_OTHER_END} mtu {_MTU}",
        f"link set {_OTHER_END} up",
        f"addr add {_ADDRESS4}/32 dev {_DEVICE}",
        *([f"addr add {_ADDRESS6}/128 dev {_DEVICE} nodad"] if ipv6 else []),
        f"link set {_DEVICE} up",
        f"route add 0.0.0.0/0 dev {_DEVICE}",
        *([f"route add ::/0 dev {_DEVICE}"] if ipv6 else []),
    ]
    return "\n".join(lines) + "\n"


def has_route(table: str) -> bool:
    """Whether a table of routes (proc_pid_net(5): route, ipv6_route) leads everything to us."""
    rows = (line.split() for line in table.splitlines())
    return any(
        row and set(row[1 if row[0] == _DEVICE else 0]) == {"0"} and _DEVICE in (row[0], row[-1])
        for row in rows
    )


def rules() -> str:
    """Input for nft: what is turned to the forwarder, and what is refused.

    The judgement comes first, because after the translation the destination is the forwarder's.
    """
    refused4 = ", ".join(str(n) for n in UNROUTABLE if n.version == 4)
    refused6 = ", ".join(str(n) for n in UNROUTABLE if n.version == 6)
    return f"""\
table inet onionward {{
  chain judge {{
    type filter hook output priority -150; policy drop;
    udp dport {NAME_PORT} accept
    fib daddr type local accept
    meta l4proto tcp ip daddr {NETWORK4} accept
    meta l4proto tcp ip6 daddr {NETWORK6} accept
    ip daddr {{ {refused4} }} goto refuse
    ip6 daddr {{ {refused6} }} goto refuse
    fib daddr type != unicast goto refuse
    meta l4proto tcp accept
    goto refuse
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }}
  chain turn {{
    type nat hook output priority -100;
    udp dport {NAME_PORT} redirect to :{NAME_PORT}
    fib daddr type local return
    meta l4proto tcp redirect to :{LISTENER_PORT}
  }}
}}
"""
