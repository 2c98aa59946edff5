"""The filter of a machine that is routed itself: what is not allowed by name is refused."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.nftables import lan, paused, runs
from onionward.render.nftables.marks import MARK_DIRECT, MARK_INBOUND, MARK_REDIRECTED, MARK_TOR
from onionward.render.nftables.text import (
    DISCOVERY_PORTS,
    FLAGS,
    NAMES,
    SYN_ONLY,
    Chain,
    for_families,
)
from onionward.rules import Rule, commented


def chains(policy: Policy, *, routed: bool) -> tuple[Chain, ...]:
    """All of them, for one state."""
    bypass = _bypass(routed=routed)
    return (
        *paused.chains(policy),
        _output(policy, bypass),
        *_tor_chains(policy),
        *((_direct_user_chain(policy),) if policy.direct_users else ()),
        _answers(policy),
        Chain("dhcp", "", ("ip daddr 255.255.255.255 accept", "ip daddr @link4 accept")),
        *((_bypass_chain(),) if routed else ()),
        _neighbour_discovery(),
        _wire(policy, bypass if routed else ()),
        Chain(
            "forwarded",
            "type filter hook forward priority 0; policy drop;",
            ("counter name forwarded drop",),
        ),
        *_input_chains(policy),
    )


def kept_outgoing(verdict: str) -> tuple[str, ...]:
    """Packets of connections from before, but none that opens one.

    The addresses and ports may outlive the connection that was kept.
    """
    match = "{ip} daddr . tcp dport . {ip} saddr . tcp sport @kept{n}"
    return for_families(commented(f"{FLAGS} != syn {match} {verdict}", Rule.KEPT))


def _output(policy: Policy, bypass: tuple[str, ...]) -> Chain:
    return Chain(
        "output",
        "type filter hook output priority 0; policy drop;",
        (
            *paused.rules(policy),
            # the rules judge the first hop of a source route; the packet would go on from there
            "ip option lsrr exists counter name refused drop",
            "ip option ssrr exists counter name refused drop",
            "exthdr rt exists counter name refused drop",
            "jump neighbour_discovery",
            # redirected flows are on their way to loopback; their true device is judged last
            commented("fib daddr type local accept", Rule.OWN_ADDRESS),
            *kept_outgoing("accept"),
            runs.outgoing(),
            # what rejects clients' packets speaks for addresses that are not ours
            *lan.outgoing(policy),
            # a reject would answer the forged address, so it comes after this
            "fib saddr type != local counter name spoofed drop",
            "jump tor",
            *_direct_users(policy),
            "jump answers",
            *bypass,
            "ct state invalid counter name invalid drop",
            commented("meta l4proto tcp counter name refused reject with tcp reset", Rule.REFUSED),
            commented("counter name refused reject with icmpx type admin-prohibited", Rule.REFUSED),
        ),
    )


def _bypass(*, routed: bool) -> tuple[str, ...]:
    if routed:
        return for_families("{ip} daddr @bypass{n} jump bypass")
    # connections to bypassed networks wait: silence makes TCP try again, a reset would not
    goes_on = f"tcp flags & (syn | rst) == 0x0 tcp dport != {_braced(NAMES)}"
    return for_families(f"{{ip}} daddr @bypass{{n}} {goes_on} drop")


def _braced(text: str) -> str:
    """Braces that survive a format."""
    return text.replace("{", "{{").replace("}", "}}")


def _bypass_chain() -> Chain:
    return Chain(
        "bypass",
        "",
        (
            f"meta l4proto {{ tcp, udp }} th dport {NAMES} return",
            commented("meta l4proto { tcp, udp, icmp, icmpv6 } accept", Rule.BYPASS),
        ),
    )


def _direct_users(policy: Policy) -> tuple[str, ...]:
    if not policy.direct_users:
        return ()
    return (
        "meta skuid @direct_users jump direct_user",
        f"ct mark {MARK_DIRECT:#x} jump without_socket",
    )


def _direct_user_chain(policy: Policy) -> Chain:
    return Chain(
        "direct_user",
        "",
        (
            f"ip daddr {policy.virtual4} return",
            f"ip6 daddr {policy.virtual6} return",
            f"ct mark {MARK_REDIRECTED:#x} return",
            commented(f"ct mark set {MARK_DIRECT:#x} accept", Rule.DIRECT_USER),
            # what connection tracking makes nothing of has no mark
            commented("accept", Rule.DIRECT_USER),
        ),
    )


def _tor_chains(policy: Policy) -> tuple[Chain, ...]:
    group = ""
    if policy.tor_cgroup is not None:
        group = f'socket cgroupv2 level {policy.tor_cgroup.level} "{policy.tor_cgroup.name}" '
    orphan = f"ct mark {MARK_TOR:#x} meta l4proto tcp jump without_socket"
    own = f"ct mark != {MARK_REDIRECTED:#x} {group}".rstrip()
    passed, on_wire = f"ct mark set {MARK_TOR:#x} accept", f"ct mark {MARK_TOR:#x}"
    return (
        Chain("tor", "", (*_own(policy, own, passed), *_elsewhere(policy, own), orphan)),
        # control groups cannot be asked for here (nft(8), socket expression), so the mark that
        # the output chain has set is
        Chain("tor_on_wire", "", (*_own(policy, on_wire, "accept"), orphan)),
        Chain(
            "without_socket",
            "",
            # the end of a connection whose socket is gone; what has an owner is no such thing
            ("meta skuid >= 0 return", "ct state established accept"),
        ),
    )


def _own(policy: Policy, match: str, verdict: str) -> tuple[str, ...]:
    """What tor's account sends by TCP, as far as it may reach."""
    owner = f"meta skuid {policy.tor_uid} meta l4proto tcp"
    if policy.reach is None:
        return (commented(f"{owner} {match} {verdict}", Rule.TOR),)
    to = "{ip} daddr . tcp dport @relays{n}"
    rules = for_families(f"{owner} {to} {match} {verdict}")
    return tuple(commented(rule, Rule.TOR) for rule in rules)


