"""The filter of a machine that is not routed itself: only what belongs to a scope is judged."""

from __future__ import annotations

from onionward.policy import RELAY4, RELAY6
from onionward.render.iptables import clients, paused, runs
from onionward.render.iptables.family import (
    FLAGS,
    LOCAL,
    NAMES,
    NOT_OURS,
    OWNED,
    SYN_ONLY,
    Family,
    is_reply,
    mark_flow,
    marked,
    owned,
    ports,
    set_name,
    state,
)
from onionward.render.iptables.onion_names import match as is_onion_query
from onionward.render.iptables.redirect import users_of
from onionward.render.iptables.text import Hook, Rule, nested, rule
from onionward.render.nftables.marks import MARK_REDIRECTED, MARK_USER
from onionward.rules import Rule as Name

USER_FLOWS, USER_PORTS = "user-flows", "user-ports"
"""Sets of connections of routed accounts: the far address and port and our address, and our end.

ipset has no type that holds both ends; with one alone others' connections to the same server that
are older than our rules would be taken for an account's.
"""
_MPTCP = 30  # the number of the TCP option (RFC 8684)


def hooks(f: Family, *, routed: bool) -> tuple[Hook, ...]:
    """All of them, for one state."""
    policy = f.policy
    forward = clients.forwarded(f)
    return (
        Hook("raw", "PREROUTING", "strong-host", _arriving(f)),
        *((Hook("mangle", "OUTPUT", "user-marks", _user_marks(f)),) if policy.users else ()),
        Hook("mangle", "POSTROUTING", "wire", _wire(f)),
        Hook("filter", "OUTPUT", "output", _output(f, routed=routed)),
        *((Hook("filter", "FORWARD", "forward", forward),) if forward else ()),
        Hook("filter", "INPUT", "input", _input(f, routed=routed)),
    )


def _user_marks(f: Family) -> tuple[Rule, ...]:
    # what another subflow sends has no owner (RFC 8684)
    strip = f"TCPOPTSTRIP --strip-options {_MPTCP}"
    mark, others = mark_flow(MARK_USER), marked(MARK_REDIRECTED, but=True)
    judged = (
        *((rule("-p tcp", "", *_remember(f), strip),) if f.sets else (rule("-p tcp", "", strip),)),
        # not what others have begun: datagrams of several accounts may have the same ports
        rule(f"{others} -m conntrack ! --ctstatus CONFIRMED", "", mark),
        rule(f"{others} {is_reply()}", "", mark),
    )
    return (nested(users_of(f.policy), "user-mark", judged),)


def _remember(f: Family) -> tuple[str, ...]:
    return tuple(
        f"SET --add-set {set_name(name, f.n)} {flags} --exist --timeout 7200"
        for name, flags in ((USER_FLOWS, "dst,dst,src"), (USER_PORTS, "src,src"))
    )


def _user(f: Family) -> tuple[Rule, ...]:
    return (
        # redirected, or on loopback already; the true device is judged last
        rule(f"{marked(MARK_REDIRECTED)} {state('DNAT')}", "accept"),
        # a resolver of this machine, whose queries are another account's
        *(rule(ports(p, NAMES), "refused", comment=Name.USER_NAMES) for p in ("tcp", "udp")),
        *_closed_ports(f),
        rule(LOCAL, "accept", comment=Name.OWN_ADDRESS),
        rule(NOT_OURS, "spoofed"),
        rule(state("INVALID"), "invalid"),
        rule("", "refused", comment=Name.USER_REFUSED),
    )


def _closed_ports(f: Family) -> tuple[Rule, ...]:
    """Services of this machine that connect for others, but to those who may use them."""
    rules = []
    users = f.policy.users
    for port in sorted({port for user in users for port in user.closed_ports}):
        match = f"-p tcp -m tcp --dport {port}"
        may = owned(uids for user in users if port not in user.closed_ports for uids in user.uids)
        rules.append(rule((f"{match} {who} {LOCAL}" for who in may), "accept"))
        rules.append(rule(match, "refused", comment=Name.USER_SERVICES))
    return tuple(rules)


