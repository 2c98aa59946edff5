"""Policy → the block of the boot: nothing of its scopes leaves, tor included.

It is loaded before there is any interface, so it names none but those of clients, asks for no
control group and allows nothing that needs one. Two texts make it up:

    first    arguments of one `nft` call, kept in the unit or init script itself
    rest     /etc/onionward/boot.nft, which adds DHCP and neighbour discovery and takes the first
             chain away

Whatever becomes of the file, the first text stays in force: every beginning of the rest is either
refused as a whole or leaves more blocked than the whole does, because what opens stands last.
"""

from __future__ import annotations

from collections.abc import Iterable

from onionward.policy import Lan, Policy
from onionward.render.nftables import accounts
from onionward.render.nftables.onion_names import in_query
from onionward.render.nftables.text import Chain, print_chain
from onionward.tables import BOOT_TABLE

_TABLE = " ".join(BOOT_TABLE)
_FIRST, _FIRST_CLIENTS = "first_wire", "first_clients"
_COMMENT = 'comment "onionward: blocked since boot"'
_WIRE_HOOK = "type filter hook postrouting priority 351; policy {policy};"
_ARRIVING_HOOK = "type filter hook prerouting priority -311; policy accept;"
_DISCOVERY = "icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert{more} }} ip6 hoplimit 255"


def first(policy: Policy) -> str:
    """Commands for one call of nft, separated by semicolons: the block without any exception."""
    rules = [f"add rule {_TABLE} {_FIRST} {rule}" for rule in _nothing_leaves(policy)]
    chains = [_add_chain(_FIRST, _wire_hook(policy))]
    if policy.lans:
        chains.append(_add_chain(_FIRST_CLIENTS, _ARRIVING_HOOK))
        rules.append(f"add rule {_TABLE} {_FIRST_CLIENTS} iifname {_lans(policy)} drop")
    named = f"add table {_TABLE} {{ {_COMMENT}; }}"
    fresh = (f"add table {_TABLE}", f"delete table {_TABLE}", named)
    return "; ".join((*fresh, *chains, *rules))


def rest(policy: Policy) -> str:
    """The file that is loaded when the first text is in force."""
    chains = [_wire(policy), *([_clients(policy)] if policy.lans else [])]
    obsolete = (_FIRST, _FIRST_CLIENTS) if policy.lans else (_FIRST,)
    return "\n".join(
        [
            f"table {_TABLE} {{",
            *(print_chain(chain) for chain in chains),
            "}",
            # last: a file that is cut short takes nothing away
            *(f"delete chain {_TABLE} {name}" for name in obsolete),
            "",
        ]
    )


def whole(policy: Policy) -> str:
    """Both, for one transaction."""
    return f"{first(policy)}\n{rest(policy)}"


def _add_chain(name: str, hook: str) -> str:
    return f"add chain {_TABLE} {name} {{ {hook} }}"


def _wire_hook(policy: Policy) -> str:
    return _WIRE_HOOK.format(policy="drop" if policy.route == "tor" else "accept")


def _lans(policy: Policy) -> str:
    return _names(policy.lans)


def _names(lans: Iterable[Lan]) -> str:
    listed = ", ".join(f'"{lan.interface}"' for lan in lans)
    return f"{{ {listed} }}"


def _nothing_leaves(policy: Policy, exceptions: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What leaves, is forwarded, or stays on loopback: all of it passes postrouting."""
    if policy.route == "tor":
        return ('oifname "lo" accept', *exceptions, "drop")
    uids = tuple(accounts.of_users(policy))
    listed = ", ".join(map(str, accounts.single(uids)))
    them = (
        *((f"{{ {listed} }}",) if listed else ()),
        *(f"{a}-{b}" for a, b in accounts.ranges(uids)),
    )
    return (
        # on loopback, too: services there resolve names for whoever asks
        *(f"meta skuid {some} drop" for some in them),
        *((f"iifname {_lans(policy)} drop",) if policy.lans else ()),
        *(_onion(policy) if policy.route == "onion" else ()),
    )


def _onion(policy: Policy) -> tuple[str, ...]:
    return (
        f"ip daddr {policy.virtual4} drop",
        f"ip6 daddr {policy.virtual6} drop",
        *(f"udp dport 53 {match} drop" for match in in_query()),
    )


def _wire(policy: Policy) -> Chain:
    accounts = f"meta skuid {{ {', '.join(map(str, policy.dhcp_uids))} }}"
    exceptions = (
        # the kernel's own have no owner; a raw socket's have
        f"meta skuid < 0xffffffff {_DISCOVERY.format(more='')} drop",
        f"{_DISCOVERY.format(more='')} accept",
        *(
            (
                f"udp sport 68 udp dport 67 {accounts} ip daddr 255.255.255.255 accept",
                f"udp sport 546 udp dport 547 {accounts} ip6 daddr {{ ff02::1:2, fe80::/10 }} "
                "accept",
            )
            if policy.dhcp_uids
            else ()
        ),
    )
    return Chain("wire", _wire_hook(policy), _nothing_leaves(policy, exceptions))


def _clients(policy: Policy) -> Chain:
    served = _names(lan for lan in policy.lans if lan.dhcp)
    dhcp = (
        f"iifname {served} udp sport 68 udp dport 67 accept",
        f"iifname {served} udp sport 546 udp dport 547 ip6 saddr fe80::/10 accept",
    )
    return Chain(
        "arriving",
        _ARRIVING_HOOK,
        (
            f"iifname != {_lans(policy)} accept",
            f"{_DISCOVERY.format(more=', nd-router-solicit')} accept",
            *(dhcp if any(lan.dhcp for lan in policy.lans) else ()),
            "drop",
        ),
    )
