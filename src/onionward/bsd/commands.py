"""What the command line asks of a BSD machine; texts that are printed are made here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onionward.bsd import boot, lifecycle, pf_conf, steps, validation
from onionward.bsd import status as status_module
from onionward.bsd.facts import parse_groups
from onionward.bsd.files import read
from onionward.bsd.kind import KINDS, PATHS, Kind, kind_of, this_kind
from onionward.bsd.limits import adapted, problems
from onionward.config.values import Config
from onionward.describe import describe
from onionward.errors import ConfigError, RefusedError
from onionward.explain.packet import Packet, State, Verdict
from onionward.explain.pf import explain as judge
from onionward.facts import Facts
from onionward.networks import Address
from onionward.policy import Policy, derive
from onionward.render import pf
from onionward.render.pf import DialectName
from onionward.state import Journal
from onionward.system import System

if TYPE_CHECKING:
    from onionward.lifecycle.reporter import Reporter


def up(system: System, config: Config, report: Reporter, *, special: bool) -> Journal:
    """Route; `special`: an option was given that there is none of here."""
    _refuse(special=special)
    if os.geteuid() != 0:
        lifecycle.check(system, config, this_kind(), PATHS)
    return lifecycle.up(system, config, this_kind(), PATHS, report)


def down(system: System, report: Reporter, *, force: bool) -> bool:
    """Put everything back."""
    return lifecycle.down(system, this_kind(), PATHS, report, force=force)


def enable(system: System, config: Config, report: Reporter) -> None:
    """Have every boot run `up`."""
    lifecycle.enable(system, config, this_kind(), PATHS, report)


def disable(system: System, report: Reporter) -> bool:
    """Have no boot run it."""
    return lifecycle.disable(system, PATHS, report)


def status(system: System) -> status_module.Status:
    """What holds."""
    return status_module.status(system, PATHS)


def _refuse(*, special: bool) -> None:
    if special:
        raise RefusedError(
            "--confirm, --create-users and --resolver are not available with pf; nothing was "
            "touched"
        )


def check(system: System, config: Config, *, special: bool) -> str:
    """Validate, touching nothing: what is not covered, and that it is good."""
    _refuse(special=special)
    found = lifecycle.check(system, config, this_kind(), PATHS)
    interfaces = ", ".join(link.name for link in found.facts.links) or "none"
    return "\n".join(
        [
            *(f"limit: {limit}" for limit in found.limits),
            f"{config.source.name}: good; pfctl and tor accept it (interfaces: {interfaces})",
        ]
    )


class Wanted(NamedTuple):
    """What is to be shown of pf.

    Attributes:
        dialect: or None for that of the system.
        pf_conf: a main ruleset that is shown with the anchor in it, or None for the anchor's rules.

    """

    dialect: DialectName | None = None
    pf_conf: str | None = None


def show(system: System, config: Config, what: str, state: str, wanted: Wanted) -> str:
    """One text, on this BSD: "policy", "pf", "torrc", "resolver" or "system"."""
    kind = this_kind()
    plan = validation.plan(system, config, kind, PATHS)
    match what:
        case "policy":
            return describe(plan.policy) + "\n"
        case "torrc":
            return plan.torrc
        case "nftables":
            raise RefusedError(
                "nftables is Linux's; `onionward show pf` prints this system's rules"
            )
        case _:
            groups = parse_groups(system.query(["ifconfig", "-a"]))
            return _shown(plan.config, plan.facts, plan.policy, what, state, kind, wanted, groups)


def show_elsewhere(
    config: Config, facts: Facts, tor_uid: int, what: str, state: str, wanted: Wanted
) -> str:
    """The same for "pf" and "system" on a machine that has no pf, with its interfaces."""
    config = adapted(config)
    policy = derive(config, facts, tor_uid=tor_uid, tor_cgroup=None)
    kind = KINDS[wanted.dialect or "openbsd"]
    groups = {
        link.name: frozenset(
            {link.name.rstrip("0123456789"), "all", *(("egress",) if link.is_uplink else ())}
        )
        for link in facts.links
    }
    return _shown(config, facts, policy, what, state, kind, wanted, groups)


def _shown(
    config: Config,
    facts: Facts,
    policy: Policy,
    what: str,
    state: str,
    kind: Kind,
    wanted: Wanted,
    groups: Mapping[str, frozenset[str]],
) -> str:
    """Rules, what surrounds them, or resolv.conf.

    Raises:
        ConfigError: pf cannot express the configuration, or a main ruleset would defeat it.

    """
    if impossible := problems(config):
        raise ConfigError(impossible)
    chosen = wanted.dialect or kind.dialect
    if what == "pf" and wanted.pf_conf is not None:
        return _main(wanted.pf_conf, policy, kind, chosen, groups)
    if what == "pf":
        ruleset = pf.route(policy, chosen) if state == "routed" else pf.block(policy, chosen)
        return ruleset.text
    listed = steps.steps(kind, policy, facts, PATHS)
    if what == "system":
        program = boot.EXAMPLE if kind_of() is None else boot.program_of(config)
        every = (*listed, *boot.steps(kind, program))
        return steps.describe(kind, every, steps.main_step(kind, policy))
    resolver = next((step for step in listed if step.name == "resolver"), None)
    return resolver.lines if resolver else "# untouched: only the scopes' names go to Tor\n"


def _main(
    file: str,
    policy: Policy,
    kind: Kind,
    dialect: DialectName,
    groups: Mapping[str, frozenset[str]],
) -> str:
    text = pf_conf.unhooked(read(Path(file)) or "")
    listed = pf_conf.statements(text, file)
    if found := tuple(pf_conf.problems(listed, policy, pf.DIALECTS[dialect], groups)):
        raise ConfigError(found)
    return pf_conf.hooked(text, file, policy, pf.DIALECTS[dialect], kind.stored_block)


def policy_of(system: System, config: Config) -> tuple[Policy, Facts]:
    """The policy on this machine, and the machine.

    Raises:
        ConfigError: pf cannot express the configuration.

    """
    plan = validation.plan(system, config, this_kind(), PATHS)
    if impossible := problems(plan.config):
        raise ConfigError(impossible)
    return plan.policy, plan.facts


def explain(policy: Policy, packet: Packet, own: Iterable[Address], state: State) -> Verdict:
    """What becomes of a packet here."""
    return judge(policy, packet, own, state=state)
