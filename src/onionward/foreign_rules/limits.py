"""Whom rules of other programs would stop, read before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from onionward import backend
from onionward.config.values import Config
from onionward.errors import CommandError
from onionward.facts import Facts
from onionward.foreign_rules import ahead, iptables_save, nft_json
from onionward.foreign_rules.chains import Chain, Packet
from onionward.foreign_rules.walk import Obstacle, obstacles
from onionward.policy import RELAY4, RELAY6
from onionward.system import System, find_tool

_PATIENCE = 5.0  # seconds to read somebody's rules
_TRIES = 4
_LEGACY = {
    "ip": Path("/proc/net/ip_tables_names"),
    "ip6": Path("/proc/net/ip6_tables_names"),
}
# from here on destinations are those that our translation has given (render/nftables/redirect.py)
_AFTER_US = -109


class Traffic(NamedTuple):
    """Packets that must not be stopped.

    Attributes:
        words: who sends them.
        hooks: what they pass, with how the interfaces are called there.
        fields: what is known of them besides.
        advice: what to let through.
        translated: whether only chains after our translation matter.

    """

    words: str
    hooks: Mapping[str, Mapping[str, frozenset[str]]]
    fields: Mapping[str, frozenset[str]]
    advice: str
    translated: bool = False


def limits(system: System, config: Config, facts: Facts) -> tuple[str, ...]:
    """What starves tor, or those who are led to it: each obstacle in words.

    Rules that cannot be read are one.
    """
    # other accounts than root read nothing
    if facts.effective_uid != 0:
        return ()
    try:
        known = read(system)
    except (CommandError, ValueError, KeyError, TypeError) as error:
        return (f"rules of other programs cannot be read, so they may stop tor: {error}",)
    named = Texts(system)
    found: dict[str, None] = {}
    for traffic in traffics(config, facts):
        for obstacle in stopping(known, traffic, facts):
            found[words(traffic, obstacle, named.of(obstacle))] = None
    found |= dict.fromkeys(_translated_before(known, config, facts, named))
    return tuple(found)


def _translated_before(
    known: Sequence[Chain], config: Config, facts: Facts, named: Texts
) -> Iterator[str]:
    """Translations of others that keep ours from leading packets to tor."""
    own = backend.chosen(config).NAME
    for words_of_senders, hook, packet in _led(config, facts):
        for one in ahead.translations(known, packet, hook, own):
            rule = named.of(Obstacle(one.chain, one.rule, certain=False, base=one.base))
            tool = "" if one.chain.tool == "nft" else f" ({one.chain.tool.removesuffix('-save')})"
            before = "is" if one.certain else "may be"
            yield (
                f"what {words_of_senders} {before} given another destination by another program "
                f"before ours can turn it to tor, and is refused then: table {one.chain.family} "
                f"{one.chain.table}, chain {one.chain.name}{tool}, its rule: {rule}; let that rule "
                "leave out what is not this machine's"
            )


def _led(config: Config, facts: Facts) -> Iterator[tuple[str, str, Packet]]:
    """What ours turn to tor as it is before: who sends it, on which hook."""
    first = {
        "ct state": _names(["new"]),
        "ct direction": _names(["original"]),
        "ct status dnat": _names(["no"]),
        "fib daddr type": _names(["unicast"]),
    }
    outward = _names(link.name for link in facts.links)
    if config.host_route == "tor" or any(user.route == "tor" for user in config.user):
        senders = _senders(config, facts)
        sent = {"meta oifname": outward, "meta iifname": _names([""]), "meta skuid": senders}
        first_out = {**first, **sent, "fib saddr type": _names(["local"])}
        for protocol in ("tcp", "udp"):
            yield "programs send", "output", {**first_out, "meta l4proto": _names([protocol])}
    if lans := _names(lan.interface for lan in config.lan):
        arrived = {"meta iifname": lans, "meta oifname": _names([""])}
        for protocol in ("tcp", "udp"):
            packet = {**first, **arrived, "meta l4proto": _names([protocol])}
            yield "clients send", "prerouting", packet


def read(system: System) -> tuple[Chain, ...]:
    """Chains of everybody but us.

    Raises:
        CommandError: nft or an iptables-save failed.
        ValueError: what it printed is not understood; KeyError and TypeError likewise.

    """
    import json

    objects = json.loads(_listed(system))["nftables"]
    extended = nft_json.has_extensions(objects)
    found: list[Chain] = []
    replaced: set[str] = set()
    for family, tool in _savers(extended):
        path = find_tool(tool)
        if path is None:
            continue
        found += iptables_save.chains(system.query([path], timeout=_PATIENCE), tool, family)
        if "legacy" not in tool:
            replaced.add(family)
    for chain in nft_json.chains(objects):
        is_ours = chain.table.startswith("onionward")
        if not is_ours and not (
            chain.family in replaced and (chain.family, chain.table) in extended
        ):
            found.append(chain)
    return tuple(found)


def _listed(system: System) -> str:
    """All rules as JSON, asked for again when nft has crashed.

    nft 1.0.6 does when rules are checked or loaded while it reads (seen: one time in fifteen beside
    `nft --check`, which `check` and `up` run at the same time).
    """
    argv = ["nft", "--json", "--terse", "list", "ruleset"]
    for _ in range(_TRIES - 1):
        try:
            return system.query(argv, timeout=_PATIENCE)
        except CommandError as error:
            if error.status is None or error.status >= 0:
                raise
    return system.query(argv, timeout=_PATIENCE)


def _savers(extended: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Families with tables that only iptables prints, and which of its programs does."""
    for family, name in (("ip", "iptables"), ("ip6", "ip6tables")):
        if any(family == one for one, _ in extended):
            yield family, f"{name}-nft-save"
        try:
            has_legacy = bool(_LEGACY[family].read_text().strip())
        except OSError:
            has_legacy = False
        if has_legacy:
            yield family, f"{name}-legacy-save"


