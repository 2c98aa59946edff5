"""Address translation: what goes to tor, and under which address tor sees it."""

from __future__ import annotations

from onionward.policy import RELAY4, RELAY6, Policy
from onionward.render.nftables import accounts
from onionward.render.nftables.marks import MARK_CLIENT, MARK_REDIRECTED
from onionward.render.nftables.onion_names import in_query
from onionward.render.nftables.routed_host import kept_outgoing
from onionward.render.nftables.text import Chain, for_families
from onionward.rules import Rule, commented

_NOT_UNICAST = "fib daddr type { local, broadcast, multicast, anycast } return"


def chains(policy: Policy) -> tuple[Chain, ...]:
    """The chains of the state "routed"; while blocked nothing is redirected."""
    local = policy.route != "direct" or bool(policy.users)
    return (
        *(_local_chains(policy) if local else ()),
        *_circuit_chains(policy),
        *((_client_chain(policy),) if policy.lans else ()),
    )


def _local_chains(policy: Policy) -> tuple[Chain, ...]:
    # before every other translation, which would otherwise choose the destination
    hook = "type nat hook output priority -110; policy accept;"
    first = (
        f"meta skuid {policy.tor_uid} return",
        # without IPv6 on loopback there is nowhere to go: refused at once further on
        *(() if policy.ipv6 else ("meta nfproto ipv6 return",)),
    )
    if policy.route == "tor":
        to_tor = Chain("to_tor", hook, (*first, *kept_outgoing("return"), *_everything(policy)))
        return (to_tor,)
    users = accounts.user_rules(policy, "jump all_of_users")
    onion = (
        (*_onion_addresses(policy), "udp dport 53 jump onion_names")
        if policy.route == "onion"
        else ()
    )
    return (
        *((Chain("all_of_users", "", _everything(policy)),) if policy.users else ()),
        *(_onion_names(policy) if policy.route == "onion" else ()),
        Chain("to_tor", hook, (*first, *users, *onion)),
    )


def _everything(policy: Policy) -> tuple[str, ...]:
    redirect = f"ct mark set {MARK_REDIRECTED:#x} redirect to"
    direct = "meta skuid @direct_users fib daddr type != local return"
    return (
        *_onion_addresses(policy),
        # a query to loopback is answered by tor all the same: nobody else does
        *((commented(direct, Rule.DIRECT_USER),) if policy.direct_users else ()),
        # a socket for such an address is tied to its device and cannot be turned to loopback:
        # refused at once further on, instead of being dropped as the last word
        "ip6 daddr fe80::/10 return",
        # before every exemption: resolvers on loopback, on the link and in bypassed networks
        *_names(policy, redirect),
        _NOT_UNICAST,
        *(
            (
                commented("ip daddr @bypass4 return", Rule.BYPASS),
                commented("ip6 daddr @bypass6 return", Rule.BYPASS),
            )
            if policy.route == "tor"
            else ()
        ),
        "ip daddr @unroutable4 return",
        "ip6 daddr @unroutable6 return",
        # also packets in the middle of a connection, whose sender then gets a reset
        commented(f"meta l4proto tcp {redirect} :{policy.trans_port}", Rule.TCP),
    )


def _names(policy: Policy, redirect: str) -> tuple[str, ...]:
    to_tor = commented(f"udp dport 53 {redirect} :{policy.dns_port}", Rule.NAMES)
    if not policy.full_dns:
        return (to_tor,)
    # one memory of answers would tell accounts with circuits of their own from each other
    of_users = accounts.user_rules(policy, to_tor) if policy.users else ()
    by_tcp = accounts.user_rules(policy, "tcp dport 53 fib daddr type local return")
    to_resolver = f"{redirect} :{policy.names_port}"
    return (
        *of_users,
        *(by_tcp if policy.users else ()),
        commented(f"udp dport 53 {to_resolver}", Rule.FULL_DNS),
        # answers that are too long for a datagram are asked for again
        commented(f"tcp dport 53 fib daddr type local {to_resolver}", Rule.FULL_DNS),
    )


def _onion_addresses(policy: Policy) -> tuple[str, ...]:
    to_tor = f"meta l4proto tcp ct mark set {MARK_REDIRECTED:#x} redirect to :{policy.trans_port}"
    return (
        commented(f"ip daddr {policy.virtual4} {to_tor}", Rule.ONION_ADDRESSES),
        commented(f"ip6 daddr {policy.virtual6} {to_tor}", Rule.ONION_ADDRESSES),
    )


def _onion_names(policy: Policy) -> tuple[Chain, Chain]:
    """Queries that programs send to a resolver of their own choice."""
    to_tor = f"udp dport 53 ct mark set {MARK_REDIRECTED:#x} redirect to :{policy.dns_port}"
    matches = (f"{match} goto onion_query" for match in in_query())
    return (
        Chain("onion_query", "", (commented(to_tor, Rule.ONION_NAMES),)),
        Chain("onion_names", "", ("ip6 daddr fe80::/10 return", *matches)),
    )


def _circuit_chains(policy: Policy) -> tuple[Chain, ...]:
    """Tor keeps clients of different addresses apart (tor(1), IsolateClientAddr)."""
    if not (policy.users or policy.lans):
        return ()
    # by tor's ports, not by the mark: who speaks to them without being redirected is bound to
    # an address of somebody else's just as easily
    ports = f"{{ tcp . {policy.trans_port}, udp . {policy.dns_port} }}"
    return (
        Chain(
            "circuits",
            "type nat hook postrouting priority 90; policy accept;",
            (
                'oifname != "lo" return',
                f"meta l4proto . th dport != {ports} return",
                *(accounts.circuit_rules(policy) if policy.users else ()),
                # who is bound to an address of another's gets none of its circuits
                "meta nfproto ipv4 snat ip to 127.0.0.1",
                "meta nfproto ipv6 snat ip6 to ::1",
            ),
        ),
    )


def _client_chain(policy: Policy) -> Chain:
    def to(port: int) -> tuple[str, str]:
        mark = f"ct mark set {MARK_CLIENT:#x}"
        return (
            f"meta nfproto ipv4 {mark} dnat ip to {RELAY4}:{port}",
            f"meta nfproto ipv6 {mark} dnat ip6 to [{RELAY6}]:{port}",
        )

    names, tcp = to(policy.dns_port), to(policy.trans_port)
    return Chain(
        "clients_to_tor",
        "type nat hook prerouting priority -110; policy accept;",
        (
            "iifname != @lans return",
            *(() if policy.ipv6 else ("meta nfproto ipv6 return",)),
            "fib daddr type { broadcast, multicast, anycast } return",
            *(commented(f"udp dport 53 {verdict}", Rule.NAMES) for verdict in names),
            commented(
                f"ip daddr {policy.virtual4} meta l4proto tcp {tcp[0]}", Rule.ONION_ADDRESSES
            ),
            commented(
                f"ip6 daddr {policy.virtual6} meta l4proto tcp {tcp[1]}", Rule.ONION_ADDRESSES
            ),
            "fib daddr type local return",
            *for_families("{ip} daddr @unroutable{n} return"),
            *(commented(f"meta l4proto tcp {verdict}", Rule.TCP) for verdict in tcp),
        ),
    )
