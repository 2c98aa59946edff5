"""What of this machine decides who manages resolv.conf: the one reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from onionward.dns import file
from onionward.dns.host import networkmanager, resolved, writers
from onionward.dns.host.detect import PROGRAMS, Environment, Flavour
from onionward.dns.host.detect import NetworkManager as Settings
from onionward.dns.onion.facts import programs, target_of, text_of
from onionward.paths import PATHS, Paths
from onionward.system import System, find_tool

_IPV6_OFF = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


def environment(system: System, paths: Paths = PATHS) -> Environment:
    """Read it; while ours is there, what is said is about the original that waits."""
    path = paths.resolv_conf
    waiting = file.waiting_name(path)
    looked_at = waiting if waiting.is_symlink() or waiting.exists() else path
    mounted = file.is_mounted(path)
    looked_at = path if mounted else looked_at
    regular = looked_at.is_file() and not looked_at.is_symlink()
    found = programs(PROGRAMS.values())
    settings = Settings()
    if PROGRAMS["networkmanager"] in found:
        settings = networkmanager.settings()
    return Environment(
        resolv_conf=text_of(looked_at),
        kind=_kind(looked_at),
        target=target_of(looked_at),
        mounted=mounted,
        immutable=regular and system.is_immutable(looked_at),
        fixed=file.fixed(system, path),
        programs=found,
        resolvconf=_flavour(),
        openresolv=writers.openresolv_writes(_openresolv_text()),
        network_manager=settings,
        dhclient=writers.hears_of_hooks(),
        missing=tuple(tool for tool in resolved.TOOLS if find_tool(tool) is None),
        ipv6=text_of(_IPV6_OFF).strip() == "0",
    )


def _kind(path: Path) -> Literal["file", "link", "absent", "other"]:
    if path.is_symlink():
        return "link"
    if path.is_file():
        return "file"
    return "other" if path.exists() else "absent"


def _openresolv_text() -> str:
    """Openresolv's configuration without what `apply` may have added to it."""
    waiting = file.waiting_name(writers.OPENRESOLV)
    text = text_of(waiting) or text_of(writers.OPENRESOLV)
    return text.partition(writers.OPENRESOLV_MARK)[0]


def _flavour() -> Flavour:
    """Whose resolvconf(8) is; systemd has one, too, which is resolvectl."""
    found = find_tool("resolvconf")
    if found is None:
        return ""
    if os.path.realpath(found).endswith("/resolvectl"):
        return "systemd"
    head = Path(found).read_text(errors="replace")[:4000]
    return "openresolv" if "OPENRESOLV" in head.upper() or "Roy Marples" in head else "debian"