def traffics(config: Config, facts: Facts) -> tuple[Traffic, ...]:
    """What must pass for a configuration to work."""
    outward = _names(link.name for link in facts.links if link.is_uplink) or _names(
        link.name for link in facts.links
    )
    # where there is no interface its name is empty (nft_meta.c, nft_meta_store_ifname)
    nothing = _names([""])
    out = {"meta oifname": outward, "meta iifname": nothing}
    back = {"meta iifname": outward, "meta oifname": nothing}
    lo = _names(["lo"])
    account = config.tor.user
    # an account that does not exist yet will have a number that no rule knows
    uid = _names([str(facts.tor_account.uid) if facts.tor_account else account])
    who = f"account {account}" + (f" ({facts.tor_account.uid})" if facts.tor_account else "")
    tcp = {"meta l4proto": _names(["tcp"])}
    redirected = {
        "ct state": _names(["new"]),
        "ct direction": _names(["original"]),
        "ct status dnat": _names(["yes"]),
        "fib daddr type": _names(["local"]),
    }
    found = [
        Traffic(
            "what tor sends",
            {"output": out, "postrouting": out},
            {
                **tcp,
                "meta skuid": uid,
                "ct state": _names(["new"]),
                "ct direction": _names(["original"]),
                "ct status dnat": _names(["no"]),
                "tcp flags": _names(["syn"]),
                "fib daddr type": _names(["unicast"]),
                "fib saddr type": _names(["local"]),
            },
            f"let TCP of {who} leave there",
        ),
        Traffic(
            "what relays answer to tor",
            {"prerouting": back, "input": back},
            {
                **tcp,
                "ct state": _names(["established"]),
                "ct direction": _names(["reply"]),
                "ct status dnat": _names(["no"]),
                "fib daddr type": _names(["local"]),
                "fib saddr type": _names(["unicast"]),
            },
            "let established connections in there",
        ),
    ]
    ports = [("tcp", config.tor.trans_port), ("udp", config.tor.dns_port)]
    if config.tor.dns == "full":
        ports.append(("udp", config.tor.names_port))
    if config.host_route != "direct" or any(user.route != "direct" for user in config.user):
        for protocol, port in ports:
            # there the device is still the original one; names are asked for on loopback
            original = outward if protocol == "tcp" else lo
            found.append(
                Traffic(
                    "what programs send and our rules turn to tor",
                    {
                        "output": {"meta oifname": original, "meta iifname": nothing},
                        "postrouting": {"meta oifname": lo, "meta iifname": nothing},
                        "prerouting": {"meta iifname": lo, "meta oifname": nothing},
                        "input": {"meta iifname": lo, "meta oifname": nothing},
                    },
                    {
                        **redirected,
                        **_ports(protocol, port),
                        "meta skuid": _senders(config, facts),
                        "ip daddr": _names(["127.0.0.1"]),
                        "ip6 daddr": _names(["::1"]),
                    },
                    "let through there what goes to 127.0.0.1 and ::1, TCP port "
                    f"{config.tor.trans_port} and UDP port {config.tor.dns_port}, whatever the "
                    "interface",
                    translated=True,
                )
            )
    lans = _names(lan.interface for lan in config.lan)
    if lans:
        for protocol, port in ports:
            found.append(
                Traffic(
                    f"what clients behind {', '.join(sorted(lans))} send and our rules turn to tor",
                    {"input": {"meta iifname": lans, "meta oifname": nothing}},
                    {
                        **redirected,
                        **_ports(protocol, port),
                        "ip daddr": _names([str(RELAY4)]),
                        "ip6 daddr": _names([str(RELAY6)]),
                    },
                    f"let in there what goes to {RELAY4} and {RELAY6}, TCP port "
                    f"{config.tor.trans_port} and UDP port {config.tor.dns_port}",
                    translated=True,
                )
            )
    return tuple(found)


