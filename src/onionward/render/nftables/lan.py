"""Clients of a LAN: redirected, served what the policy names, refused everything else."""

from __future__ import annotations

from onionward.policy import RELAY4, RELAY6, Lan, Policy
from onionward.render.nftables.flow_memory import CLOSING
from onionward.render.nftables.marks import MARK_CLIENT, MARK_INBOUND
from onionward.render.nftables.text import FLAGS, SYN_ONLY, Chain, for_families
from onionward.rules import Rule, commented

# sources that are no client of the interface
_NOBODY = (
    # who has no address yet asks for one by DHCP, or whether somebody has it (RFC 4862): a group
    "ip saddr 0.0.0.0 fib daddr type != broadcast",
    "ip6 saddr :: fib daddr type != multicast",
    "ip saddr != 0.0.0.0 fib saddr type broadcast",
    "meta nfproto ipv6 fib saddr type anycast",
    "ip saddr != 0.0.0.0 fib saddr . iif oif missing",
    "ip6 saddr != :: fib saddr . iif oif missing",
)


def chains(policy: Policy, *, routed: bool) -> tuple[Chain, ...]:
    """Those that belong to clients alone; none without a LAN."""
    if not policy.lans:
        return ()
    return (
        _sources(policy),
        *_flows(),
        _refused(),
        _to_clients(policy),
        _clients(policy, routed=routed),
    )


def arriving(policy: Policy) -> tuple[str, ...]:
    """Rules of the strong_host chain: which packets of clients are believed."""
    if not policy.lans:
        return ()
    return (*renamed(policy, "strangers"), "iifname @lans goto client_sources")


def renamed(policy: Policy, counter: str) -> tuple[str, ...]:
    """A new name for the interface is no way around rules about its name."""
    known = [str(lan.number) for lan in policy.lans if lan.number]
    rule = f"iif {{ {', '.join(known)} }} iifname != @lans counter name {counter} drop"
    return (rule,) if known else ()


def entering(policy: Policy) -> tuple[str, ...]:
    """Rules of the input chain."""
    return ("iifname @lans goto clients",) if policy.lans else ()


def outgoing(policy: Policy) -> tuple[str, ...]:
    """Rules of the output and wire chains."""
    if not policy.lans:
        return ()
    return ("oifname @lans jump to_clients", *never_elsewhere())


def never_elsewhere() -> tuple[str, ...]:
    """What tor answers to clients, once their interface is gone or connection tracking forgot."""
    return (
        f"ct mark {MARK_CLIENT:#x} counter name escaped drop",
        f"ip saddr {RELAY4} counter name escaped drop",
        f"ip6 saddr {RELAY6} counter name escaped drop",
    )


def asked_elsewhere(policy: Policy) -> tuple[str, ...]:
    """How clients are asked what they expect, once their interface is gone or has no address.

    It names a client and a destination, and without a route of their own takes the default one.
    """
    return (f"{_asked(policy)} counter name escaped drop",)


def _asked(policy: Policy) -> str:
    return f"meta mark {policy.stamp:#x} meta skuid 0 {FLAGS} == (syn | ack)"


def _sources(policy: Policy) -> Chain:
    return Chain(
        "client_sources",
        "",
        (
            *(
                commented(f"{match} counter name spoofed drop", Rule.CLIENT_SPOOFED)
                for match in _NOBODY
            ),
            *(
                commented(f"{nobody} counter name strangers drop", Rule.CLIENT_WEAK_HOST)
                for nobody in ("ip daddr 0.0.0.0", "ip6 daddr { ::, ::1 }")
            ),
            f"ip daddr {policy.virtual4} return",
            f"ip6 daddr {policy.virtual6} return",
            "fib daddr . iif type { local, broadcast, multicast, anycast } return",
            commented("fib daddr type local counter name strangers drop", Rule.CLIENT_WEAK_HOST),
        ),
    )


def _flows() -> tuple[Chain, Chain]:
    """Which connections a client may still have open when tor's end is gone."""
    reset, known = "tcp flags & rst == rst", "{{ {ip} saddr . tcp sport . {ip} daddr . tcp dport }}"
    answered = "{{ {ip} daddr . tcp dport . {ip} saddr . tcp sport }}"
    return (
        Chain(
            "client_flows",
            "type filter hook prerouting priority -150; policy accept;",
            (
                "iifname != @lans return",
                "meta l4proto != tcp return",
                "fib daddr . iif type local return",
                *for_families(f"{reset} delete @client_flows{{n}} {known}"),
                f"{reset} return",
                *for_families(f"{SYN_ONLY} delete @client_closing{{n}} {known}"),
                "ct state != established return",
                # a client that has closed its own end has little left to say
                *for_families(f"tcp flags & fin == fin update @client_closing{{n}} {known}"),
                *for_families(
                    "{ip} saddr . tcp sport . {ip} daddr . tcp dport @client_closing{n} "
                    "update @client_flows{n} {{ {ip} saddr . tcp sport . {ip} daddr . tcp dport "
                    f"timeout {CLOSING} }}}} return"
                ),
                *for_families(f"update @client_flows{{n}} {known}"),
            ),
        ),
        Chain(
            "client_flows_reset",
            # the destination's name is on it again
            "type filter hook postrouting priority 150; policy accept;",
            (
                "oifname != @lans return",
                *for_families(f"{reset} delete @client_flows{{n}} {answered}"),
            ),
        ),
    )


