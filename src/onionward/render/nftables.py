"""Policy → nftables text: one `inet` table and one `netdev` table, replaced together.

    nat output    to_tor     TCP to TransPort, UDP 53 to DNSPort
    filter output output     judges by identity: tor, answers, bypass; everything else is refused
    postrouting   wire       the last word: sees the true device, stamps what may leave
    netdev egress egress     only stamped packets pass; packet sockets have no stamp
    filter input  input      silence towards those the policy does not admit
    forward       forwarded  nothing

Every chain ends with a verdict of its own: the kernel puts a drop policy in force only at the end
of a commit (nf_tables_api.c, nft_chain_commit_drop_policy); until then a new chain's end accepts.

The reasons are in docs/security.md. nft(8) is the reference; version 1.0.6 is the oldest tried:
it has no `destroy`, and wants a newline or semicolon before a closing brace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onionward.networks import of_version
from onionward.policy import Policy
from onionward.tables import EGRESS_TABLE, TABLE, remove

# conntrack marks: who a flow belongs to
MARK_REDIRECTED = 0x746F7200
MARK_TOR = 0x746F7201
MARK_INBOUND = 0x746F7202

# Name resolution that a bypassed or attached network would see: DNS, NetBIOS, DNS over TLS, SSDP,
# multicast DNS, LLMNR.
_NAME_PORTS = "{ 53, 137, 138, 853, 1900, 5353, 5355 }"
_DISCOVERY_PORTS = "{ 137, 138, 1900, 5353, 5355 }"
_FLAGS = "tcp flags & (fin | syn | rst | ack)"
_SYN_ONLY = f"{_FLAGS} == syn"
_COUNTERS = ("refused", "spoofed", "invalid", "escaped", "forwarded", "strangers")


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain: its hook (or "" for one that is only jumped to) and its rules."""

    name: str
    hook: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What a transaction puts in place.

    Attributes:
        state: "blocked" or "routed".
        text: for `nft -f -`.
        chains: names of (table, chain) and the number of rules each must hold.
        devices: interfaces whose egress is watched.

    """

    state: str
    text: str
    chains: tuple[tuple[str, str, int], ...]
    devices: tuple[str, ...]


def block(policy: Policy) -> Ruleset:
    """Nothing leaves but tor itself, and answers to those the policy admits."""
    return _ruleset(policy, "blocked", _filter_chains(policy, routed=False))


def route(policy: Policy) -> Ruleset:
    """TCP and names go to tor, bypassed networks are reached, everything else is refused."""
    chains = (_redirect_chain(policy), *_filter_chains(policy, routed=True))
    return _ruleset(policy, "routed", chains)


def _ruleset(policy: Policy, state: str, chains: Sequence[Chain]) -> Ruleset:
    egress = _egress_chains(policy)
    text = [
        remove(),
        f"table {' '.join(TABLE)} {{",
        f'\tcomment "onionward: {state}"',
        *_sets(policy),
        *(f"\tcounter {name} {{ }}" for name in _COUNTERS),
        *(_chain(chain) for chain in chains),
        "}",
        f"table {' '.join(EGRESS_TABLE)} {{",
        f'\tcomment "onionward: {state}"',
        *_set("dhcp_accounts", "uid", map(str, policy.dhcp_uids)),
        "\tcounter escaped { }",
        *(_chain(chain) for chain in egress),
        "}",
        "",
    ]
    counted = [(TABLE[1], c.name, len(c.rules)) for c in chains]
    counted += [(EGRESS_TABLE[1], c.name, len(c.rules)) for c in egress]
    return Ruleset(state, "\n".join(text), tuple(counted), policy.devices)


def _chain(chain: Chain) -> str:
    head = [f"\t\t{chain.hook}"] if chain.hook else []
    return "\n".join([f"\tchain {chain.name} {{", *head, *(f"\t\t{r}" for r in chain.rules), "\t}"])


def _set(name: str, kind: str, elements: Iterable[str], flags: str = "") -> list[str]:
    listed = ",\n\t\t\t".join(elements)
    body = f"type {kind}; {f'flags {flags}; ' if flags else ''}"
    contents = f"elements = {{\n\t\t\t{listed}\n\t\t}}" if listed else ""
    return [f"\tset {name} {{", f"\t\t{body}", *([f"\t\t{contents}"] if contents else []), "\t}"]


def _sets(policy: Policy) -> list[str]:
    lines: list[str] = []
    for name, networks in (
        ("bypass", policy.bypass),
        ("link", policy.link),
        ("unroutable", policy.unroutable),
    ):
        for version in (4, 6):
            family = of_version(networks, version)
            lines += _set(f"{name}{version}", f"ipv{version}_addr", map(str, family), "interval")
    for version in (4, 6):
        kind = f"ipv{version}_addr . inet_service . ipv{version}_addr . inet_service"
        flows = (f for f in policy.kept if f.peer.version == version)
        lines += _set(
            f"kept{version}",
            kind,
            (f"{f.peer} . {f.peer_port} . {f.local} . {f.local_port}" for f in flows),
        )
    return lines + _set("dhcp_accounts", "uid", map(str, policy.dhcp_uids))


def _redirect_chain(policy: Policy) -> Chain:
    redirect = f"ct mark set {MARK_REDIRECTED:#x} redirect to"
    to_tor = f"{redirect} :{policy.trans_port}"
    return Chain(
        "to_tor",
        # before every other translation, which would otherwise choose the destination
        "type nat hook output priority -110; policy accept;",
        (
            f"meta skuid {policy.tor_uid} return",
            # without IPv6 on loopback there is nowhere to go: refused at once further on
            *(() if policy.ipv6 else ("meta nfproto ipv6 return",)),
            *_kept_outgoing("return"),
            f"ip daddr {policy.virtual4} meta l4proto tcp {to_tor}",
            f"ip6 daddr {policy.virtual6} meta l4proto tcp {to_tor}",
            # a socket for such an address is tied to its device and cannot be turned to loopback:
            # refused at once further on, instead of being dropped as the last word
            "ip6 daddr fe80::/10 return",
            # before every exemption: resolvers on loopback, on the link and in bypassed networks
            f"udp dport 53 {redirect} :{policy.dns_port}",
            "fib daddr type { local, broadcast, multicast, anycast } return",
            "ip daddr @bypass4 return",
            "ip6 daddr @bypass6 return",
            "ip daddr @unroutable4 return",
            "ip6 daddr @unroutable6 return",
            # also packets in the middle of a connection, whose sender then gets a reset
            f"meta l4proto tcp {to_tor}",
        ),
    )


def _kept_outgoing(verdict: str) -> tuple[str, ...]:
    # nothing that opens a connection: the tuple may outlive the one that was kept
    goes_on = f"{_FLAGS} != syn"
    return (
        f"{goes_on} ip daddr . tcp dport . ip saddr . tcp sport @kept4 {verdict}",
        f"{goes_on} ip6 daddr . tcp dport . ip6 saddr . tcp sport @kept6 {verdict}",
    )


def _filter_chains(policy: Policy, *, routed: bool) -> tuple[Chain, ...]:
    bypass = (
        ("ip daddr @bypass4 jump bypass", "ip6 daddr @bypass6 jump bypass")
        if routed
        # connections to bypassed networks wait: silence makes TCP try again, a reset would not
        else (
            f"ip daddr @bypass4 tcp flags & (syn | rst) == 0x0 tcp dport != {_NAME_PORTS} drop",
            f"ip6 daddr @bypass6 tcp flags & (syn | rst) == 0x0 tcp dport != {_NAME_PORTS} drop",
        )
    )
    return (
        Chain(
            "output",
            "type filter hook output priority 0; policy drop;",
            (
                # the rules judge the first hop of a source route; the packet would go on from there
                "ip option lsrr exists counter name refused drop",
                "ip option ssrr exists counter name refused drop",
                "exthdr rt exists counter name refused drop",
                "jump neighbour_discovery",
                # redirected flows are on their way to loopback; their true device is judged last
                "fib daddr type local accept",
                *_kept_outgoing("accept"),
                # a reject would answer the forged address, so it comes after this
                "fib saddr type != local counter name spoofed drop",
                "jump tor",
                "jump answers",
                *bypass,
                "ct state invalid counter name invalid drop",
                "meta l4proto tcp counter name refused reject with tcp reset",
                "counter name refused reject with icmpx type admin-prohibited",
            ),
        ),
        *_tor_chains(policy),
        Chain(
            "answers",
            "",
            (
                # a peer's lost SYN makes ours look like its answer; an answer never opens anything
                f"{_SYN_ONLY} return",
                # nor does an answer ask for a name
                f"meta l4proto {{ tcp, udp }} th dport {_NAME_PORTS} return",
                *_answers(policy),
                "udp sport 68 udp dport 67 meta skuid @dhcp_accounts jump dhcp",
                "udp sport 546 udp dport 547 meta skuid @dhcp_accounts "
                "ip6 daddr { ff02::1:2, fe80::/10 } accept",
            ),
        ),
        Chain("dhcp", "", ("ip daddr 255.255.255.255 accept", "ip daddr @link4 accept")),
        *(
            (
                Chain(
                    "bypass",
                    "",
                    (
                        f"meta l4proto {{ tcp, udp }} th dport {_NAME_PORTS} return",
                        "meta l4proto { tcp, udp, icmp, ipv6-icmp } accept",
                    ),
                ),
            )
            if routed
            else ()
        ),
        Chain(
            "neighbour_discovery",
            "",
            (
                # the kernel's own have no owner; a raw socket's have
                "meta skuid >= 0 return",
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
            ),
        ),
        Chain(
            "wire",
            "type filter hook postrouting priority 350; policy drop;",
            (
                'oifname "lo" accept',
                f"ct mark {MARK_REDIRECTED:#x} counter name escaped drop",
                f"meta mark set {policy.stamp:#x}",
                "jump neighbour_discovery",
                *_kept_outgoing("accept"),
                "jump tor_on_wire",
                "jump answers",
                *(bypass if routed else ()),
                "meta mark set 0x0",
                "counter name escaped drop",
            ),
        ),
        Chain(
            "forwarded",
            "type filter hook forward priority 0; policy drop;",
            ("counter name forwarded drop",),
        ),
        *_input_chains(policy),
    )


def _answers(policy: Policy) -> tuple[str, ...]:
    """Answers to those who may ask now, which a flow of an earlier policy may not."""
    reply = f"ct mark {MARK_INBOUND:#x} ct direction reply ct state established accept"
    return tuple(f"{whom} {reply}".lstrip() for whom in _admitted(policy, "daddr"))


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


def _tor_chains(policy: Policy) -> tuple[Chain, ...]:
    owner = f"meta skuid {policy.tor_uid} meta l4proto tcp"
    group = ""
    if policy.tor_cgroup is not None:
        group = f'socket cgroupv2 level {policy.tor_cgroup.level} "{policy.tor_cgroup.name}" '
    orphan = f"ct mark {MARK_TOR:#x} meta l4proto tcp jump tor_without_socket"
    return (
        Chain(
            "tor",
            "",
            (
                f"{owner} ct mark != {MARK_REDIRECTED:#x} {group}ct mark set {MARK_TOR:#x} accept",
                orphan,
            ),
        ),
        # control groups cannot be asked for here (nft(8), socket expression), so the mark that
        # the output chain has set is
        Chain("tor_on_wire", "", (f"{owner} ct mark {MARK_TOR:#x} accept", orphan)),
        Chain(
            "tor_without_socket",
            "",
            # the end of a connection whose socket is gone; what has an owner is no such thing
            ("meta skuid >= 0 return", "ct state established accept"),
        ),
    )


def _input_chains(policy: Policy) -> tuple[Chain, ...]:
    low, high = policy.ephemeral_ports
    who = tuple(f"{whom} jump admitted".lstrip() for whom in _admitted(policy, "saddr"))
    admitted = Chain(
        "admitted",
        "",
        (
            "fib daddr type != local return",
            f"meta l4proto {{ tcp, udp }} th dport {{ {policy.trans_port}, {policy.dns_port} }} "
            "return",
            f"udp dport {_DISCOVERY_PORTS} return",
            f"meta l4proto {{ tcp, udp }} th sport {_NAME_PORTS} return",
            # else a peer's datagram would turn what a program sends into an answer
            f"udp dport {low}-{high} return",
            f"ct state new {_SYN_ONLY} ct mark set {MARK_INBOUND:#x} accept",
            *_datagrams(policy),
            f"ct state new icmp type echo-request ct mark set {MARK_INBOUND:#x} accept",
            f"ct state new icmpv6 type echo-request ct mark set {MARK_INBOUND:#x} accept",
        ),
    )
    return (
        Chain(
            "strong_host",
            "type filter hook prerouting priority -310; policy accept;",
            # a packet for an address of another interface is a probe (CVE-2019-14899)
            (
                'iifname != "lo" fib daddr . iif type '
                "!= { local, broadcast, multicast, anycast } drop",
            ),
        ),
        Chain(
            "input",
            "type filter hook input priority 0; policy drop;",
            (
                'iifname "lo" accept',
                f"ip daddr {{ 127.0.0.0/8, {policy.virtual4} }} drop"
                if not policy.virtual4.is_loopback
                else "ip daddr 127.0.0.0/8 drop",
                f"ip6 daddr {{ ::1, {policy.virtual6} }} drop",
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


def _datagrams(policy: Policy) -> tuple[str, ...]:
    """A datagram opens both ways, so even with "all" only those nearby may send one first."""
    new = f"ct state new meta l4proto udp ct mark set {MARK_INBOUND:#x} accept"
    if policy.inbound != "all":
        return (new,)
    nearby = ("ip saddr @link4", "ip6 saddr @link6", "ip saddr @bypass4", "ip6 saddr @bypass6")
    return tuple(f"{whom} {new}" for whom in nearby)


def _egress_chains(policy: Policy) -> tuple[Chain, ...]:
    if not policy.devices:
        return ()
    devices = ", ".join(f'"{name}"' for name in policy.devices)
    return (
        Chain(
            "of_kernel_or_root",
            "",
            (
                # address resolution is the kernel's or a DHCP client's business
                "meta skuid @dhcp_accounts accept",
                "meta skuid >= 0 return",
                "accept",
            ),
        ),
        Chain(
            "egress",
            f"type filter hook egress devices = {{ {devices} }} priority 0; policy drop;",
            (
                f"meta mark {policy.stamp:#x} accept",
                # ARP as long as a padded Ethernet frame, which has no room for a letter
                "meta protocol arp meta length <= 64 jump of_kernel_or_root",
                # link aggregation: the kernel's own, as long as its only message (802.1AX)
                "meta protocol 0x8809 ether daddr 01:80:c2:00:00:02 meta length <= 128 "
                "jump of_kernel_or_root",
                # 802.1X and 802.11 pre-authentication: what has no owner here is a guest's
                "meta protocol { 0x888e, 0x88c7 } meta skuid @dhcp_accounts accept",
                "ip daddr 255.255.255.255 udp sport 68 udp dport 67 "
                "meta skuid @dhcp_accounts accept",
                "counter name escaped drop",
            ),
        ),
    )
