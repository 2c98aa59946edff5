"""Name queries of those who are not routed, from a port whose last query went to tor.

Connection tracking would lead such a query the way of the last one, whoever's it was: it knows
addresses and ports only. These queries, and the answers to them, are not tracked.
"""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.nftables import accounts
from onionward.render.nftables.onion_names import in_query
from onionward.render.nftables.text import Chain, for_families, print_set

# longer than connection tracking remembers a datagram that was answered (120 s)
_REMEMBER = "3m"
_AWAIT = "1m"
_MOST = 65535
_ASKED = "{{ {ip} daddr . udp dport . {ip} saddr . udp sport }}"
_ANSWERED = "{ip} saddr . udp sport . {ip} daddr . udp dport"


def are_told_apart(policy: Policy) -> bool:
    """Whether some queries go to tor and others do not."""
    return policy.route == "onion" or (policy.route == "direct" and bool(policy.users))


def sets(policy: Policy) -> list[str]:
    """Whom, and from which port, tor and others were asked instead of a moment ago."""
    lines: list[str] = []
    if are_told_apart(policy):
        for version in (4, 6):
            kind = f"ipv{version}_addr . inet_service . ipv{version}_addr . inet_service"
            for name, time in (("asked_tor", _REMEMBER), ("asked_others", _AWAIT)):
                flags = f"dynamic,timeout; timeout {time}; size {_MOST}"
                lines += print_set(f"{name}{version}", kind, (), flags)
    return lines


def chains(policy: Policy) -> tuple[Chain, ...]:
    """All of them; only the state "routed" has them, for nothing is redirected before."""
    if not are_told_apart(policy):
        return ()
    to_tor = for_families(f"update @asked_tor{{n}} {_ASKED}")
    answers = for_families(f"udp sport 53 {_ANSWERED} @asked_others{{n}} notrack")
    names = (f"{match} goto onion_asked" for match in in_query())
    onion = (
        Chain("onion_asked", "", (*to_tor, "accept")),
        Chain("onion_names_asked", "", tuple(names)),
    )
    return (
        *(onion if policy.route == "onion" else ()),
        *((Chain("user_asked", "", (*to_tor, "accept")),) if policy.users else ()),
        Chain(
            "asking",
            # before connection tracking (-200)
            "type filter hook output priority -300; policy accept;",
            (
                # answers of a resolver on this machine
                *answers,
                "udp dport != 53 accept",
                *accounts.user_rules(policy, "goto user_asked"),
                *(("jump onion_names_asked",) if policy.route == "onion" else ()),
                *for_families(
                    "{ip} daddr . udp dport . {ip} saddr . udp sport @asked_tor{n} "
                    f"update @asked_others{{n}} {_ASKED} notrack"
                ),
            ),
        ),
        Chain(
            "answered",
            "type filter hook prerouting priority -300; policy accept;",
            answers,
        ),
    )
