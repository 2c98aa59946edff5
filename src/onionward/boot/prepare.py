"""What `enable` stores: the block of a policy, and how `up` is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from onionward.backend import nftables as backend
from onionward.boot.install import Texts, stored_rules
from onionward.boot.units import Program
from onionward.config.values import Config
from onionward.facts import Facts
from onionward.policy import Policy, derive
from onionward.render.nftables import boot
from onionward.render.nftables.text import Ruleset
from onionward.system import System


def texts(system: System, config: Config, facts: Facts, config_path: str | None) -> Texts:
    """The texts for this machine, read and accepted by nft.

    Raises:
        RefusedError: nft does not accept them.

    """
    policy = _policy(config, facts)
    backend.check(system, Ruleset("blocked since boot", boot.whole(policy), (), ()))
    return Texts(boot.first(policy), boot.rest(policy), program(config_path))


def is_stale(config: Config, facts: Facts) -> bool:
    """Whether another block is stored than this configuration would have."""
    return stored_rules() != boot.rest(_policy(config, facts))


def _policy(config: Config, facts: Facts) -> Policy:
    # tor has no part in it
    return derive(config, facts, tor_uid=0, tor_cgroup=None)


def program(config_path: str | None) -> Program:
    """How this program is called from anywhere."""
    script = Path(sys.argv[0])
    options = ("--config", os.path.abspath(config_path)) if config_path else ()  # noqa: PTH100
    if script.name == "onionward" and script.is_absolute() and os.access(script, os.X_OK):
        return Program((str(script), *options, "up"), {})
    variables = {n: os.environ[n] for n in ("PYTHONPATH",) if n in os.environ}
    return Program((sys.executable, "-P", "-m", "onionward", *options, "up"), variables)
