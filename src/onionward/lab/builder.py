"""Build, find and remove a lab."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from onionward.errors import LabError, RefusedError
from onionward.lab import host as hosts
from onionward.lab import machines, render
from onionward.lab.answering import SilentRelayError
from onionward.lab.lab import FILE_NAME, Lab
from onionward.lab.network import (
    Site,
    start_onion_services,
    start_relays,
    start_services,
    wait_until_usable,
)
from onionward.lab.topology import TorNetwork
from onionward.system import System, find_tool

ROOT = Path("/run/onionward-lab")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_ATTEMPTS = 3
_PACKAGES = {
    "tor": "tor",
    "tor-gencert": "tor",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "sysctl": "procps",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "runuser": "util-linux",
}

Progress = Callable[[str], None]


def build(
    system: System,
    *,
    name: str = "lab",
    progress: Progress | None = None,
    network: TorNetwork | None = None,
) -> Lab:
    """Build a lab; returns when clients can build circuits and reach the onion services.

    Whatever ends it early, Ctrl-C included, everything made so far is removed. After SIGKILL,
    `destroy` does that.

    Args:
        system: the seam.
        name: tells labs on one machine apart.
        progress: is told what has been reached.
        network: how many relays and onion services.

    Raises:
        LabError: not root, a tool is missing, the name is taken, or Tor does not come up.
        CommandError: a command failed.

    """
    directory = _directory(name)
    if Path(render.NETWORK_TORRC).exists():
        raise RefusedError(
            "this is a machine of a lab already, and none is built inside it; nothing was touched",
            "leave it (exit), then: onionward lab up",
        )
    _check_machine()
    try:
        system.make_directory(ROOT)
        directory.mkdir()
    except FileExistsError as error:
        raise LabError(
            f"there is a lab named {name!r} already",
            f"Use it, or remove it: onionward lab down --name {name}.",
        ) from error
    tell = progress or (lambda _: None)
    try:
        for _ in range(_ATTEMPTS - 1):
            try:
                return _build(system, directory, network or TorNetwork(), tell)
            except SilentRelayError as error:
                tell(f"{error.message}: once more")
                hosts.stop(system, directory)
                system.remove_tree(directory)
                directory.mkdir()
        return _build(system, directory, network or TorNetwork(), tell)
    except BaseException:
        destroy(system, name)
        raise


def find(name: str = "lab") -> Lab:
    """The lab that was built under this name.

    Raises:
        LabError: there is none, it is not complete, or its processes are gone.

    """
    directory = _directory(name)
    try:
        text = (directory / FILE_NAME).read_text()
    except OSError as error:
        if directory.exists():
            raise LabError(
                f"the lab named {name!r} is not complete",
                f"Wait until it is built, or remove it: onionward lab down --name {name}.",
            ) from error
        raise LabError(
            f"there is no lab named {name!r}", f"Build it: onionward lab up --name {name}."
        ) from error
    lab = Lab.from_json(text)
    alive = hosts.processes(directory)
    if gone := [host.name for host in lab.hosts.values() if host.pid not in alive]:
        raise LabError(
            f"hosts of the lab named {name!r} have ended: {', '.join(gone)}",
            f"Remove it: onionward lab down --name {name}; then build it again.",
        )
    return lab


def destroy(system: System, name: str = "lab") -> None:
    """Remove a lab, complete or not; nothing happens when there is none.

    Raises:
        LabError: not root, or a process does not end.

    """
    directory = _directory(name)
    _check_root()
    hosts.stop(system, directory)
    system.remove_tree(directory)
    if ROOT.exists() and not any(ROOT.iterdir()):
        ROOT.rmdir()


def _directory(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"not a name for a lab: {name!r}", "Use up to 32 of a-z, 0-9 and '-', no '-' first."
        )
    return ROOT / name


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("a lab is made of namespaces, which need root", "Run it with sudo.")


def _check_machine() -> None:
    _check_root()
    missing = [tool for tool in _PACKAGES if find_tool(tool) is None]
    if missing:
        packages = sorted({_PACKAGES[tool] for tool in missing})
        raise LabError(
            f"a lab needs {', '.join(missing)}", f"On Debian: apt install {' '.join(packages)}"
        )


def _build(system: System, directory: Path, network: TorNetwork, progress: Progress) -> Lab:
    internet = hosts.start(directory, "internet")
    machines.set_up_internet(system, internet, network)
    progress("internet")
    site = Site(system, internet, network)
    pool = ThreadPoolExecutor(max_workers=len(list(network.relays())))
    try:
        torrc = start_relays(site, pool, progress)
        # the vote takes four seconds; meanwhile, the rest
        start_services(site)
        onions = start_onion_services(site, torrc)
        made = machines.build(system, pool, directory, internet, torrc)
        system.write_file(directory / "network.torrc", torrc)
        progress("services and hosts")
        wait_until_usable(site, onions, progress)
    finally:
        pool.shutdown(cancel_futures=True)
    relays = list(network.relays())
    lab = Lab(
        name=directory.name,
        directory=directory,
        hosts={"internet": internet, **made},
        onions=onions,
        relays=tuple(endpoint for relay in relays for endpoint in relay.endpoints),
        exits=tuple(
            address
            for relay in relays
            if relay.role == "exit"
            for address in (relay.address4, relay.address6)
            if address
        ),
    )
    system.write_file(directory / FILE_NAME, lab.to_json())
    progress("ready")
    return lab