def _senders(config: Config, facts: Facts) -> frozenset[str]:
    """Accounts that are led to tor; of a whole machine, two that stand for all."""
    if config.host_route != "direct":
        return _names(["0", "1000"])
    return _names(str(user.account.uid) for user in facts.users) or _names(["1000"])


def _ports(protocol: str, port: int) -> dict[str, frozenset[str]]:
    flags = {"tcp flags": _names(["syn"])} if protocol == "tcp" else {}
    return {
        "meta l4proto": _names([protocol]),
        "th dport": _names([str(port)]),
        f"{protocol} dport": _names([str(port)]),
        **flags,
    }


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


def stopping(chains: Sequence[Chain], traffic: Traffic, facts: Facts) -> tuple[Obstacle, ...]:
    """What stops such packets; over IPv6 alone it counts only where tor can do no other."""
    found: dict[tuple[str, ...], Obstacle] = {}
    reaches_ipv4 = any(a.version == 4 for link in facts.links for a in link.addresses)
    for version, family, protocol in (("4", "ip", "ip"), ("6", "ip6", "ip6")):
        if version == "6" and (reaches_ipv4 and not traffic.translated):
            continue
        if version == "6" and not facts.ipv6:
            continue
        concerned = [chain for chain in chains if chain.family in ("inet", family)]
        for hook, interfaces in traffic.hooks.items():
            packet: Packet = {
                **traffic.fields,
                **interfaces,
                "meta nfproto": _names([f"ipv{version}"]),
                "meta protocol": _names([protocol]),
                "ip protocol": traffic.fields["meta l4proto"],
                "ip6 nexthdr": traffic.fields["meta l4proto"],
            }
            for obstacle in obstacles(concerned, packet, hook):
                if traffic.translated and obstacle.base.priority < _AFTER_US:
                    continue
                chain, rule = obstacle.chain, obstacle.rule
                place = (chain.tool, chain.family, chain.table, chain.name)
                found.setdefault((*place, rule.name if rule else ""), obstacle)
    return tuple(found.values())


def words(traffic: Traffic, obstacle: Obstacle, rule: str) -> str:
    """An obstacle for people.

    Args:
        traffic: whom it stops.
        obstacle: what stops them.
        rule: its text; "" for a policy.

    """
    how = "is stopped" if obstacle.certain else "may be stopped"
    chain = obstacle.chain
    by = f"its rule: {rule}" if rule else "its policy: drop"
    tool = "" if chain.tool == "nft" else f" ({chain.tool.removesuffix('-save')})"
    return (
        f"{traffic.words} {how} by another program's firewall: table {chain.family} {chain.table}, "
        f"chain {chain.name}{tool}, {by}; {traffic.advice}"
    )


class Texts:
    """Texts of rules, asked for only when one has to be named."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._listed: dict[tuple[str, str, str], str] = {}

    def of(self, obstacle: Obstacle) -> str:
        """The text of what has dropped; "" for a policy."""
        if obstacle.rule is None:
            return ""
        if obstacle.chain.tool != "nft":
            return obstacle.rule.name
        chain = obstacle.chain
        key = (chain.family, chain.table, chain.name)
        if key not in self._listed:
            try:
                argv = ["nft", "--handle", "list", "chain", *key]
                self._listed[key] = self._system.query(argv, timeout=_PATIENCE)
            except CommandError:
                self._listed[key] = ""
        return rule_text(self._listed[key], obstacle.rule.name)


def rule_text(listed: str, handle: str) -> str:
    """The rule with a handle in what `nft --handle list chain` has printed, without counts."""
    for line in listed.splitlines():
        text, mark, number = line.rpartition(" # handle ")
        if mark and number == handle:
            return re.sub(r"counter packets \d+ bytes \d+", "counter", text.strip())
    return f"handle {handle}"