def _output(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    policy = f.policy
    # what is left of a connection whose owner nobody knows any more: an account's, perhaps;
    # while blocked others' are sent again, and the account's are gone by then
    left = (
        f"-p tcp {state('INVALID', 'NEW')} -m tcp ! --tcp-flags {FLAGS} SYN",
        # what belongs to no connection has no direction
        *(() if routed else ("-p tcp -m conntrack --ctdir ORIGINAL",)),
    )
    users = (
        nested((*users_of(policy), marked(MARK_USER)), "user", _user(f)),
        rule(OWNED, "accept", comment=Name.UNROUTED),
        rule(LOCAL, "accept"),
        # another path of a Multipath TCP connection from before, whoever's: the kernel opens it
        # under no name (RFC 8684, MP_JOIN)
        rule(f"{SYN_ONLY} -m tcp --tcp-option {_MPTCP}", "invalid"),
        rule(left, "invalid"),
    )
    onion = (
        # who connects to an address of the machine does it from there: tor's answers, resets
        rule(f"-d {f.virtual} {is_reply()}", "accept"),
        rule(f"-d {f.virtual}", "refused", comment=Name.ONION_REFUSED),
        # queries that were not redirected: while blocked, or with a socket that asked before
        rule(
            f"-p udp -m udp --dport 53 {is_onion_query(f.n)}",
            "refused",
            comment=Name.ONION_NAMES_REFUSED,
        ),
    )
    return (
        *paused.rules(f),
        *(onion if policy.route == "onion" else ()),
        *(users if policy.users else ()),
        rule("", "accept", comment=Name.UNROUTED),
    )


def _wire(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    elsewhere = (
        *(rule(f"-o {lan.interface}", "return") for lan in policy.lans),
        *clients.never_elsewhere(f),
        *clients.asked_elsewhere(f),
    )
    return (
        rule("-o lo", "accept"),
        rule(marked(MARK_REDIRECTED), "escaped"),
        rule(f"-d {f.virtual}", "escaped", comment=Name.ONION_REFUSED),
        *((nested("", "elsewhere", elsewhere),) if policy.lans else ()),
        *((rule((*users_of(policy), marked(MARK_USER)), "escaped"),) if policy.users else ()),
    )


def _arriving(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    ports_of_tor = (
        f"-p tcp -m tcp --dport {policy.trans_port}",
        f"-p udp -m udp --dport {policy.dns_port}",
    )
    ours = [f"-d {f.virtual}"]
    if policy.lans:
        ours.append(f"-d {RELAY4 if f.n == 4 else RELAY6}")
    return (
        rule("-i lo", "return"),
        *runs.arriving(f),
        *runs.from_elsewhere(f),
        *clients.arriving(f),
        # nobody outside speaks to tor, whatever the machine takes for local (route_localnet)
        rule(ours, "drop"),
        *((rule((f"-d 127.0.0.0/8 {p}" for p in ports_of_tor), "drop"),) if f.n == 4 else ()),
    )


def _input(f: Family, *, routed: bool) -> tuple[Rule, ...]:
    # a guessed packet of a redirected connection: answered as if there were none, or a neighbour
    # could find out who talks to whom
    probe = (
        f"-p tcp -m set --match-set {set_name(USER_FLOWS, f.n)} src,src,dst "
        f"-m set --match-set {set_name(USER_PORTS, f.n)} dst,dst"
    )
    probes = (
        # others may have had the same port since
        rule(is_reply(), "accept"),
        rule(probe, "REJECT --reject-with tcp-reset"),
    )
    return (
        rule("-i lo", "accept"),
        *runs.entering(),
        *clients.entering(f, routed=routed),
        *(probes if f.policy.users and f.sets else ()),
    )
