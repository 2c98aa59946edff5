"""Address translation: what goes to tor, and under which address tor sees it."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.iptables import clients
from onionward.render.iptables.connections import kept_outgoing
from onionward.render.iptables.family import Family, mark_flow, owned, set_name
from onionward.render.iptables.onion_names import match as is_onion_query
from onionward.render.iptables.text import Hook, Rule, nested, rule
from onionward.render.nftables.marks import MARK_REDIRECTED
from onionward.rules import Rule as Name

ASKED_TOR, ASKED_OTHERS = "asked-tor", "asked-others"
"""Sets: which resolver was asked through tor, or otherwise, and from which of our ports."""
# longer than connection tracking remembers a datagram that was answered (120 s)
REMEMBER = 180
AWAIT = 60
_MARK = mark_flow(MARK_REDIRECTED)


def hooks(f: Family, *, routed: bool) -> tuple[Hook, ...]:
    """All of them; while blocked nothing is redirected to tor."""
    policy = f.policy
    local = routed and (policy.route != "direct" or bool(policy.users)) and f.redirects
    return (
        *(_asking(f) if local else ()),
        *((Hook("nat", "OUTPUT", "to-tor", _local(f)),) if local else ()),
        *(_circuits(f) if routed and f.redirects else ()),
        *clients.turned(f, routed=routed),
    )


def users_of(policy: Policy) -> tuple[str, ...]:
    """Matches of what routed accounts send."""
    return owned(uids for user in policy.users for uids in user.uids)


def are_told_apart(policy: Policy) -> bool:
    """Whether some queries go to tor and others do not."""
    return policy.route == "onion" or (policy.route == "direct" and bool(policy.users))


def _asking(f: Family) -> tuple[Hook, ...]:
    """Queries of those who are not routed, from a port whose last query went to tor.

    Connection tracking would lead such a query the way of the last one, whoever's it was. These,
    and the answers to them, are not tracked. A zone of its own for tor's would not do: what a
    neighbour sends in a resolver's name would reach a routed account's socket, and the kernel's
    complaint about a late answer would leave.
    """
    policy = f.policy
    if not (f.sets and are_told_apart(policy)):
        return ()
    tor, others = set_name(ASKED_TOR, f.n), set_name(ASKED_OTHERS, f.n)
    ask, notrack = "-p udp -m udp --dport 53", "CT --notrack"
    to_tor = f"SET --add-set {tor} dst,src,src --exist --timeout {REMEMBER}"
    to_others = f"SET --add-set {others} dst,src,src --exist --timeout {AWAIT}"
    whose = [f"{ask} {who}" for who in users_of(policy)]
    if policy.route == "onion":
        whose.append(f"{ask} {is_onion_query(f.n)}")
    answers = rule(
        f"-p udp -m udp --sport 53 -m set --match-set {others} src,dst,dst", "accept", notrack
    )
    return (
        Hook(
            "raw",
            "OUTPUT",
            "asking",
            (
                # answers of a resolver on this machine
                answers,
                rule(whose, "accept", to_tor),
                rule(f"{ask} -m set --match-set {tor} dst,src,src", "", to_others, notrack),
            ),
        ),
        Hook("raw", "PREROUTING", "answered", (answers,)),
    )


def _local(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    first = rule(owned([(policy.tor_uid, policy.tor_uid)]), "return")
    if policy.route == "tor":
        return (first, *kept_outgoing(f, "return"), *_everything(f))
    users = (nested(users_of(policy), "all-of-users", _everything(f)),) if policy.users else ()
    onion = (*_onion_addresses(f), *_onion_names(f)) if policy.route == "onion" else ()
    return (first, *users, *onion)


def _everything(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    direct = owned(uids for user in policy.direct_users for uids in user.uids)
    elsewhere = (f"{who} -m addrtype ! --dst-type LOCAL" for who in direct)
    return (
        *_onion_addresses(f),
        # a query to loopback is answered by tor all the same: nobody else does
        rule(elsewhere, "accept", comment=Name.DIRECT_USER),
        # a socket for such an address is tied to its device and cannot be turned to loopback:
        # refused at once further on, instead of being dropped as the last word
        *((rule("-d fe80::/10", "accept"),) if f.n == 6 else ()),
        # before every exemption: resolvers on loopback, on the link and in bypassed networks
        *_all_names(f),
        rule(f.not_remote(), "accept"),
        *((rule(f.bypass("dst"), "accept", comment=Name.BYPASS),) if policy.route == "tor" else ()),
        rule((f"-d {network}" for network in f.of(policy.unroutable)), "accept"),
        # also packets in the middle of a connection, whose sender then gets a reset
        rule("-p tcp", f"REDIRECT --to-ports {policy.trans_port}", _MARK, comment=Name.TCP),
    )


def _all_names(f: Family) -> tuple[Rule, ...]:
    policy = f.policy
    asked, by_tcp = "-p udp -m udp --dport 53", "-p tcp -m tcp --dport 53"
    if not policy.full_dns:
        return (_names(f, asked, Name.NAMES),)
    # one memory of answers would tell accounts with circuits of their own from each other
    users = tuple(users_of(policy))
    here = f"{by_tcp} -m addrtype --dst-type LOCAL"
    to_tor = f"REDIRECT --to-ports {policy.dns_port}"
    to_resolver = f"REDIRECT --to-ports {policy.names_port}"
    of_users = (
        rule((f"{who} {asked}" for who in users), to_tor, _MARK, comment=Name.NAMES),
        rule((f"{who} {here}" for who in users), "accept"),
    )
    return (
        *(of_users if users else ()),
        rule(asked, to_resolver, _MARK, comment=Name.FULL_DNS),
        # answers that are too long for a datagram are asked for again
        rule(here, to_resolver, _MARK, comment=Name.FULL_DNS),
    )


def _onion_addresses(f: Family) -> tuple[Rule, ...]:
    to_tor = f"REDIRECT --to-ports {f.policy.trans_port}"
    return (rule(f"-d {f.virtual} -p tcp", to_tor, _MARK, comment=Name.ONION_ADDRESSES),)


def _names(f: Family, match: str, why: Name) -> Rule:
    return rule(match, f"REDIRECT --to-ports {f.policy.dns_port}", _MARK, comment=why)


def _onion_names(f: Family) -> tuple[Rule, ...]:
    """Queries that programs send to a resolver of their own choice."""
    asked = _names(f, f"-p udp -m udp --dport 53 {is_onion_query(f.n)}", Name.ONION_NAMES)
    return (*((rule("-d fe80::/10", "accept"),) if f.n == 6 else ()), asked)


def _circuits(f: Family) -> tuple[Hook, ...]:
    """Tor keeps clients of different addresses apart (tor(1), IsolateClientAddr)."""
    policy = f.policy
    if not (policy.users or policy.lans):
        return ()
    # by tor's ports, not by the mark: who speaks to them without being redirected is bound to
    # an address of somebody else's just as easily
    to_tor = (
        f"-o lo -p tcp -m tcp --dport {policy.trans_port}",
        f"-o lo -p udp -m udp --dport {policy.dns_port}",
    )
    # clear of the address that clients of a LAN are sent to
    start = f.circuits[1] if f.n == 4 else f.circuits[1 << 16]
    accounts = (
        rule(owned(user.uids), f"SNAT --to-source {start + number}")
        for number, user in enumerate(policy.users)
    )
    # who is bound to an address of another's gets none of its circuits
    nobody = rule("", f"SNAT --to-source {f.loopback}")
    return (
        Hook(
            "nat", "POSTROUTING", "circuits", (nested(to_tor, "to-tor-ports", (*accounts, nobody)),)
        ),
    )
