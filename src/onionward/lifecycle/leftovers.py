"""What an activation without a journal has left: found by what it looks like, removed by `down`."""

from __future__ import annotations

from onionward import backend, routes
from onionward.confirmation import process as confirm_process
from onionward.dns import host as resolver
from onionward.guard import process as guard
from onionward.lan import dhcp_server
from onionward.lifecycle import surroundings
from onionward.paths import Paths
from onionward.system import System, temporary_name
from onionward.tor import control_filter
from onionward.tor import process as tor_process


def of_nobody(system: System, paths: Paths) -> tuple[str, ...]:
    """What is there of onionward's on a machine without a journal, in words."""
    found = []
    if backend.present(system):
        found.append("packet rules (tables of onionward)")
    found += [f"a tor (process {pid})" for pid in tor_process.running(paths)]
    if (left := resolver.recognise(paths)) is not None:
        lost = resolver.lost_original(paths)
        found += [
            f"{path} or what waits for it"
            for path in resolver.traces(left, paths)
            if not (lost and path == paths.resolv_conf)
        ]
    found += [f"a filter of tor's control port ({pid})" for pid in control_filter.running(paths)]
    if dhcp_server.running(dhcp_server.config_path(paths)):
        found.append("a DHCP server")
    found += [f"a guard (process {pid})" for pid in guard.running(paths)]
    found += [f"a process of --confirm ({pid})" for pid in confirm_process.running(paths)]
    recognised = surroundings.recognised(system, paths)
    if "full_dns" in recognised:
        found.append("an unbound for full DNS")
    if "onion" in recognised:
        found.append("names under .onion led to tor by the resolver")
    if "ports" in recognised:
        found.append("packet rules for ports of bridges")
    if "belt" in recognised:
        found.append("a routing belt (ip rule)")
    found += [f"local route or address {place}" for place in _places(system, recognised)]
    for path in (paths.applied, temporary_name(paths.applied), temporary_name(paths.journal)):
        if path.exists():
            found.append(str(path))
    return tuple(found)


def _places(system: System, recognised: dict[str, dict[str, routes.Saved]]) -> list[str]:
    saved = recognised["routes"]["saved"]
    absent = set(routes.missing(system, saved))
    return [p for p in (*saved["networks"], *saved["addresses"]) if p not in absent]
