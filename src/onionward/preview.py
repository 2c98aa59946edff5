"""What `onionward show` and `onionward explain` print: nothing is touched.

The texts are those that `up` would use, but for the packet stamp, which is an example.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onionward import state
from onionward.backend.platform import is_bsd
from onionward.config.values import Config
from onionward.describe import describe
from onionward.errors import JournalError, RefusedError
from onionward.explain import Packet, State
from onionward.explain import explain as judge
from onionward.facts import Facts, gather
from onionward.networks import Address
from onionward.paths import PATHS, Paths
from onionward.pauses import paused_users
from onionward.policy import ControlGroup, Policy, derive
from onionward.render import nftables
from onionward.render.torrc import relays, torrc
from onionward.system import System

# Shown for an account that `up` would create.
_ACCOUNT_TO_COME = 65533
# Stands for the one that `up` would make; its name decides nothing.
_GROUP_TO_COME = ControlGroup("onionward", 1)


# Known even where /etc/protocols is missing (netbase).
_PROTOCOLS = frozenset({"tcp", "udp", "icmp", "ipv6-icmp", "gre", "esp", "sctp"})
_ICMP6 = frozenset({"icmpv6", "icmp6"})
# (uid_t) -1 is nobody's (chown(2))
_HIGHEST_UID = 2**32 - 2


_EXAMPLES = """\
# As `onionward up` loads it, but for what belongs to one activation: the packet mark is an
# example, and tor's rule also asks for the control group that tor is started in.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A packet as a person describes it.

    Attributes:
        protocol: "tcp", "udp", "icmp" or another name of /etc/protocols.
        address: where to.
        port: destination port, for TCP and UDP.
        user: name or number of the account, or None for the caller's.
        source_port: where it matters, as for DHCP.
        is_tor: whether it is tor itself that sends, whatever the account.
        interface: where it arrives when a client of a LAN sends it.
        source: the client's address.
        name: what a query asks for.

    """

    protocol: str
    address: str
    port: int | None = None
    user: str | None = None
    source_port: int | None = None
    is_tor: bool = False
    interface: str | None = None
    source: str | None = None
    name: str | None = None


def show(system: System, config: Config, paths: Paths, what: str, state: str) -> str:
    """One text: "policy", "nftables", "iptables", "firehol", "torrc" or "resolver"."""
    facts = gather(system, config, paths)
    policy = _policy(config, facts)
    match what:
        case "policy":
            return describe(policy) + "\n"
        case "nftables":
            ruleset = nftables.route(policy) if state == "routed" else nftables.block(policy)
            return _EXAMPLES + ruleset.text
        case "iptables":
            from onionward.render import iptables

            render = iptables.route if state == "routed" else iptables.block
            return _EXAMPLES + render(policy, sets=True, frames=True).text()
        case "firehol":
            from onionward.render import firehol

            return firehol.render(policy)
        case "torrc":
            lines = relays(config, facts.installed)
            return torrc(policy, paths, account=config.tor.user, network=lines)
        case _:
            return _resolver(system, config, paths, policy.dns_port)


def show_pf(
    system: System, config: Config, what: str, state: str, wanted: Mapping[str, Any]
) -> str:
    """Rules of pf, or what surrounds them, for a machine with these interfaces."""
    from onionward.bsd.commands import Wanted, show_elsewhere

    facts = gather(system, config)
    uid = facts.tor_account.uid if facts.tor_account else _ACCOUNT_TO_COME
    return show_elsewhere(config, facts, uid, what, state, Wanted(**wanted))


def _resolver(system: System, config: Config, paths: Paths, dns_port: int) -> str:
    match config.host_route:
        case "tor":
            from onionward.dns import host

            return host.text(system, _asked(paths) or config.resolver, paths)
        case "direct":
            return "# untouched: nobody's names but those of the scopes go to Tor\n"
        case "onion":
            return _onion_resolver(system, paths, dns_port)


def _asked(paths: Paths) -> str:
    """What `up --resolver` named for the activation that lasts; "" for nothing."""
    try:
        journal = state.load(paths)
    except (JournalError, PermissionError):
        return ""
    return "" if journal is None else str(journal.undo.get("resolver", {}).get("asked", ""))


def _onion_resolver(system: System, paths: Paths, dns_port: int) -> str:
    """The files that would lead names under .onion to tor, or that do so now."""
    from onionward.dns import onion

    saved: onion.Saved | None = state.saved_step(paths, "onion")
    if saved is None:
        saved = onion.survey(system, onion.environment(system, paths), dns_port, paths)
    lines = [f"# {saved['reason']}\n"]
    if saved["link"]:
        lines.append("# systemd-resolved: a link with the routing domain ~onion\n")
    if drop_in := saved["drop_in"]:
        lines.append(f"# {drop_in['path']}\n{drop_in['ours']}")
    if forwarder := saved["forwarder"]:
        lines.append(f"# {paths.resolv_conf}\n{forwarder['resolv_conf']['ours']}")
        lines.append(f"# the forwarder's dnsmasq.conf\n{forwarder['config']}")
    return "\n".join(lines)


def explain(system: System, config: Config, question: Question, state: State = "routed") -> str:
    """What becomes of a packet, in words.

    Raises:
        RefusedError: the packet cannot exist.

    """
    packet = _packet(question, config.tor.user)
    if is_bsd():
        from onionward.bsd import commands

        policy, facts = commands.policy_of(system, config)
        packet = _sent(question, packet, policy, facts)
        return commands.explain(policy, packet, facts.addresses, state).words()
    facts = gather(system, config)
    group = None if facts.cgroup_mount is None else _GROUP_TO_COME
    policy = replace(_policy(config, facts), tor_cgroup=group)
    packet = _sent(question, packet, policy, facts)
    attached = [network for link in facts.links for network in link.networks]
    return judge(policy, packet, facts.addresses, attached=attached, state=state).words()


def _sent(question: Question, packet: Packet, policy: Policy, facts: Facts) -> Packet:
    """The packet with what the policy knows of its sender."""
    if question.is_tor:
        packet = replace(packet, uid=policy.tor_uid, from_tor=True)
    if question.interface is not None:
        present = {*(link.name for link in facts.links), *(lan.interface for lan in policy.lans)}
        if question.interface not in present:
            raise RefusedError(
                f"there is no interface {question.interface}",
                f"there is: {', '.join(sorted(present))}",
            )
        packet = replace(packet, source=_source(question, policy, packet.destination.version))
    return packet


def _packet(question: Question, tor_user: str) -> Packet:
    address = _address(question.address)
    protocol = _protocol(question.protocol, address)
    has_ports = protocol in ("tcp", "udp")
    if has_ports and question.port is None:
        raise RefusedError(
            f"{protocol} needs a port",
            f"for example: onionward explain {protocol} {address} 443",
        )
    if not has_ports and (question.port, question.source_port) != (None, None):
        raise RefusedError(f"the rules ask for ports of tcp and udp only, not of {protocol}")
    if question.is_tor and question.user is not None:
        raise RefusedError("it is sent by tor or by an account: give --tor or --user, not both")
    if question.interface is not None and (question.is_tor or question.user is not None):
        raise RefusedError("a client sends it, or a program here: give --from, or --user or --tor")
    if question.source is not None and question.interface is None:
        raise RefusedError("--source belongs to a client: give --from, too")
    uid = _uid(question.user, tor_user)
    return Packet(
        protocol,
        address,
        question.port,
        uid,
        question.source_port,
        interface=question.interface,
        onion_name=_is_onion_name(question.name or ""),
    )


def _is_onion_name(name: str) -> bool:
    """Whether the rules recognise it in a query: a version 3 name, or one label before it."""
    labels = name.lower().rstrip(".").split(".")
    return 2 <= len(labels) <= 3 and labels[-1] == "onion" and len(labels[-2]) == 56


def _source(question: Question, policy: Policy, version: int) -> Address | None:
    if question.source is not None:
        return _address(question.source)
    lan = policy.lan_of(question.interface or "")
    networks = (
        [n for n in lan.networks if n.version == version and not n.is_link_local] if lan else []
    )
    own = lan.addresses if lan else ()
    return next((a for n in networks[:1] for a in n.hosts() if a not in own), None)


def _address(text: str) -> Address:
    if "%" in text:
        bare = text.partition("%")[0]
        raise RefusedError(
            f"{text} names an interface, which the rules do not ask for", f"write {bare}"
        )
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise RefusedError(
            f"{text!r} is not an address",
            "for example: 1.1.1.1 or 2606:4700::1111; names are not resolved here",
        ) from None
    mapped = getattr(address, "ipv4_mapped", None)
    # what a program sends to such an address is IPv4 (ipv6(7))
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def _protocol(name: str, address: Address) -> str:
    if name in _ICMP6 or (name == "icmp" and address.version == 6):
        name = "ipv6-icmp"
    if name == "ipv6-icmp" and address.version == 4:
        raise RefusedError(f"{name} does not go to {address}", "for IPv4 write icmp")
    if name not in _PROTOCOLS:
        try:
            socket.getprotobyname(name)
        except OSError:
            raise RefusedError(
                f"{name!r} is not a protocol", "for example: tcp, udp, icmp, gre"
            ) from None
    return name


def _uid(user: str | None, tor_user: str) -> int:
    if user is None:
        return os.getuid()
    if user.isascii() and user.isdecimal():
        if int(user) > _HIGHEST_UID:
            raise RefusedError(f"{user} is not an account; the highest is {_HIGHEST_UID}")
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        if user == tor_user:
            return _ACCOUNT_TO_COME
        raise RefusedError(f"there is no account {user!r}", "give its name or its number") from None


def _policy(config: Config, facts: Facts) -> Policy:
    uid = facts.tor_account.uid if facts.tor_account else _ACCOUNT_TO_COME
    return derive(config, facts, tor_uid=uid, tor_cgroup=None, paused=paused_users(PATHS))
