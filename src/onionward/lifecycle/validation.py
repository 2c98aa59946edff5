"""Before anything is touched: what does not fit this machine or this session is refused."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from pathlib import Path

from onionward import preflight
from onionward.backend import nftables as backend
from onionward.config.values import Config
from onionward.dns import file as resolver
from onionward.errors import ConfigError, RefusedError
from onionward.facts import Facts, gather
from onionward.paths import Paths
from onionward.policy import derive
from onionward.render import nftables as render
from onionward.render.torrc import torrc
from onionward.system import System
from onionward.tor import process as tor_process

# Stands in for the account while it does not exist, in checks only.
_PROVISIONAL_UID = 65533


def validate(system: System, config: Config, paths: Paths) -> tuple[Facts, tuple[str, ...]]:
    """Read the machine and refuse what cannot work on it, touching nothing.

    Returns:
        The facts, and what is not covered here.

    Raises:
        ConfigError: every problem at once.
        RefusedError: nft or tor do not accept what was rendered.

    """
    facts = gather(system, config.tor.user)
    found = preflight.problems(config, facts, _listeners(system, config, facts, paths))
    found += resolver.unusable(paths.resolv_conf)
    if found:
        raise ConfigError(found)
    uid = facts.tor_account.uid if facts.tor_account else _PROVISIONAL_UID
    policy = derive(config, facts, tor_uid=uid, tor_cgroup=None)
    for ruleset in (render.block(policy), render.route(policy)):
        backend.check(system, ruleset)
    name = facts.tor_account.name if facts.tor_account else None
    # not the real data, which may still belong to an account of old: `start` hands it over
    elsewhere = replace(paths, state=paths.runtime / "unused")
    tor_process.verify_config(
        system, torrc(policy, elsewhere, account=name, network=config.network_lines)
    )
    return facts, preflight.warnings(config, facts)


def _listeners(system: System, config: Config, facts: Facts, paths: Paths) -> dict[str, str]:
    """Who listens on tor's ports, onionward's own tor aside."""
    # without root the owners of sockets are hidden, so tor's own would look like a stranger's
    if "ss" in facts.missing_tools or facts.effective_uid != 0:
        return {}
    taken: dict[str, str] = {}
    for protocol, option, port in (
        ("tcp", "-Hltnp", config.tor.trans_port),
        ("udp", "-Hlunp", config.tor.dns_port),
    ):
        own = {f"pid={pid}," for pid in tor_process.running(paths)}
        for line in system.query(["ss", option, f"sport = :{port}"]).splitlines():
            if not any(pid in line for pid in own):
                taken[f"{protocol}:{port}"] = line.split("users:")[-1].strip()
    return taken


def refuse_to_cut_ssh(config: Config, facts: Facts) -> None:
    """Speak up when the rules would cut the SSH session in which this is typed.

    Raises:
        RefusedError: they would.

    """
    peer = preflight.ssh_peer(
        os.environ, preflight.ancestor_environments(Path("/proc"), os.getpid())
    )
    if peer is None:
        return
    address = ipaddress.ip_address(peer.split("%")[0])
    policy = derive(config, facts, tor_uid=_PROVISIONAL_UID, tor_cgroup=None)
    if address.is_loopback or address in facts.addresses or policy.admits_inbound(address):
        return
    raise RefusedError(
        f"this would cut the SSH session it is typed in: {peer} is not among those whom "
        f'host.inbound = "{config.host.inbound}" lets in; nothing was touched',
        'add the address to [bypass] networks, set inbound = "all", or repeat with --yes',
    )
