"""The filter of a machine that is not routed itself: only what belongs to a scope is judged."""

from __future__ import annotations

from onionward.policy import RELAY4, RELAY6, Policy
from onionward.render.nftables import accounts, lan, paused, queries, runs
from onionward.render.nftables.marks import MARK_REDIRECTED, MARK_USER
from onionward.render.nftables.onion_names import in_query
from onionward.render.nftables.text import NAMES, SYN_ONLY, Chain, for_families
from onionward.rules import Rule, commented


def chains(policy: Policy, *, routed: bool) -> tuple[Chain, ...]:
    """All of them, for one state."""
    users = policy.users
    return (
        *(queries.chains(policy) if routed else ()),
        *(_user_marks(policy) if users else ()),
        *((_user(policy),) if users else ()),
        *(_onion_queries() if policy.route == "onion" else ()),
        *paused.chains(policy),
        _output(policy, routed=routed),
        _wire(policy),
        *((_forwarded(),) if policy.lans else ()),
        _arriving(policy),
        _input(policy),
    )


def _virtual(policy: Policy) -> tuple[str, str]:
    return (f"ip daddr {policy.virtual4}", f"ip6 daddr {policy.virtual6}")


def _user_marks(policy: Policy) -> tuple[Chain, Chain]:
    tcp = "meta l4proto tcp"
    mark = f"ct mark != {MARK_REDIRECTED:#x} ct mark set {MARK_USER:#x}"
    flow4, flow6 = for_families("{{ {ip} daddr . tcp dport . {ip} saddr . tcp sport }}")
    of_user = Chain(
        "user_marked",
        "",
        (
            f"{tcp} update @user_flows4 {flow4}",
            # a connection within the link is none; what is answered there must not look for a way
            f"{tcp} ip6 daddr != fe80::/10 update @user_flows6 {flow6}",
            # what another subflow sends has no owner (RFC 8684)
            f"{tcp} reset tcp option mptcp",
            # not what others have begun: datagrams of several accounts may have the same ports
            f"ct status & confirmed == 0x0 {mark}",
            f"ct direction reply {mark}",
        ),
    )
    every = Chain(
        "user_marks",
        # the owner is known now: what is left of the flow when it no longer is has the mark
        "type filter hook output priority -150; policy accept;",
        accounts.user_rules(policy, "goto user_marked"),
    )
    return of_user, every


def _user(policy: Policy) -> Chain:
    return Chain(
        "user",
        "",
        (
            # redirected, or on loopback already; the true device is judged last
            f"ct mark {MARK_REDIRECTED:#x} ct status dnat accept",
            # a resolver of this machine, whose queries are another account's
            commented(
                f"meta l4proto tcp th dport {NAMES} counter name refused reject with tcp reset",
                Rule.USER_NAMES,
            ),
            commented(
                f"meta l4proto udp th dport {NAMES} counter name refused "
                "reject with icmpx type admin-prohibited",
                Rule.USER_NAMES,
            ),
            *_closed_ports(policy),
            commented("fib daddr type local accept", Rule.OWN_ADDRESS),
            "fib saddr type != local counter name spoofed drop",
            "ct state invalid counter name invalid drop",
            commented(
                "meta l4proto tcp counter name refused reject with tcp reset", Rule.USER_REFUSED
            ),
            commented(
                "counter name refused reject with icmpx type admin-prohibited", Rule.USER_REFUSED
            ),
        ),
    )


def _closed_ports(policy: Policy) -> tuple[str, ...]:
    """Services of this machine that connect for others, but to those who may use them."""
    by_exceptions: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for port in sorted({port for user in policy.users for port in user.closed_ports}):
        accepting = (user for user in policy.users if port not in user.closed_ports)
        uids = tuple(uids for user in accepting for uids in user.uids)
        by_exceptions.setdefault(uids, []).append(port)
    rules = []
    for uids, ports in by_exceptions.items():
        match = f"tcp dport {{ {', '.join(map(str, ports))} }}"
        if uids:
            them = ", ".join(f"{first}-{last}" for first, last in uids)
            rules.append(f"{match} meta skuid {{ {them} }} fib daddr type local accept")
        rules.append(
            commented(f"{match} counter name refused reject with tcp reset", Rule.USER_SERVICES)
        )
    return tuple(rules)


def _onion_queries() -> tuple[Chain, Chain]:
    """Queries that were not redirected: while blocked, or with a socket that asked before."""
    refused = "counter name refused reject with icmpx type admin-prohibited"
    matches = (f"{match} goto onion_query_left" for match in in_query())
    return (
        Chain("onion_query_left", "", (commented(refused, Rule.ONION_NAMES_REFUSED),)),
        Chain("onion_names_left", "", tuple(matches)),
    )


