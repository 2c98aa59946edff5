"""A policy in words."""

from __future__ import annotations

from collections.abc import Iterable

from onionward.networks import Network
from onionward.policy import Lan, Policy

_REFUSED = (
    "  everything else of theirs is refused at once: UDP, ICMP and all other protocols, "
    "IPv4 and IPv6"
)


def scopes(policy: Policy) -> tuple[str, ...]:
    """Who is routed, a line each: what `status` says too."""
    lines = [
        *(["host: everything this machine sends goes through Tor"] * (policy.route == "tor")),
        *(["onion: names under .onion, for everybody on this machine"] * (policy.route == "onion")),
        *(f"lan: clients behind {lan.interface}" for lan in policy.lans),
        *(f"user: {user.name} (account {_ranges(user.uids)})" for user in policy.users),
        *(
            f"IN CLEAR: user {user.name} (account {_ranges(user.uids)}), though the host is routed"
            for user in policy.direct_users
        ),
    ]
    return tuple(lines)


def _full_dns(policy: Policy) -> tuple[str, ...]:
    if not policy.full_dns:
        return ()
    but = ", but of routed accounts" if policy.users else ""
    return (f"  this host's names to unbound at loopback port {policy.names_port}{but}",)


def describe(policy: Policy) -> str:
    """The policy in words, a line each."""
    lines = [
        *scopes(policy),
        f"  TCP to loopback port {policy.trans_port}, names to loopback port {policy.dns_port}",
        *_full_dns(policy),
        f"  .onion names are mapped into {policy.virtual4} and {policy.virtual6}",
        *([_REFUSED] if policy.route == "tor" or policy.lans or policy.users else ()),
        f"circuits: {_circuits(policy)}",
        f"tor: account {policy.tor_uid}"
        + (f", control group {policy.tor_cgroup.name}" if policy.tor_cgroup else "")
        + ("; TCP only; nobody else uses a wire" if policy.route == "tor" else "")
        + _reach(policy),
    ]
    lines += (
        f"paused: user {user.name} (account {_ranges(user.uids)}) gets nothing through"
        for user in policy.paused
    )
    if policy.route == "tor":
        lines += _host(policy)
    else:
        lines.append("everything else on this machine: untouched, in clear")
    for lan in policy.lans:
        lines.append(
            f"clients behind {lan.interface} ({_listed(lan.networks, 'no network yet')}) reach on "
            f"this machine: {', '.join(_services(lan)) or 'nothing'}; nothing is forwarded"
        )
    if policy.kept:
        flows = (f"{f.peer} port {f.peer_port}" for f in policy.kept)
        lines.append(f"kept: connections that were open before, from {', '.join(flows)}")
    return "\n".join(lines)


def _reach(policy: Policy) -> str:
    if policy.reach is None:
        return ""
    if len(policy.reach) > 8:
        return f"; it reaches nothing but {len(policy.reach)} places of relays"
    return f"; it reaches nothing but {', '.join(f'{a} port {p}' for a, p in policy.reach)}"


def _circuits(policy: Policy) -> str:
    whose = [
        *(["this machine"] * (policy.route != "direct")),
        *(["each named account"] * bool(policy.users)),
        *(["each client"] * bool(policy.lans)),
    ]
    words = f"of their own for {' and '.join(whose)}"
    return f"{words} and each destination" if policy.isolate_destinations else words


def _host(policy: Policy) -> list[str]:
    return [
        f"bypass: {_listed(policy.bypass, 'none')}"
        + (" (never for name resolution)" if policy.bypass else ""),
        f"inbound: {policy.inbound} ({_inbound(policy)})",
        f"interfaces watched below IP: {', '.join(policy.devices) or 'none'}",
        "always: ARP, neighbour discovery, DHCP of "
        + ", ".join(f"account {uid}" for uid in policy.dhcp_uids),
    ]


def _inbound(policy: Policy) -> str:
    match policy.inbound:
        case "none":
            return "this machine answers nobody"
        case "all":
            return "this machine answers everybody who asks, in clear"
        case "bypass":
            return f"answers to {_listed(policy.bypass, 'nobody')}"
        case "link":
            return f"answers to {_listed((*policy.link, *policy.bypass), 'nobody')}"


def _services(lan: Lan) -> list[str]:
    return [
        *(["DHCP"] * lan.dhcp),
        *(["ping"] * lan.ping),
        *(f"TCP {port}" for port in lan.tcp_ports),
        *(f"UDP {port}" for port in lan.udp_ports),
    ]


def _ranges(uids: Iterable[tuple[int, int]]) -> str:
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in uids)


def _listed(networks: Iterable[Network], nothing: str) -> str:
    return ", ".join(map(str, networks)) or nothing
