"""Packets that programs of the machine send."""

from __future__ import annotations

from hypothesis import strategies as st

from onionward.facts import Link
from onionward.networks import Address, contains
from onionward.policy import Policy
from tests.kernel.cases import ACK, OTHERS, SYN, Send, is_group, send
from tests.kernel.policies import ACCOUNTS, DEPUTY_PORTS, PLACES, edges
from tests.support import addr, net

_PUBLIC = tuple(map(addr, ("1.1.1.1", "2606:4700::1111", "198.18.200.1", "2001:db8:ff::1")))
_PORTS = (
    443,
    80,
    53,
    853,
    137,
    138,
    1900,
    5353,
    5355,
    67,
    547,
    940,
    941,
    22,
    1,
    65535,
    123,
    *DEPUTY_PORTS,
)
_LIKELY_PORTS = {"tcp": (443, 443, 53) * 3, "udp": (53, 53, 53, 443) * 6}
_KEY = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"
_LABELS = ("www", "a", "x" * 63, "w.w", "onion", _KEY, "xn--pda")
_ENDS = ("onion", "ONION", "oNiOn", "onio", "onionx", "com", "onion.com", "xonion")


def packets_of_programs(links: tuple[Link, ...], policy: Policy) -> list[st.SearchStrategy[Send]]:
    """Strategies for them; the first is what is wanted most often."""
    packets = _packets(links, policy, st.sampled_from(_destinations(links, policy)))
    return [packets, packets, packets, *([_near_kept(policy)] if policy.kept else [])]


def _destinations(links: tuple[Link, ...], policy: Policy) -> list[Address]:
    networks = [n for link in links for n in link.networks]
    networks += [*policy.bypass, *policy.virtual, *policy.local_routes]
    near = [*(a for link in links for a in link.addresses), *policy.local_addresses]
    near += [*edges(networks), *edges(policy.unroutable)]
    # multicast of a scope within the machine, which the kernel sends nowhere (RFC 4291, 2.7)
    silent = [net("ff00::/16"), net("ff01::/16")]
    return [a for a in dict.fromkeys((*PLACES, *near)) if not contains(silent, a)]


@st.composite
def _names(draw: st.DrawFn) -> str:
    """Names under .onion, and what only looks like it."""
    key = draw(st.sampled_from([_KEY, _KEY.upper(), _KEY[1:], _KEY + "a"]))
    before = draw(st.sampled_from(["", *_LABELS]) | st.integers(1, 63).map(lambda n: "y" * n))
    end = draw(st.sampled_from(["onion", *_ENDS]))
    return ".".join(label for label in (before, key, end) if label)


@st.composite
def _packets(
    draw: st.DrawFn,
    links: tuple[Link, ...],
    policy: Policy,
    destinations: st.SearchStrategy[Address],
) -> Send:
    named = [name for name, who in ACCOUNTS.items() if policy.user_of(who.uid)]
    named += [name for name, who in ACCOUNTS.items() if policy.is_direct(who.uid)]
    account = draw(st.sampled_from(["ordinary", *ACCOUNTS, "root", *named * 3]))
    to = draw(st.one_of(destinations, destinations, st.sampled_from(_PUBLIC)))
    icmp = ("icmp", "ipv6-icmp") if to.version == 4 else ("ipv6-icmp", "icmp")
    likely = ["tcp"] * 5 + ["udp"] * 4 + [icmp[0]] * 2
    protocol = draw(st.sampled_from([*likely, *OTHERS, icmp[1]]))
    port = source_port = name = None
    raw, kind = True, SYN
    if protocol in ("tcp", "udp"):
        port = draw(st.sampled_from(_LIKELY_PORTS[protocol] + _PORTS) | st.integers(1, 65535))
        networks = [n for link in links for n in link.networks]
        raw = protocol == "tcp" and (draw(st.integers(0, 3)) == 3 or is_group(networks, to))
        kind = draw(st.sampled_from([SYN, ACK])) if raw else SYN
    if protocol == "udp" and draw(st.integers(0, 3)) == 3:
        source_port = draw(st.sampled_from([68, 546]))
        port = draw(st.sampled_from([67, 547, 53]))
        account = draw(st.sampled_from(["root", "dhcp", account]))
    if policy.route == "onion" and draw(st.integers(0, 3)) == 3:
        protocol, port, source_port, name = "udp", 53, None, draw(_names())
    if protocol == "udp" and port == 53 and name is None and draw(st.booleans()):
        name = draw(_names())
    if protocol == icmp[0]:
        kinds = (8, 13) if to.version == 4 else (128, 133, 135)
        kind = draw(st.sampled_from(kinds))
    return send(account, to, protocol, port, source_port, raw=raw, kind=kind, name=name)


@st.composite
def _near_kept(draw: st.DrawFn, policy: Policy) -> Send:
    """A packet of a kept connection, or one that differs by a port."""
    flow = draw(st.sampled_from(policy.kept))
    return send(
        draw(st.sampled_from(list(ACCOUNTS))),
        flow.peer,
        "tcp",
        flow.peer_port + draw(st.sampled_from([0, 0, 1])),
        flow.local_port + draw(st.sampled_from([0, 0, 1])),
        flow.local,
        kind=draw(st.sampled_from([ACK, ACK, SYN])),
    )