def _output(policy: Policy, *, routed: bool) -> Chain:
    users = (
        *accounts.user_rules(policy, "goto user"),
        f"ct mark {MARK_USER:#x} goto user",
        commented("meta skuid >= 0 accept", Rule.UNROUTED),
        "fib daddr type local accept",
        # `reject` gives its resets none: the kernel's must not look otherwise
        "tcp flags & rst == rst ip6 flowlabel set 0x0",
        # another path of a Multipath TCP connection from before, whoever's: the kernel opens it
        # under no name (RFC 8684, MP_JOIN)
        f"{SYN_ONLY} tcp option mptcp subtype 1 counter name invalid drop",
        # what is left of a connection whose owner nobody knows any more: an account's, perhaps
        "meta l4proto tcp ct state { invalid, new } tcp flags & (fin | syn | rst | ack) != syn "
        "counter name invalid drop",
        # others' are sent again; the account's are gone by then
        *(() if routed else ("meta l4proto tcp ct direction original counter name invalid drop",)),
    )
    tcp = "meta l4proto tcp counter name refused reject with tcp reset"
    other = "counter name refused reject with icmpx type admin-prohibited"
    onion = (
        # who connects to an address of the machine does it from there: tor's answers, resets
        *(f"{to} ct direction reply accept" for to in _virtual(policy)),
        *(commented(f"{to} {tcp}", Rule.ONION_REFUSED) for to in _virtual(policy)),
        *(commented(f"{to} {other}", Rule.ONION_REFUSED) for to in _virtual(policy)),
        "udp dport 53 jump onion_names_left",
    )
    return Chain(
        "output",
        "type filter hook output priority 0; policy accept;",
        (
            *paused.rules(policy),
            *_tor(policy),
            *(onion if policy.route == "onion" else ()),
            *(users if policy.users else ()),
            commented("accept", Rule.UNROUTED),
        ),
    )


def _tor(policy: Policy) -> tuple[str, ...]:
    """Where its relays alone may be reached: nothing else of tor's account leaves."""
    if policy.reach is None:
        return ()
    owner = f"meta skuid {policy.tor_uid} fib daddr type != local"
    relays = for_families(f"{owner} {{ip}} daddr . tcp dport @relays{{n}} accept")
    elsewhere = commented(f"{owner} counter name refused drop", Rule.TOR_ELSEWHERE)
    return (*(commented(rule, Rule.TOR) for rule in relays), elsewhere)


def _wire(policy: Policy) -> Chain:
    users = (
        *accounts.user_rules(policy, "counter name escaped drop"),
        f"ct mark {MARK_USER:#x} counter name escaped drop",
    )
    elsewhere = (*lan.never_elsewhere(), *lan.asked_elsewhere(policy))
    clients = tuple(f"oifname != @lans {rule}" for rule in elsewhere)
    return Chain(
        "wire",
        "type filter hook postrouting priority 350; policy accept;",
        (
            'oifname "lo" accept',
            f"ct mark {MARK_REDIRECTED:#x} counter name escaped drop",
            *(
                commented(f"{to} counter name escaped drop", Rule.ONION_REFUSED)
                for to in _virtual(policy)
            ),
            *(clients if policy.lans else ()),
            *(users if policy.users else ()),
        ),
    )


def _forwarded() -> Chain:
    return Chain(
        "forwarded",
        "type filter hook forward priority 0; policy accept;",
        (
            commented("iifname @lans counter name forwarded drop", Rule.FORWARDED),
            commented("oifname @lans counter name forwarded drop", Rule.FORWARDED),
        ),
    )


def _arriving(policy: Policy) -> Chain:
    ports = (
        f"tcp dport {policy.trans_port}",
        f"udp dport {policy.dns_port}",
    )
    relays = (f"ip daddr {RELAY4}", f"ip6 daddr {RELAY6}") if policy.lans else ()
    return Chain(
        "strong_host",
        "type filter hook prerouting priority -310; policy accept;",
        (
            'iifname "lo" return',
            *runs.arriving(),
            *runs.from_elsewhere(),
            *lan.arriving(policy),
            # nobody outside speaks to tor, whatever the machine takes for local (route_localnet)
            *(
                commented(f"{ours} drop", Rule.ONION_REFUSED)
                for ours in (*_virtual(policy), *relays)
            ),
            *(f"ip daddr 127.0.0.0/8 {port} drop" for port in ports),
            commented("accept", Rule.UNROUTED),
        ),
    )


def _input(policy: Policy) -> Chain:
    # a guessed packet of a redirected connection: answered as if there were none, or a neighbour
    # could find out who talks to whom
    probes = (
        # others may have had the same port since
        "ct direction reply accept",
        *for_families(
            "{ip} saddr . tcp sport . {ip} daddr . tcp dport @user_flows{n} reject with tcp reset"
        ),
    )
    return Chain(
        "input",
        "type filter hook input priority 0; policy accept;",
        (
            'iifname "lo" accept',
            *runs.entering(),
            *lan.entering(policy),
            *(probes if policy.users else ()),
        ),
    )