def _refused() -> Chain:
    return Chain(
        "clients_refused",
        # after the redirection (-100) and before routing: whether the kernel forwards is no matter
        "type filter hook prerouting priority -90; policy accept;",
        (
            "iifname != @lans return",
            "fib daddr type { local, broadcast, multicast, anycast } return",
            "ct state invalid counter name invalid drop",
            *_rejected("forwarded"),
        ),
    )


def _to_clients(policy: Policy) -> Chain:
    established = "ct direction reply ct state established accept"
    return Chain(
        "to_clients",
        "",
        (
            # how each is asked what it expects, before its end is reset
            f"{_asked(policy)} accept",
            commented(f"ct mark {MARK_CLIENT:#x} {established}", Rule.CLIENT_SERVICE),
            # an answer never opens anything
            f"{SYN_ONLY} return",
            commented(f"ct mark {MARK_INBOUND:#x} {established}", Rule.CLIENT_SERVICE),
            commented("udp sport 67 udp dport 68 accept", Rule.CLIENT_DHCP),
            commented("udp sport 547 udp dport 546 ip6 daddr fe80::/10 accept", Rule.CLIENT_DHCP),
            commented("icmpv6 type nd-router-advert ip6 hoplimit 255 accept", Rule.CLIENT_DHCP),
            "meta skuid >= 0 return",
            # which groups the kernel listens to: a switch may want to know (RFC 3810)
            "icmpv6 type mld2-listener-report accept",
            # how the kernel refuses
            "tcp flags & rst == rst accept",
            "icmp type destination-unreachable accept",
            "icmpv6 type { destination-unreachable, packet-too-big } accept",
        ),
    )


def _clients(policy: Policy, *, routed: bool) -> Chain:
    redirected = (
        f"ct mark {MARK_CLIENT:#x} ct status dnat tcp dport {policy.trans_port} accept",
        f"ct mark {MARK_CLIENT:#x} ct status dnat udp dport {policy.dns_port} accept",
    )
    return Chain(
        "clients",
        "",
        (
            *(redirected if routed else ()),
            *for_families(
                commented(
                    "{ip} saddr . tcp sport . {ip} daddr . tcp dport @kept{n} accept", Rule.KEPT
                )
            ),
            "ct state invalid counter name invalid drop",
            # answers to what this machine may ask them
            f"ct direction reply ct mark != {MARK_CLIENT:#x} ct state established accept",
            f"ct mark {MARK_INBOUND:#x} ct state established accept",
            "icmp type destination-unreachable ct state related accept",
            "icmpv6 type { packet-too-big, destination-unreachable } ct state related accept",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } "
            "ip6 hoplimit 255 accept",
            *_dhcp(policy),
            commented("ip saddr 0.0.0.0 counter name spoofed drop", Rule.CLIENT_SILENCE),
            commented("fib daddr type != local counter name strangers drop", Rule.CLIENT_SILENCE),
            # addresses of onion names are local, too
            *_rejected("strangers", "fib daddr . iif type != local "),
            *(rule for lan in policy.lans for rule in _services(lan)),
            *_rejected("strangers"),
        ),
    )


def _rejected(counter: str, match: str = "") -> tuple[str, ...]:
    prohibited = f"counter name {counter} reject with icmpx type admin-prohibited"
    verdicts = (
        # a reset looks for its way by address alone, and any link may have this one
        f"ip6 saddr fe80::/10 {prohibited}",
        f"meta l4proto tcp counter name {counter} reject with tcp reset",
        prohibited,
    )
    return tuple(commented(match + verdict, Rule.CLIENT_REFUSED) for verdict in verdicts)


def _dhcp(policy: Policy) -> tuple[str, ...]:
    names = ", ".join(f'"{lan.interface}"' for lan in policy.lans if lan.dhcp)
    if not names:
        return ()
    where = f"iifname {{ {names} }}"
    return (
        commented(
            f"{where} meta nfproto ipv4 udp sport 68 udp dport 67 "
            "fib daddr . iif type { local, broadcast } accept",
            Rule.CLIENT_DHCP,
        ),
        commented(
            f"{where} udp sport 546 udp dport 547 ip6 saddr fe80::/10 "
            "ip6 daddr { ff02::1:2, fe80::/10 } accept",
            Rule.CLIENT_DHCP,
        ),
    )


def _services(lan: Lan) -> tuple[str, ...]:
    at = f'iifname "{lan.interface}"'
    accept = f"ct mark set {MARK_INBOUND:#x} accept"
    found = []
    if lan.ping:
        found += [
            f"{at} ct state new icmp type echo-request {accept}",
            f"{at} ct state new icmpv6 type echo-request {accept}",
        ]
    if lan.tcp_ports:
        ports = ", ".join(map(str, lan.tcp_ports))
        found.append(f"{at} ct state new {SYN_ONLY} tcp dport {{ {ports} }} {accept}")
    if lan.udp_ports:
        ports = ", ".join(map(str, lan.udp_ports))
        found.append(f"{at} ct state new udp dport {{ {ports} }} {accept}")
    return tuple(commented(rule, Rule.CLIENT_SERVICE) for rule in found)
