"""Before anything is touched: what does not fit this BSD machine is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from onionward.backend import pf as backend
from onionward.backend.platform import refuse_foreign_filter
from onionward.bsd import facts as bsd_facts
from onionward.bsd import limits, pf_conf
from onionward.bsd.files import read
from onionward.bsd.kind import Kind
from onionward.config.values import Config
from onionward.errors import CommandError, ConfigError
from onionward.facts import Facts
from onionward.networks import overlapping
from onionward.paths import Paths
from onionward.policy import Policy, derive
from onionward.render import pf
from onionward.render.torrc import Platform, relays, torrc
from onionward.system import System
from onionward.toml_lines import KeyPath
from onionward.tor.process import verify_config

# Stands in for the account while it does not exist, in checks only.
PROVISIONAL_UID = 65533


class Plan(NamedTuple):
    """What `up` would do, all of it read and found possible.

    Attributes:
        config: adapted to pf.
        facts: of this machine.
        policy: of both.
        torrc: tor's configuration.
        main: pf.conf with the anchor in it.
        block: rules of the state "blocked".
        route: rules of the state "routed".
        limits: what is not covered here.

    """

    config: Config
    facts: Facts
    policy: Policy
    torrc: str
    main: str
    block: pf.Ruleset
    route: pf.Ruleset
    limits: tuple[str, ...]


def platform_of(kind: Kind) -> Platform:
    """What of torrc depends on the system."""
    return Platform(
        trans_proxy_type=pf.DIALECTS[kind.dialect].trans_proxy_type,
        relays=False,
        keeps_capabilities=False,
        pid_file=True,
        offers_socks=False,
    )


def plan(system: System, config: Config, kind: Kind, paths: Paths) -> Plan:
    """Read the machine and render everything; nothing is checked yet."""
    config = limits.adapted(config)
    facts = bsd_facts.gather(system, config, kind)
    uid = facts.tor_account.uid if facts.tor_account else PROVISIONAL_UID
    policy = derive(config, facts, tor_uid=uid, tor_cgroup=None)
    return planned(config, facts, policy, kind, paths)


def planned(config: Config, facts: Facts, policy: Policy, kind: Kind, paths: Paths) -> Plan:
    """A policy rendered for a system."""
    name = facts.tor_account.name if facts.tor_account else config.tor.user
    text = torrc(
        policy,
        paths,
        account=name,
        network=relays(config, facts.installed),
        platform=platform_of(kind),
    )
    dialect = pf.DIALECTS[kind.dialect]
    main = pf_conf.hooked(
        read(kind.pf_conf) or "", str(kind.pf_conf), policy, dialect, kind.stored_block
    )
    return Plan(
        config,
        facts,
        policy,
        text,
        main,
        pf.block(policy, kind.dialect),
        pf.route(policy, kind.dialect),
        limits.warnings(config),
    )


def validate(system: System, config: Config, kind: Kind, paths: Paths) -> Plan:
    """Refuse what cannot work here, touching nothing.

    Raises:
        ConfigError: every problem at once.
        RefusedError: pfctl or tor do not accept what was rendered.

    """
    refuse_foreign_filter(config)
    adapted = limits.adapted(config)
    if impossible := limits.problems(adapted):
        raise ConfigError(impossible)
    found = plan(system, config, kind, paths)
    problems = [*_rights_and_tools(found.facts)]
    located = (*_of_machine(found), *_of_accounts(found))
    problems += [found.config.source.locate(path, words) for path, words in located]
    problems += _of_pf_conf(system, found.policy, kind)
    if found.policy.route == "tor" and paths.resolv_conf.is_symlink():
        problems.append(f"{paths.resolv_conf} is a link; put a file in its place first")
    if problems:
        raise ConfigError(problems)
    # what the anchor is filled with does not exist before `up` writes it
    alone = "".join(
        line for line in found.main.splitlines(keepends=True) if not line.startswith("load anchor")
    )
    backend.check_main(system, alone, kind.pf_conf)
    backend.check(system, found.block, found.route)
    # not the real data, which belongs to tor's account
    elsewhere = _elsewhere(found.torrc, paths)
    verify_config(system, elsewhere)
    return found


def _elsewhere(text: str, paths: Paths) -> str:
    """What tor reads, with a directory that need not exist."""
    return text.replace(f"DataDirectory {paths.tor_data}", f"DataDirectory {paths.runtime}/unused")


def _rights_and_tools(facts: Facts) -> Iterator[str]:
    if facts.effective_uid != 0:
        yield (
            "this needs root, and nothing was touched: packet filters, accounts and "
            "resolv.conf are root's; use doas or su"
        )
    if facts.tor_path is None:
        yield "tor is missing; install it: pkg_add tor (OpenBSD), pkg install tor (FreeBSD)"
    for tool in facts.missing_tools:
        yield f"{tool} is missing, though it is part of the system"
    for link in facts.links:
        if not re.fullmatch(r"[A-Za-z][\w.]*", link.name, re.ASCII):
            yield f"interface {link.name!r} has a name that pf cannot be told; rename it"


def _of_machine(found: Plan) -> Iterator[tuple[KeyPath, str]]:
    links = {link.name: link for link in found.facts.links}
    for virtual in found.config.virtual:
        for link in found.facts.links:
            for network in link.neighbours:
                if overlapping(virtual, network):
                    words = f"{virtual} overlaps {network} of interface {link.name}"
                    yield ("tor", "virtual_networks"), f"{words}; take another virtual network"
    for index, lan in enumerate(found.config.lan):
        path = ("lan", index, "interface")
        there = links.get(lan.interface)
        if there is None and not lan.hotplug:
            known = ", ".join(sorted(links)) or "none"
            yield (
                path,
                f"there is no interface {lan.interface} (there is: {known}); if it appears later, "
                "add hotplug = true",
            )
        elif there is not None and there.is_uplink:
            yield path, f"{lan.interface} is the uplink; clients must be behind another interface"
        elif there is not None and there.master:
            yield (
                path,
                f"{lan.interface} is a port of {there.master}, where its packets arrive; name that",
            )


def _of_accounts(found: Plan) -> Iterator[tuple[KeyPath, str]]:
    tor = found.facts.tor_account
    if tor is None:
        yield (
            ("tor", "user"),
            f"there is no account {found.config.tor.user}; the package of tor makes it",
        )
    elif tor.uid == 0:
        yield ("tor", "user"), f"{tor.name} is root; tor needs an account of its own"
    known = {user.account.name: user.account.uid for user in found.facts.users}
    for index, user in enumerate(found.config.user):
        path = ("user", index, "name")
        uid = known.get(user.name)
        if uid is None:
            yield path, f"there is no account {user.name}; create it with adduser(8)"
        elif uid == 0 or (tor is not None and uid == tor.uid):
            yield path, f"{user.name} is root or tor itself, which rules cannot hold"


def _of_pf_conf(system: System, policy: Policy, kind: Kind) -> list[str]:
    text = read(kind.pf_conf)
    if text is None:
        return []
    listed = pf_conf.statements(pf_conf.unhooked(text), str(kind.pf_conf))
    try:
        groups = bsd_facts.parse_groups(system.query(["ifconfig", "-a"]))
    except CommandError:
        groups = {}
    dialect = pf.DIALECTS[kind.dialect]
    found = [*pf_conf.problems(listed, policy, dialect, groups)]
    if os.geteuid() == 0:
        found += _other_rules(system, kind)
    return found


def _other_rules(system: System, kind: Kind) -> list[str]:
    """Rules in force that pf.conf does not have would be lost: `down` loads pf.conf."""
    try:
        loaded, stored = (
            backend.main_rules(system),
            backend.rules_of(system, read(kind.pf_conf) or ""),
        )
    except CommandError:
        # there is no pf yet, or pf.conf is not read, which is said elsewhere
        return []
    if loaded == stored or not (loaded or backend.is_enabled(system)):
        return []
    more = [line for line in loaded if line not in stored]
    less = [line for line in stored if line not in loaded]
    example = (more or less or ["their order"])[0]
    return [
        f"the rules in force are not those of {kind.pf_conf} (for example: {example}), so that "
        f"`down` could not put them back; load it first: pfctl -f {kind.pf_conf}"
    ]


def keeping(found: Plan, system: System, kind: Kind, paths: Paths) -> Plan:
    """The plan with the connections from before that survive."""
    listening, connections = bsd_facts.sockets(system, kind)
    kept = bsd_facts.kept(found.policy, listening, connections)
    return planned(found.config, found.facts, found.policy.keeping(kept), kind, paths)