def _elsewhere(policy: Policy, match: str) -> tuple[str, ...]:
    """Nothing else of tor itself, and without a word.

    A relay that is new to tor is known here a moment later. After silence the kernel repeats the
    attempt within a second; after an answer tor would give the relay up for minutes.
    """
    if policy.reach is None:
        return ()
    owner = f"meta skuid {policy.tor_uid} meta l4proto tcp"
    return (commented(f"{owner} {match} counter name refused drop", Rule.TOR_ELSEWHERE),)


def _answers(policy: Policy) -> Chain:
    # who may ask now, which a flow of an earlier policy may not
    reply = f"ct mark {MARK_INBOUND:#x} ct direction reply ct state established accept"
    return Chain(
        "answers",
        "",
        (
            # a peer's lost SYN makes ours look like its answer; an answer never opens anything
            f"{SYN_ONLY} return",
            # nor does an answer ask for a name
            f"meta l4proto {{ tcp, udp }} th dport {NAMES} return",
            *(f"{whom} {reply}".lstrip() for whom in _admitted(policy, "daddr")),
            commented("udp sport 68 udp dport 67 meta skuid @dhcp_accounts jump dhcp", Rule.DHCP),
            commented(
                "udp sport 546 udp dport 547 meta skuid @dhcp_accounts "
                "ip6 daddr { ff02::1:2, fe80::/10 } accept",
                Rule.DHCP,
            ),
        ),
    )


def _neighbour_discovery() -> Chain:
    return Chain(
        "neighbour_discovery",
        "",
        (
            # the kernel's own have no owner; a raw socket's have
            "meta skuid >= 0 return",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        ),
    )


def _wire(policy: Policy, bypass: tuple[str, ...]) -> Chain:
    direct = (
        "meta skuid @direct_users accept",
        f"ct mark {MARK_DIRECT:#x} jump without_socket",
    )
    return Chain(
        "wire",
        "type filter hook postrouting priority 350; policy drop;",
        (
            'oifname "lo" accept',
            f"ct mark {MARK_REDIRECTED:#x} counter name escaped drop",
            f"meta mark set {policy.stamp:#x}",
            "jump neighbour_discovery",
            *kept_outgoing("accept"),
            runs.outgoing(),
            *lan.outgoing(policy),
            "jump tor_on_wire",
            *(direct if policy.direct_users else ()),
            "jump answers",
            *bypass,
            "meta mark set 0x0",
            "counter name escaped drop",
        ),
    )


