"""What `status` finds wrong besides the rules: helpers, services, interfaces of clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onionward import state
from onionward.paths import Paths
from onionward.system import System
from onionward.tables import is_of_run

_DEVICES = Path("/proc/self/net/dev")
_INTERFACES = Path("/sys/class/net")


def of_surroundings(system: System, paths: Paths, journal: state.Journal) -> list[str]:
    """What is wrong with helpers and services, each with what to do."""
    found: list[str] = []
    if (saved := journal.undo.get("onion")) is not None:
        from onionward.dns import onion

        found += onion.problems(system, saved["saved"], paths)
    if (saved := journal.undo.get("full_dns")) is not None:
        from onionward.dns import full

        found += filter(None, [full.problem(saved["saved"])])
    if (noted := journal.undo.get("masks")) is not None:
        found += _open_services(noted["key"])
    if (noted := journal.undo.get("belt")) is not None:
        from onionward import belt

        found += belt.problems(system, noted["key"])
    if "dhcp" in journal.undo:
        from onionward.lan import dhcp_server

        if not dhcp_server.running(dhcp_server.config_path(paths)):
            found.append("the DHCP server has ended: clients get no addresses")
    if "control" in journal.undo:
        from onionward.tor import control_filter

        if not control_filter.running(paths):
            found.append("the filter of tor's control port has ended")
    return [f"{words}; `onionward up` puts it right" for words in found]


def _open_services(accepted: list[tuple[int, list[str]]]) -> list[str]:
    """Services that act for routed accounts and are (again) open to them."""
    import pwd

    from onionward import accounts, exposure, masks

    names = {uid: pwd.getpwuid(uid).pw_name for uid, _ in accepted}
    users = [(accounts.find_user(names[uid]), tuple(accept)) for uid, accept in accepted]
    known = [(user, accept) for user, accept in users if user is not None]
    return list(masks.open_places(exposure.look(), known))


def stopped_at_bridges(system: System, journal: state.Journal) -> frozenset[str]:
    """Interfaces of a LAN whose clients no bridge carries, should they become its ports."""
    reach = journal.undo.get("rules", {})
    lans = frozenset(reach.get("lans", ()))
    if "ports" not in journal.undo or not lans:
        return frozenset()
    from onionward.lan import bridge_ports

    return bridge_ports.covered(system, lans)


def of_ports(reach: Mapping[str, Any], stopped: frozenset[str]) -> Iterator[str]:
    """Interfaces of clients that have become ports of another."""
    for name in reach.get("lans", ()):
        master = _master(name)
        if not master:
            continue
        remedy = f"take it out of {master}, or name {master} in the configuration"
        if _is_stopped(reach, name, master, stopped):
            yield f"{name} has become a port of {master}: its clients are blocked; {remedy}"
        else:
            yield (
                f"IN CLEAR: {name} has become a port of {master}, and what its clients send "
                f"arrives there; {remedy}"
            )


def of_lost_ports(
    reach: Mapping[str, Any], journal: state.Journal, stopped: frozenset[str]
) -> Iterator[str]:
    """Rules for ports of bridges that are gone."""
    if not journal.undo.get("ports", {}).get("saved", {}).get("known"):
        return
    if lost := sorted(set(reach.get("lans", ())) - stopped):
        yield (
            f"the rules that keep clients behind {', '.join(lost)} from bridges are gone; "
            "`onionward up` puts them back"
        )


def _is_stopped(reach: Mapping[str, Any], name: str, master: str, stopped: frozenset[str]) -> bool:
    # a routed host forwards nothing, wherever it comes from; a bond's ports have no hook
    at_bridge = name in stopped and (_INTERFACES / master / "bridge").exists()
    return bool(reach.get("host", True)) or at_bridge


def forwarded(reach: Mapping[str, Any], now: str, stopped: frozenset[str]) -> dict[str, str]:
    """What becomes of what comes from behind interfaces (sysfs-class-net, bridge)."""
    if now == "open":
        return {}
    lans = reach.get("lans", [])
    bridges = [path.parent.name for path in _INTERFACES.glob("*/bridge")]
    others = "blocked" if reach.get("host", True) else "untouched"
    found = dict.fromkeys(sorted(bridges), others)
    for name in lans:
        master = _master(name)
        present = now
        if master:
            held = "blocked" if _is_stopped(reach, name, master, stopped) else "NOT COVERED"
            present = f"{held}: a port of {master}"
        found[name] = present if (_INTERFACES / name).exists() else "absent"
    return found


def _master(interface: str) -> str:
    """The bridge, bond or VRF that an interface is a port of; "" when it is none."""
    place = _INTERFACES / interface / "master"
    return place.readlink().name if place.is_symlink() else ""


def unwatched(watched: tuple[str, ...]) -> list[str]:
    """Interfaces that have appeared since the rules were loaded (proc_pid_net(5), dev)."""
    lines = _DEVICES.read_text(errors="backslashreplace").splitlines()
    present = {line.split(":")[0].strip() for line in lines if ":" in line}
    return sorted(n for n in present - {"lo"} - set(watched) if not is_of_run(n))
