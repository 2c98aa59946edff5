"""What `onionward show` and `onionward explain` print: nothing is touched.

The texts are those that `up` would use, but for the packet stamp, which is an example.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from dataclasses import dataclass

from onionward.config.values import Config
from onionward.errors import RefusedError
from onionward.explain import Packet
from onionward.explain import explain as judge
from onionward.facts import Facts, gather
from onionward.paths import Paths
from onionward.policy import Policy, derive
from onionward.render import nftables
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import torrc
from onionward.system import System

# Shown for an account that `up` would create.
_ACCOUNT_TO_COME = 65533


@dataclass(frozen=True, slots=True)
class Question:
    """A packet as a person describes it.

    Attributes:
        protocol: "tcp", "udp", "icmp" or another name of /etc/protocols.
        address: where to.
        port: destination port, for TCP and UDP.
        user: name or number of the account, or None for the caller's.

    """

    protocol: str
    address: str
    port: int | None
    user: str | None


def show(system: System, config: Config, paths: Paths, what: str, state: str) -> str:
    """One text: "policy", "nftables", "torrc" or "resolver"."""
    policy = _policy(config, gather(system, config.tor.user))
    match what:
        case "policy":
            return policy.describe() + "\n"
        case "nftables":
            ruleset = nftables.route(policy) if state == "routed" else nftables.block(policy)
            return ruleset.text
        case "torrc":
            return torrc(policy, paths, account=config.tor.user, network=config.network_lines)
        case _:
            return resolv_conf()


def explain(system: System, config: Config, question: Question) -> str:
    """What becomes of a packet, in words.

    Raises:
        RefusedError: the packet cannot exist.

    """
    packet = _packet(question)
    facts = gather(system, config.tor.user)
    return judge(_policy(config, facts), packet, facts.addresses).words()


def _packet(question: Question) -> Packet:
    try:
        address = ipaddress.ip_address(question.address)
    except ValueError:
        raise RefusedError(
            f"{question.address} is not an address", "for example: 1.1.1.1 or 2606:4700::1111"
        ) from None
    try:
        socket.getprotobyname(question.protocol)
    except OSError:
        raise RefusedError(
            f"{question.protocol} is not a protocol", "for example: tcp, udp, icmp, gre"
        ) from None
    has_ports = question.protocol in ("tcp", "udp")
    if has_ports != (question.port is not None):
        words = "needs a port" if has_ports else "has no ports"
        raise RefusedError(f"{question.protocol} {words}")
    return Packet(question.protocol, address, question.port, _uid(question.user))


def _uid(user: str | None) -> int:
    if user is None:
        return os.getuid()
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise RefusedError(f"there is no account {user}") from None


def _policy(config: Config, facts: Facts) -> Policy:
    uid = facts.tor_account.uid if facts.tor_account else _ACCOUNT_TO_COME
    return derive(config, facts, tor_uid=uid, tor_cgroup=None)