def _admitted(policy: Policy, field: str) -> tuple[str, ...]:
    """Matches of the peers that `inbound` admits; `field` is "saddr" or "daddr"."""
    bypass = (f"ip {field} @bypass4", f"ip6 {field} @bypass6")
    match policy.inbound:
        case "none":
            return ()
        case "bypass":
            return bypass
        case "link":
            return (f"ip {field} @link4", f"ip6 {field} @link6", *bypass)
        case "all":
            return ("",)


def _input_chains(policy: Policy) -> tuple[Chain, ...]:
    low, high = policy.ephemeral_ports
    who = tuple(f"{whom} jump admitted".lstrip() for whom in _admitted(policy, "saddr"))
    admitted = Chain(
        "admitted",
        "",
        (
            "fib daddr type != local return",
            f"meta l4proto {{ tcp, udp }} th dport {{ {_ports_of_tor(policy)} }} return",
            f"udp dport {DISCOVERY_PORTS} return",
            f"meta l4proto {{ tcp, udp }} th sport {NAMES} return",
            # else a peer's datagram would turn what a program sends into an answer
            f"udp dport {low}-{high} return",
            f"ct state new {SYN_ONLY} ct mark set {MARK_INBOUND:#x} accept",
            *_datagrams(policy),
            f"ct state new icmp type echo-request ct mark set {MARK_INBOUND:#x} accept",
            f"ct state new icmpv6 type echo-request ct mark set {MARK_INBOUND:#x} accept",
        ),
    )
    return (
        Chain(
            "strong_host",
            "type filter hook prerouting priority -310; policy accept;",
            (
                *runs.arriving(),
                *lan.arriving(policy),
                # a packet for an address of another interface is a probe (CVE-2019-14899)
                commented(
                    'iifname != "lo" fib daddr . iif type '
                    "!= { local, broadcast, multicast, anycast } counter name forwarded drop",
                    Rule.FORWARDED,
                ),
            ),
        ),
        Chain(
            "input",
            "type filter hook input priority 0; policy drop;",
            (
                'iifname "lo" accept',
                *runs.entering(),
                *lan.entering(policy),
                *_loopback(policy),
                "ip saddr . tcp sport . ip daddr . tcp dport @kept4 accept",
                "ip6 saddr . tcp sport . ip6 daddr . tcp dport @kept6 accept",
                "ct state invalid drop",
                "ct state established accept",
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } "
                "ip6 hoplimit 255 accept",
                "icmp type destination-unreachable ct state related accept",
                "icmpv6 type { packet-too-big, destination-unreachable } ct state related accept",
                "udp sport 67 udp dport 68 accept",
                "udp sport 547 udp dport 546 ip6 saddr fe80::/10 accept",
                *who,
                "counter name strangers drop",
            ),
        ),
        *((admitted,) if who else ()),
    )


def _ports_of_tor(policy: Policy) -> str:
    ports = dict.fromkeys((policy.trans_port, policy.dns_port, policy.names_port))
    return ", ".join(map(str, ports))


def _loopback(policy: Policy) -> tuple[str, ...]:
    own4 = () if policy.virtual4.is_loopback else (f"ip daddr {policy.virtual4} drop",)
    return (
        "ip daddr 127.0.0.0/8 drop",
        *own4,
        "ip6 daddr ::1 drop",
        f"ip6 daddr {policy.virtual6} drop",
    )


def _datagrams(policy: Policy) -> tuple[str, ...]:
    """A datagram opens both ways, so even with "all" only those nearby may send one first."""
    new = f"ct state new meta l4proto udp ct mark set {MARK_INBOUND:#x} accept"
    if policy.inbound != "all":
        return (new,)
    nearby = ("ip saddr @link4", "ip6 saddr @link6", "ip saddr @bypass4", "ip6 saddr @bypass6")
    return tuple(f"{whom} {new}" for whom in nearby)
