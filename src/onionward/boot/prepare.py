"""What `enable` stores: the block of a policy, and how `up` is called."""

from __future__ import annotations

from onionward.backend import nftables as backend
from onionward.boot.install import Texts, nft_path, stored_rules
from onionward.boot.program import program
from onionward.config.values import Config
from onionward.facts import Facts
from onionward.policy import Policy, derive
from onionward.render.nftables import boot
from onionward.render.nftables.text import Ruleset
from onionward.system import System


def texts(system: System, config: Config, facts: Facts, config_path: str | None) -> Texts:
    """The texts for this machine, read and accepted by nft.

    Raises:
        RefusedError: nft is missing, or does not accept them.

    """
    nft_path()
    policy = _policy(config, facts)
    backend.check(system, Ruleset("blocked since boot", boot.whole(policy), (), ()))
    return Texts(boot.first(policy), boot.rest(policy), program(config_path))


def is_stale(config: Config, facts: Facts) -> bool:
    """Whether another block is stored than this configuration would have."""
    return stored_rules() != boot.rest(_policy(config, facts))


def _policy(config: Config, facts: Facts) -> Policy:
    # tor has no part in it
    return derive(config, facts, tor_uid=0, tor_cgroup=None)
