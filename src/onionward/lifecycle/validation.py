"""Before anything is touched: what does not fit this machine or this session is refused."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from pathlib import Path

from onionward import backend, preflight, state
from onionward.config.values import Config
from onionward.errors import ConfigError, RefusedError
from onionward.facts import Facts, all_accounts, gather
from onionward.foreign_rules import limits as foreign_rules
from onionward.networks import Network, contains
from onionward.paths import OF_RUNS, Paths
from onionward.policy import derive
from onionward.render.torrc import relays, torrc
from onionward.system import System, at_once, find_tool
from onionward.tor import process as tor_process

# Stands in for the account while it does not exist, in checks only.
_PROVISIONAL_UID = 65533


def validate(
    system: System,
    config: Config,
    paths: Paths,
    *,
    create_users: bool = False,
    whole: bool = False,
    resolver: str = "",
) -> tuple[Facts, tuple[str, ...]]:
    """Read the machine and refuse what cannot work on it, touching nothing.

    Args:
        system: the seam.
        config: read and free of contradictions.
        paths: where things are.
        create_users: whether accounts that do not exist will be created.
        whole: have the packet filter read everything beforehand. `up` is in a hurry and leaves
            out what it loads next, in a transaction that is refused as a whole: the block, and all
            bypassed networks but one of each family.
        resolver: who manages resolv.conf, whatever the configuration says; "": as it says.

    Returns:
        The facts, and what is not covered here.

    Raises:
        ConfigError: every problem at once.
        RefusedError: the packet filter or tor do not accept what was rendered.

    """
    facts = gather(system, config, paths)
    found = preflight.problems(config, facts, create_users=create_users)
    limits: list[str] = []

    def look_further() -> None:
        taken = preflight.taken_ports(config, _listeners(system, config, facts, paths))
        further = (
            *taken,
            *_dhcp_problems(system, config, facts, paths),
            *_full_dns_problems(config),
            *flowtable_problems(system, config, paths),
            *ways_around(system, config, facts),
            *_resolver_problems(system, config, paths, resolver, limits),
        )
        if found or further:
            raise ConfigError((*found, *further))

    if found:
        look_further()
    uid = facts.tor_account.uid if facts.tor_account else _PROVISIONAL_UID
    policy = derive(config, facts, tor_uid=uid, tor_cgroup=None)
    chosen = backend.chosen(config)
    if whole:
        rulesets = [chosen.block(policy), chosen.route(policy)]
    else:
        # all networks are printed alike, and what overlaps has been merged
        example = replace(policy, bypass=_one_of_each_family(policy.bypass))
        rulesets = [chosen.route(example)]
    name = facts.tor_account.name if facts.tor_account else None
    # not the real data, which may still belong to an account of old: `start` hands it over
    elsewhere = paths._replace(state=paths.runtime / "unused")
    text = torrc(policy, elsewhere, account=name, network=relays(config, facts.installed))
    foreign: list[str] = []

    def look_at_others() -> None:
        foreign.extend(foreign_rules.limits(system, config, facts))
        # `up` puts ours first again; who only asks is told
        if whole and (held := chosen.read(system)) is not None:
            foreign.extend(
                f"a rule of another program runs before ours: {place}"
                for place in chosen.ahead(held)
            )

    at_once(
        look_further,
        lambda: chosen.check(system, *rulesets),
        lambda: tor_process.verify_config(system, text),
        look_at_others,
    )
    return facts, (*preflight.warnings(config, facts), *limits, *foreign)


def _one_of_each_family(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    return tuple({network.version: network for network in networks}.values())


def _listeners(system: System, config: Config, facts: Facts, paths: Paths) -> dict[str, str]:
    """Who listens on tor's ports, onionward's own tor aside."""
    # without root the owners of sockets are hidden, so tor's own would look like a stranger's
    if "ss" in facts.missing_tools or facts.effective_uid != 0:
        return {}
    taken: dict[str, str] = {}
    for protocol, option, port in (
        ("tcp", "-Hltnp", config.tor.trans_port),
        ("udp", "-Hlunp", config.tor.dns_port),
        *_full_dns_ports(config),
    ):
        # to ask who listens takes ten times as long
        if not system.query(["ss", option.removesuffix("p"), f"sport = :{port}"]).strip():
            continue
        ours = (
            *tor_process.running(paths),
            *tor_process.running(OF_RUNS),
            *_running_unbound(config, paths),
        )
        own = {f"pid={pid}," for pid in ours}
        for line in system.query(["ss", option, f"sport = :{port}"]).splitlines():
            if not any(pid in line for pid in own):
                taken[f"{protocol}:{port}"] = line.split("users:")[-1].strip()
    return taken


def _full_dns_ports(config: Config) -> tuple[tuple[str, str, int], ...]:
    port = config.tor.full_dns_port
    if config.tor.dns != "full":
        return ()
    return ("tcp", "-Hltnp", port), ("udp", "-Hlunp", port)


def _running_unbound(config: Config, paths: Paths) -> tuple[int, ...]:
    if config.tor.dns != "full":
        return ()
    from onionward.dns import full

    return full.running(Path(full.survey(paths)["config"]))


def _dhcp_problems(system: System, config: Config, facts: Facts, paths: Paths) -> tuple[str, ...]:
    if not any(lan.dhcp for lan in config.lan):
        return ()
    from onionward.lan import dhcp, dhcp_server

    listeners = dhcp_server.listeners(system, dhcp_server.config_path(paths))
    segments = dhcp.segments(config, facts.links)
    found = dhcp.problems(segments, listeners, dnsmasq=find_tool("dnsmasq"))
    return tuple(config.source.locate(path, words) for path, words in found)


def _full_dns_problems(config: Config) -> tuple[str, ...]:
    if config.tor.dns != "full":
        return ()
    from onionward.dns import full

    return full.problems(config)


def flowtable_problems(system: System, config: Config, paths: Paths) -> tuple[str, ...]:
    """Connections of clients that are open now and would pass no rule.

    Those that begin later are not forwarded, so nobody hands them over; a routed host forwards
    nothing at all, and its egress chain sees what flowtables send.
    """
    if not config.lan or config.host_route == "tor":
        return ()
    from onionward.lan import flowtables

    tables = flowtables.present(system)
    if not tables or backend.blocked_since_boot(system):
        return ()
    in_force = state.noted_lans(paths) if backend.present(system) else ()
    found = []
    for index, lan in enumerate(config.lan):
        if lan.interface in in_force:
            continue
        devices = flowtables.beneath(lan.interface)
        for table in tables:
            if devices & set(table.devices):
                words = (
                    f"a flowtable of another program ({table.words()}) may carry connections of "
                    f"clients behind {lan.interface} past all rules, and those that are open now "
                    "would go on in clear; remove it (nft delete flowtable "
                    f"{table.words()}) until `onionward up` has succeeded"
                )
                found.append(config.source.locate(("lan", index, "interface"), words))
    return tuple(found)


def _resolver_problems(
    system: System, config: Config, paths: Paths, named: str, limits: list[str]
) -> tuple[str, ...]:
    """What is wrong with the resolver; what is only not so good goes into `limits`."""
    if named and config.host_route != "tor":
        return ("--resolver is about a host that is routed, and this configuration routes none",)
    if config.host_route == "tor":
        from onionward.dns import host

        found, less_good = host.examine(system, named or config.resolver, paths)
        limits += less_good
        if named or config.resolver == "auto":
            return found
        return tuple(config.source.locate(("host", "resolver"), words) for words in found)
    if config.host_route != "onion" or state.saved_step(paths, "onion"):
        return ()
    from onionward.dns import onion

    return onion.unusable(onion.environment(system, paths))


def ways_around(system: System, config: Config, facts: Facts) -> tuple[str, ...]:
    """What would act in the network for routed accounts under other names, and is not accepted.

    On a routed host that goes through Tor, too.
    """
    if config.host_route == "tor" or not facts.users or facts.effective_uid != 0:
        return ()
    from onionward import accounts, exposure, held_sockets, setuid

    present, programs, sudoers = exposure.look(), setuid.programs(), setuid.read_sudoers()
    known = {user.account.name: user for user in facts.users}
    everybody = all_accounts()
    found = []
    for index, entry in enumerate(config.user):
        user = known.get(entry.name)
        if user is None:
            continue
        for other in accounts.shared(user, everybody):
            words = f"the user id of {other.name} ({other.uid}) is among its subordinate ones"
            path = ("user", index, "name")
            found.append(config.source.locate(path, f"{words} (/etc/subuid): both would be routed"))
        uids = tuple((ids.first, ids.last) for ids in user.uids)
        ways = (
            *accounts.uncounted(user),
            *exposure.ways_around(present, user),
            *setuid.ways_around(programs, user, sudoers),
            *held_sockets.ways_around(system, uids),
        )
        for way in ways:
            if not way.is_accepted(entry.accept):
                words = (
                    f'{entry.name} has a way around Tor (accept = ["{way.narrowest}"] accepts it)'
                )
                found.append(
                    config.source.locate(("user", index, "name"), f"{words}: {way.reason}")
                )
    return tuple(found)


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
    if address.is_loopback or address in facts.addresses:
        return
    lan = next((lan for lan in policy.lans if contains(lan.networks, address)), None)
    # the port that sshd listens on is not known; a client that may connect anywhere is not cut
    if lan is not None and not lan.tcp_ports:
        raise RefusedError(
            f"this would cut the SSH session it is typed in: {peer} is a client behind "
            f'{lan.interface}, whose `services` do not name "ssh"; nothing was touched',
            'add "ssh" to them, or repeat with --yes',
        )
    if lan is not None or policy.route != "tor" or policy.admits_inbound(address):
        return
    raise RefusedError(
        f"this would cut the SSH session it is typed in: {peer} is not among those whom "
        f'host.inbound = "{config.inbound}" lets in; nothing was touched',
        'add the address to [bypass] networks, set inbound = "all", or repeat with --yes',
    )
