"""What surrounds the packet rules and must be put back: routes, kernel settings, helpers.

Each is surveyed and noted in the journal before it is changed. What a new configuration does not
want any more, or wants otherwise, is put back; what both want stays as it is all the time. Modules
are imported when they are wanted: most of them are not, and the block must not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from onionward.config.values import Config
from onionward.facts import Account, Facts
from onionward.paths import Paths
from onionward.policy import Policy
from onionward.system import System

Survey = Callable[[Any], Mapping[str, Any]]
Apply = Callable[[Any], object]
Restore = Callable[[Any], str]
Part = Callable[[Mapping[str, Any]], tuple[Any, Any]]


class Surrounding(NamedTuple):
    """One of them.

    Attributes:
        name: its key in the journal.
        key: what is wanted, as JSON; None when nothing is.
        survey: reads what puts it back; given what an earlier one has read, which prevails, or
            None.
        apply: changes it; can be repeated.
        restore: puts it back.
        part: of what the journal has of it (key and saved), what is wanted still and what is not;
            each of the two may be None.
        before_rules: whether it is changed before packets are redirected to tor.

    """

    name: str
    key: Any
    survey: Survey
    apply: Apply
    restore: Restore
    part: Part
    before_rules: bool = False


def of(
    system: System, paths: Paths, config: Config, policy: Policy, facts: Facts, account: Account
) -> tuple[Surrounding, ...]:
    """All of them, in the order in which they are changed."""
    return (
        _routes(system, policy),
        _belt(system, config, policy),
        _sysctls(system, policy, facts),
        _ports(system, policy),
        _masks(system, config, policy, facts),
        _full_dns(system, paths, config, policy),
        _onion(system, paths, policy),
        _control(system, paths, config, facts, account),
        _dhcp(system, paths, config, policy, facts),
    )


def _same(key: Any, is_stale: Callable[[Any], bool] = lambda _: False) -> Part:
    """What is wanted otherwise is put back as a whole; `is_stale`: others have undone it."""

    def part(noted: Mapping[str, Any]) -> tuple[Any, Any]:
        saved = noted["saved"]
        stays = key is not None and noted["key"] == key and not is_stale(saved)
        return (saved, None) if stays else (None, saved)

    return part


def _whole(*, wanted: bool) -> Part:
    """What is wanted otherwise takes the place of what there is, without a moment in between."""
    return lambda noted: (noted["saved"], None) if wanted else (None, noted["saved"])


def _routes(system: System, policy: Policy) -> Surrounding:
    from onionward import routes

    places = [str(place) for place in (*policy.local_routes, *policy.local_addresses)]
    return Surrounding(
        name="routes",
        key=places or None,
        survey=lambda before: routes.survey(
            system, policy.local_routes, policy.local_addresses, before
        ),
        apply=lambda saved: routes.apply(system, saved),
        restore=lambda saved: routes.restore(system, saved),
        part=lambda noted: routes.parted(noted["saved"], places),
        before_rules=True,
    )


def _belt(system: System, config: Config, policy: Policy) -> Surrounding:
    from onionward import backend

    key = None
    # what nft's tables do not need: there the guard's own are left when others are flushed
    if backend.chosen(config).NAME != "nftables":
        from onionward import belt

        key = belt.wanted(policy)

    def survey(before: Any) -> Mapping[str, Any]:
        from onionward import belt

        return belt.survey(before)

    def apply(saved: Any) -> None:
        from onionward import belt

        if key is not None:
            belt.apply(system, key, saved)

    wanted = key is not None
    return Surrounding(
        name="belt",
        key=key,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_belt(system, saved),
        part=_whole(wanted=wanted),
        before_rules=True,
    )


def _restore_belt(system: System, saved: Any) -> str:
    from onionward import belt

    return belt.restore(system, saved)


def _sysctls(system: System, policy: Policy, facts: Facts) -> Surrounding:
    interfaces = [lan.interface for lan in policy.lans]
    links = {link.name for link in facts.links}
    # one that has appeared since wants them too
    present = [name for name in interfaces if name in links]

    def survey(before: Any) -> Mapping[str, Any]:
        from onionward.lan import sysctls

        return sysctls.survey(system, interfaces, before)

    def apply(saved: Any) -> None:
        from onionward.lan import sysctls

        sysctls.apply(system, saved)

    def part(noted: Mapping[str, Any]) -> tuple[Any, Any]:
        from onionward.lan import sysctls

        return sysctls.parted(noted["saved"], present)

    return Surrounding(
        name="sysctls",
        key=present or None,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_sysctls(system, saved),
        part=part,
        before_rules=True,
    )


def _restore_sysctls(system: System, saved: Any) -> str:
    from onionward.lan import sysctls

    return sysctls.restore(system, saved)


def _ports(system: System, policy: Policy) -> Surrounding:
    def survey(before: Any) -> Mapping[str, Any]:
        from onionward.lan import bridge_ports

        earlier: Mapping[str, Any] | None = before
        return earlier or bridge_ports.survey(system)

    def apply(saved: Any) -> None:
        from onionward.lan import bridge_ports

        bridge_ports.apply(system, saved, policy.lans)

    wanted = bool(policy.lans)
    return Surrounding(
        name="ports",
        key=[[lan.interface, lan.number] for lan in policy.lans] or None,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_ports(system, saved),
        # other interfaces are other rules, put in their place by one transaction
        part=_whole(wanted=wanted),
        before_rules=True,
    )


def _restore_ports(system: System, saved: Any) -> str:
    from onionward.lan import bridge_ports

    return bridge_ports.restore(system, saved)


def _masks(system: System, config: Config, policy: Policy, facts: Facts) -> Surrounding:
    accepted = {user.name: user.accept for user in config.user if user.route == "tor"}
    users = [(u, accepted[u.account.name]) for u in facts.users if u.account.name in accepted]

    def survey(before: Any) -> Mapping[str, Any]:
        from onionward import exposure, masks

        # a service that has appeared since is closed, too
        return masks.survey(exposure.look(), users, before)

    def apply(saved: Any) -> None:
        from onionward import masks

        masks.apply(system, saved)

    # on a routed host, what other accounts send for them goes through Tor as well
    wanted = bool(users) and policy.route != "tor"
    return Surrounding(
        name="masks",
        key=[[user.account.uid, list(accept)] for user, accept in users] if wanted else None,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_masks(system, saved),
        # a survey for other accounts opens what is closed to those that are given up
        part=_whole(wanted=wanted),
        before_rules=True,
    )


def _restore_masks(system: System, saved: Any) -> str:
    from onionward import masks

    return masks.restore(system, saved)


def _onion(system: System, paths: Paths, policy: Policy) -> Surrounding:
    def survey(before: Any) -> Mapping[str, Any]:
        from onionward.dns import onion

        earlier: Mapping[str, Any] | None = before
        return earlier or onion.survey(
            system, onion.environment(system, paths), policy.dns_port, paths
        )

    def apply(saved: Any) -> None:
        from onionward.dns import onion

        onion.apply(system, saved, paths)

    def is_stale(saved: Any) -> bool:
        from onionward.dns import onion

        return bool(onion.problems(system, saved, paths))

    key = policy.dns_port if policy.route == "onion" else None
    return Surrounding(
        name="onion",
        key=key,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_onion(system, saved, paths),
        part=_same(key, is_stale),
    )


def _restore_onion(system: System, saved: Any, paths: Paths) -> str:
    from onionward.dns import onion

    return onion.restore(system, saved, paths)


def _full_dns(system: System, paths: Paths, config: Config, policy: Policy) -> Surrounding:
    def survey(before: Any) -> Mapping[str, Any]:
        from onionward.dns import full

        earlier: Mapping[str, Any] | None = before
        return earlier or full.survey(paths)

    def apply(saved: Any) -> None:
        from onionward.dns import full

        users = (*policy.users, *policy.direct_users)
        named = (uid for user in users for first, last in user.uids for uid in (first, last))
        account = full.choose_account((policy.tor_uid, *named))
        text = full.render(config, account.name, saved["log"], ipv6=policy.ipv6)
        full.apply(system, saved, text)

    key = None
    if policy.full_dns:
        from onionward.dns import full

        key = full.wanted(config, ipv6=policy.ipv6)
    return Surrounding(
        name="full_dns",
        key=key,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_full_dns(system, saved),
        # another configuration takes the place of the one there is
        part=_whole(wanted=key is not None),
        before_rules=True,
    )


def _restore_full_dns(system: System, saved: Any) -> str:
    from onionward.dns import full

    return full.restore(system, saved)


def _control(
    system: System, paths: Paths, config: Config, facts: Facts, account: Account
) -> Surrounding:
    names = {user.name for user in config.user if user.control}
    users = [user.account for user in facts.users if user.account.name in names]

    def apply(_: Any) -> None:
        from onionward.tor import control_filter

        # each client's connection leads to the tor that runs at that moment
        if not control_filter.running(paths):
            control_filter.start(system, paths, account, users)

    key = [[user.name, user.uid] for user in users] or None
    return Surrounding(
        name="control",
        key=key,
        survey=lambda _: {},
        apply=apply,
        restore=lambda _: _restore_control(system, paths),
        part=_same(key),
    )


def _restore_control(system: System, paths: Paths) -> str:
    from onionward.tor import control_filter

    control_filter.stop(system, paths)
    return ""


def _dhcp(
    system: System, paths: Paths, config: Config, policy: Policy, facts: Facts
) -> Surrounding:
    def survey(_: Any) -> Mapping[str, Any]:
        from onionward.lan import dhcp_server

        return dhcp_server.survey(paths)

    def apply(saved: Any) -> None:
        from onionward.lan import dhcp, dhcp_server

        segments = dhcp.segments(config, facts.links).values()
        account = dhcp_server.choose_account(policy.tor_uid)
        text = dhcp_server.render(segments, account, paths, ipv6=policy.ipv6)
        dhcp_server.apply(system, saved, text, paths)

    key = [lan.interface for lan in config.lan if lan.dhcp] or None
    return Surrounding(
        name="dhcp",
        key=key,
        survey=survey,
        apply=apply,
        restore=lambda saved: _restore_dhcp(system, saved),
        part=_same(key),
    )


def _restore_dhcp(system: System, saved: Any) -> str:
    from onionward.lan import dhcp_server

    return dhcp_server.restore(system, saved)


def _restore_routes(system: System, saved: Any) -> str:
    from onionward import routes

    return routes.restore(system, saved)


def restorers(system: System, paths: Paths) -> Mapping[str, tuple[str, Restore]]:
    """For each name in the journal: what is done, in words, and what does it, in this order."""
    return {
        "dhcp": ("ending the DHCP server", lambda saved: _restore_dhcp(system, saved)),
        "onion": (
            "putting the resolver back",
            lambda saved: _restore_onion(system, saved, paths),
        ),
        "full_dns": ("ending unbound", lambda saved: _restore_full_dns(system, saved)),
        "control": (
            "ending the filter of tor's control port",
            lambda _: _restore_control(system, paths),
        ),
        "masks": (
            "opening services to accounts again",
            lambda saved: _restore_masks(system, saved),
        ),
        "sysctls": (
            "putting kernel settings back",
            lambda saved: _restore_sysctls(system, saved),
        ),
        "ports": (
            "removing the rules for ports of bridges",
            lambda saved: _restore_ports(system, saved),
        ),
        "belt": (
            "removing the routing belt",
            lambda saved: _restore_belt(system, saved),
        ),
        "routes": (
            "removing local routes and addresses",
            lambda saved: _restore_routes(system, saved),
        ),
    }


def recognised(system: System, paths: Paths) -> dict[str, Any]:
    """What an activation without a readable journal may have left."""
    from onionward import belt, routes
    from onionward.config.values import LanConfig
    from onionward.dns import full, onion
    from onionward.lan import bridge_ports, dhcp_server
    from onionward.policy import CIRCUITS6, RELAY4, RELAY6

    virtual = (*Config().virtual, *Config(lan=(LanConfig(),)).virtual)
    networks = [*(str(n) for n in virtual if not n.is_loopback), str(CIRCUITS6)]
    saved = routes.Saved(networks=networks, addresses=[str(RELAY4), str(RELAY6)])
    resolver = onion.recognise(system, onion.environment(system, paths), paths)
    unbound = full.recognise(paths)
    return {
        **({"full_dns": {"key": [], "saved": unbound}} if unbound else {}),
        **({"onion": {"key": 0, "saved": resolver}} if resolver else {}),
        "routes": {"key": [], "saved": saved},
        **(
            {"ports": {"key": [], "saved": bridge_ports.Saved(known=True)}}
            if bridge_ports.recognised(system)
            else {}
        ),
        # what the kernel's setting was, nobody knows any more
        **(
            {"belt": {"key": [], "saved": belt.Saved(rp_filter="")}}
            if belt.recognised(system)
            else {}
        ),
        "control": {"key": [], "saved": {}},
        "dhcp": {"key": [], "saved": dhcp_server.survey(paths)},
    }
