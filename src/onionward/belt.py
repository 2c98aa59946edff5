"""The routing belt: only who may leave finds a way out, even while there are no packet rules.

Policy routing (ip-rule(8)) of a routed host, in its own preference order:

    local ─► tor, bypassed accounts: the machine's own routes
          ─► ports of name resolution: loopback
          ─► bypassed and attached networks, kept peers, runs: the machine's own routes
          ─► everything else: loopback

What is led to loopback without being redirected there ends there. A socket tied to a device looks
for a route of that device alone, and so passes by; so do multicast and packet sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from onionward import iproute2
from onionward.app.root.places import RUNS4, RUNS6
from onionward.networks import NAME_PORTS
from onionward.system import System

if TYPE_CHECKING:
    from onionward.policy import Policy

PROC_SYS = Path("/proc/sys")

_MARK = "94"
"""The protocol (rtnetlink(7), rtm_protocol) of our rules and routes, by which they are known."""
_PREFERENCE = 94
_TO_LOOPBACK, _BUT_LISTED = "9409", "9410"  # tables
_PASSED = str(_PREFERENCE + 3)
_PROTOCOLS = {"ipproto-6": "tcp", "ipproto-17": "udp"}  # as `ip -N` prints them
_STRICT, _LOOSE = "1", "2"
_RP_FILTER = "net/ipv4/conf/all/rp_filter"


class Wanted(TypedDict):
    """What is wanted; JSON in the journal.

    Attributes:
        rules: arguments of `ip rule add`, for "4" and "6".
        routes: tables and destinations that are thrown back to the machine's own routes.

    """

    rules: dict[str, list[str]]
    throws: dict[str, list[str]]


class Saved(TypedDict):
    """How to put things back; JSON in the journal.

    Attributes:
        rp_filter: what `conf.all.rp_filter` was, or "" when it is not changed.

    """

    rp_filter: str


def wanted(policy: Policy) -> Wanted | None:
    """The belt of a policy, or None where there can be none.

    A host that is not routed has other accounts, whose packets nobody may touch; and answers to
    anybody (`inbound = "all"`) need the real routes to anywhere.
    """
    if policy.route != "tor" or policy.inbound == "all":
        return None
    owners = [(policy.tor_uid, policy.tor_uid)]
    owners += [uids for user in policy.direct_users for uids in user.uids]
    rules = [f"pref {_PASSED} nop"]
    rules += [f"pref {_PREFERENCE} uidrange {a}-{b} goto {_PASSED}" for a, b in sorted(owners)]
    rules += [
        f"pref {_PREFERENCE + 1} ipproto {protocol} dport {ports} lookup {_TO_LOOPBACK}"
        for protocol in ("tcp", "udp")
        for ports in _ranges(NAME_PORTS)
    ]
    rules.append(f"pref {_PREFERENCE + 2} lookup {_BUT_LISTED}")
    # where a run's packets come from is looked for without an account (rules of runs, rp_filter)
    runs = (ip_network(RUNS4), ip_network(RUNS6))
    behind = (n for lan in policy.lans for n in lan.networks)
    listed = (*policy.bypass, *policy.link, *behind, *runs)
    throws = {
        str(version): [
            *dict.fromkeys(str(n) for n in listed if n.version == version),
            *dict.fromkeys(str(f.peer) for f in policy.kept if f.peer.version == version),
        ]
        for version in _versions()
    }
    return Wanted(rules=dict.fromkeys(throws, rules), throws=throws)


def _versions(proc_sys: Path = PROC_SYS) -> tuple[int, ...]:
    return (4, 6) if (proc_sys / "net/ipv6").is_dir() else (4,)


def _ranges(ports: Iterable[int]) -> list[str]:
    """Ports, neighbours together."""
    found: list[list[int]] = []
    for port in sorted(ports):
        if found and port == found[-1][-1] + 1:
            found[-1].append(port)
        else:
            found.append([port])
    return [f"{one[0]}-{one[-1]}" if len(one) > 1 else str(one[0]) for one in found]


def survey(earlier: Saved | None = None, *, proc_sys: Path = PROC_SYS) -> Saved:
    """What the kernel setting is that the belt cannot live with.

    Where it asks that answers come in the way that requests would go out (1), it would look for
    that way with no account, and drop what relays answer to tor. "Any way at all" (2) of `all`
    prevails for every interface (ip-sysctl in the kernel's documents).
    """
    if earlier is not None and earlier["rp_filter"]:
        return earlier
    values = {path.parent.name: _read(path) for path in _settings(proc_sys)}
    now = values.get("all", "")
    strict = _STRICT in values.values() and now != _LOOSE
    return Saved(rp_filter=now if strict else "")


def _settings(proc_sys: Path) -> Iterable[Path]:
    return (proc_sys / "net/ipv4/conf").glob("*/rp_filter")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # the interface is gone


def apply(system: System, belt: Wanted, saved: Saved) -> None:
    """Put it in the place of the one that is there.

    Raises:
        CommandError: the kernel does not take it.

    """
    if saved["rp_filter"]:
        system.change(["sysctl", "-q", "-w", f"{_RP_FILTER}={_LOOSE}"])
    for version, rules in belt["rules"].items():
        present = _rules(system, version)
        routes = _routes(system, version)
        named = _destinations(belt["throws"][version])
        # else whoever adds a route by its gateway alone gets one that leads to loopback: the kernel
        # looks for the gateway on the link, and passes over routes that lead further
        scope = " scope link" if version == "4" else ""
        lines = [
            f"route replace default dev lo table {table} proto {_MARK}"
            for table in (_TO_LOOPBACK, _BUT_LISTED)
            if ("default", table) not in routes
        ]
        lines += [
            f"route replace throw {network} table {_BUT_LISTED} proto {_MARK}{scope}"
            for destination, network in named.items()
            if (destination, _BUT_LISTED) not in routes
        ]
        lines += [f"rule add {rule} protocol {_MARK}" for rule in rules if rule not in present]
        lines += [f"rule del {rule} protocol {_MARK}" for rule in present if rule not in rules]
        lines += [
            f"route del throw {destination} table {table} proto {_MARK}"
            for destination, table in sorted(routes)
            if destination != "default" and destination not in named
        ]
        _change(system, version, lines, "routing belt")


def restore(system: System, saved: Saved, *, proc_sys: Path = PROC_SYS) -> str:
    """Remove it; nothing happens to what is gone already."""
    for version in map(str, _versions(proc_sys)):
        lines = [f"rule del {rule} protocol {_MARK}" for rule in _rules(system, version)]
        for destination, table in sorted(_routes(system, version)):
            kind = "default dev lo" if destination == "default" else f"throw {destination}"
            lines.append(f"route del {kind} table {table} proto {_MARK}")
        _change(system, version, lines, "no routing belt")
    before = saved["rp_filter"]
    if before and _read(proc_sys / _RP_FILTER) == _LOOSE:
        system.change(["sysctl", "-q", "-w", f"{_RP_FILTER}={before}"])
    return ""


def problems(system: System, belt: Wanted) -> list[str]:
    """What of it is not there."""
    found = []
    for version, rules in belt["rules"].items():
        routes = _routes(system, version)
        expected = {("default", _TO_LOOPBACK), ("default", _BUT_LISTED)}
        expected |= {(d, _BUT_LISTED) for d in _destinations(belt["throws"][version])}
        if set(_rules(system, version)) != set(rules) or routes != expected:
            found.append(
                f"the routing belt (ip -{version} rule) is gone or changed: the packet rules hold, "
                "but without them traffic would leave in clear"
            )
    return found


def recognised(system: System) -> bool:
    """Whether an activation has left one."""
    return any(
        _rules(system, version) or _routes(system, version) for version in map(str, _versions())
    )


def _change(system: System, version: str, lines: list[str], words: str) -> None:
    if lines:
        text = "\n".join([*lines, ""])
        argv = ["ip", f"-{version}", "-batch", "-"]
        system.change(argv, stdin=text, timeout=60, words=f"ip -{version} -batch -  # {words}")


def _destinations(networks: Iterable[str]) -> dict[str, str]:
    """Networks by the name that ip-route(8) prints."""
    return {_printed(network): network for network in networks}


def _printed(network: str) -> str:
    address, _, length = network.partition("/")
    if length == "0":
        return "default"
    return address if length in ("", "128" if ":" in address else "32") else network


def _rules(system: System, version: str) -> list[str]:
    """Ours, as `ip rule add` takes them."""
    shown = system.query(["ip", "-N", "-j", f"-{version}", "rule", "show"])
    return [_words(rule) for rule in iproute2.entries(shown) if str(rule.get("protocol")) == _MARK]


def _words(rule: dict[str, Any]) -> str:
    words = [f"pref {rule['priority']}"]
    if "uid_start" in rule:
        words.append(f"uidrange {rule['uid_start']}-{rule['uid_end']}")
    if "ipproto" in rule:
        words.append(f"ipproto {_PROTOCOLS.get(rule['ipproto'], rule['ipproto'])}")
    if "dport" in rule:
        words.append(f"dport {rule['dport']}")
    if "dport_start" in rule:
        words.append(f"dport {rule['dport_start']}-{rule['dport_end']}")
    if "goto" in rule:
        words.append(f"goto {rule['goto']}")
    elif "nop" in rule:
        words.append("nop")
    else:
        words.append(f"lookup {rule.get('table')}")
    return " ".join(words)


def _routes(system: System, version: str) -> set[tuple[str, str]]:
    """Ours: destination and table."""
    found = set()
    for table in (_TO_LOOPBACK, _BUT_LISTED):
        # a table without a route is unknown to the kernel (status 2)
        argv = ["ip", "-N", "-j", f"-{version}", "route", "show", "table", table, "proto", _MARK]
        shown = system.query(argv, accept=(0, 2)).strip()
        if len(shown) > 1:
            found |= {(route["dst"], table) for route in iproute2.entries(shown)}
    return found
