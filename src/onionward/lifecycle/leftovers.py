"""What an activation without a journal has left: found by what it looks like, removed by `down`."""

from __future__ import annotations

from onionward import routes
from onionward.backend import nftables as backend
from onionward.confirmation import process as confirm_process
from onionward.dns import file as resolver
from onionward.lan import dhcp_server
from onionward.lifecycle import surroundings
from onionward.paths import Paths
from onionward.render.resolver import resolv_conf
from onionward.system import System, temporary_name
from onionward.tor import control_filter
from onionward.tor import process as tor_process


def of_nobody(system: System, paths: Paths) -> tuple[str, ...]:
    """What is there of onionward's on a machine without a journal, in words."""
    found = []
    if backend.any_table(system):
        found.append("packet rules (tables of onionward)")
    found += [f"a tor (process {pid})" for pid in tor_process.running(paths)]
    if resolver.recognise(paths.resolv_conf, resolv_conf()) is not None:
        found.append(f"{paths.resolv_conf} or its waiting original")
    found += [f"a filter of tor's control port ({pid})" for pid in control_filter.running(paths)]
    if dhcp_server.running(dhcp_server.config_path(paths)):
        found.append("a DHCP server")
    found += [f"a process of --confirm ({pid})" for pid in confirm_process.running(paths)]
    recognised = surroundings.recognised(system, paths)
    if "onion" in recognised:
        found.append("names under .onion led to tor by the resolver")
    found += [f"local route or address {place}" for place in _places(system, recognised)]
    for path in (paths.applied, temporary_name(paths.applied), temporary_name(paths.journal)):
        if path.exists():
            found.append(str(path))
    return tuple(found)


def _places(system: System, recognised: dict[str, dict[str, routes.Saved]]) -> list[str]:
    saved = recognised["routes"]["saved"]
    absent = set(routes.missing(system, saved))
    return [p for p in (*saved["networks"], *saved["addresses"]) if p not in absent]
