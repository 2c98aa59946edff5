"""What `onionward show` prints: the texts that `up` would use, with an example packet stamp."""

from __future__ import annotations

from onionward.config.values import Config
from onionward.facts import gather
from onionward.paths import Paths
from onionward.policy import Policy, derive
from onionward.render import nftables
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import torrc
from onionward.system import System

# Shown for an account that `up` would create.
_ACCOUNT_TO_COME = 65533


def show(system: System, config: Config, paths: Paths, what: str, state: str) -> str:
    """One text: "policy", "nftables", "torrc" or "resolver"."""
    policy = _policy(system, config)
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


def _policy(system: System, config: Config) -> Policy:
    facts = gather(system, config.tor.user)
    uid = facts.tor_account.uid if facts.tor_account else _ACCOUNT_TO_COME
    return derive(config, facts, tor_uid=uid, tor_cgroup=None)
