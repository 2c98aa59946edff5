"""Start the lab's Tor network, and make its first consensus as early as tor permits.

Authorities vote at fixed times of the day. A network that waits for the next such time waits
half a minute; here the time is set to *now* as soon as every authority has every descriptor.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onionward.errors import CommandError, LabError
from onionward.lab import answering, render, services, topology
from onionward.lab.control import Control
from onionward.lab.host import Host
from onionward.lab.keys import authority_keys
from onionward.lab.topology import TorNetwork
from onionward.system import System

_POLL = 0.03
_TIMEOUT = 40.0
_ONION = "onion"
_DATA = PurePosixPath("/run/onionward-lab")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where the tor processes run.

    Args:
        system: the seam.
        host: `internet`, furnished.
        network: how many of each.

    """

    system: System
    host: Host
    network: TorNetwork

    def path(self, name: str, *parts: str) -> Path:
        """A file of the tor with this name, as seen from outside."""
        return self.host.root.joinpath(str(_DATA).removeprefix("/"), name, *parts)

    def ask(self, name: str, command: str) -> str:
        """Ask a tor over its control socket."""
        with Control(self.path(name, "control")) as control:
            return control.ask(command)

    def start(self, name: str, torrc: str, keys: Path | None = None) -> None:
        """Start a tor; returns when it has gone to the background with its ports open."""
        data = self.path(name)
        data.mkdir(mode=0o700, parents=True)
        if keys:
            secret = shutil.ignore_patterns("authority_identity_key", "fingerprint")
            shutil.copytree(keys, data / "keys", ignore=secret)
        (data / "torrc").write_text(torrc)
        empty = ("--defaults-torrc", f"{_DATA}/empty.torrc")
        argv = self.host.command(["tor", *empty, "-f", f"{_DATA}/{name}/torrc", "--hush"])
        try:
            self.system.change(argv, timeout=_TIMEOUT)
        except CommandError as error:
            raise LabError(f"{name} does not start: {error}\n{self.complaints(name)}") from error

    def complaints(self, name: str) -> str:
        """The last warnings in the log of a tor."""
        try:
            lines = self.path(name, "log").read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join([line for line in lines if "[notice]" not in line][-5:])

    def wait(self, names: Iterable[str], reached: Callable[[Control], bool], what: str) -> None:
        """Wait until every one of the tors has reached something.

        Raises:
            LabError: one has not in time.

        """
        deadline = time.monotonic() + _TIMEOUT
        for name in names:
            with Control(self.path(name, "control")) as control:
                while not reached(control):
                    if time.monotonic() > deadline:
                        raise LabError(f"{name}: no {what} in time\n{self.complaints(name)}")
                    time.sleep(_POLL)


def start_relays(site: Site, pool: ThreadPoolExecutor, progress: Progress) -> str:
    """Start authorities and relays and call the first vote; returns the lines for clients.

    Raises:
        LabError: a tor does not start or publish its descriptor.
        CommandError: no keys.

    """
    relays = list(site.network.relays())
    authorities = [relay for relay in relays if relay.role == "authority"]
    keys = dict(zip(authorities, authority_keys(site.system, len(authorities)), strict=True))
    torrc = render.network_torrc([(relay, keys[relay][0]) for relay in authorities])
    progress("keys of the authorities")
    site.path("").mkdir(exist_ok=True)
    site.path("empty.torrc").touch()
    site.path("resolv.conf").write_text(render.resolv_conf())
    # far enough away for the descriptors to be there; `_call_vote` moves it
    first_vote = int(time.time()) + render.VOTING_INTERVAL // 2
    started = []
    for relay in relays:
        text = render.relay_torrc(relay, torrc, _DATA / relay.nickname, first_vote)
        directory = keys[relay][1] if relay in keys else None
        started.append(pool.submit(site.start, relay.nickname, text, directory))
    _finish(started)
    progress("relays started")
    for relay in relays:
        # a changed descriptor is published at once, the first one when tor gets round to it
        site.ask(relay.nickname, "SETCONF ContactInfo=lab@example.test")
    count = len(relays)
    names = [relay.nickname for relay in authorities]
    site.wait(names, lambda tor: _descriptors(tor) == count, "descriptor of every relay")
    progress("descriptors published")
    _call_vote(site, names)
    return torrc


def _descriptors(authority: Control) -> int:
    found = authority.ask("GETINFO desc/all-recent").splitlines()
    return sum(line.startswith("router ") for line in found)


def _call_vote(site: Site, authorities: Sequence[str]) -> None:
    while True:
        valid_after = render.first_consensus_at(time.time())
        for name in authorities:
            offset = render.voting_offset(valid_after)
            site.ask(name, f"SETCONF TestingV3AuthVotingStartOffset={offset}")
        # an authority told after the vote has begun would miss it
        if time.time() < valid_after - render.INITIAL_VOTE_DELAY - render.INITIAL_DIST_DELAY:
            return


def start_services(site: Site) -> None:
    """Start the web server, echo services and DNS of the internet."""
    wanted = ["http=127.0.0.1=80"]
    for address in (topology.WEB4, topology.WEB6):
        wanted += [f"http={address}=80", f"ticker={address}={topology.TICKER_PORT}"]
        wanted += [f"echo={address}={port}" for port in topology.TCP_ECHO_PORTS]
        wanted += [f"udp={address}={port}" for port in topology.UDP_ECHO_PORTS]
    python = [sys.executable, "-I", "-S", services.__file__]
    site.system.change(site.host.command([*python, *wanted]))
    site.path("dnsmasq.conf").write_text(render.dnsmasq_conf(_DATA))
    site.system.change(site.host.command(["dnsmasq", f"--conf-file={_DATA}/dnsmasq.conf"]))


def start_onion_services(site: Site, torrc: str) -> tuple[str, ...]:
    """Start the tor of the onion services, offline; returns their host names."""
    count = site.network.onion_services
    if not count:
        return ()
    site.start(_ONION, render.onion_torrc(torrc, _DATA / _ONION, site.network))
    names = [site.path(_ONION, f"service{n}", "hostname") for n in range(1, count + 1)]
    # tor goes to the background before it has written them, when the machine is busy
    deadline = time.monotonic() + _TIMEOUT
    while not all(name.exists() and name.read_text().strip() for name in names):
        if time.monotonic() > deadline:
            raise LabError("the tor of the onion services does not write their names")
        time.sleep(_POLL)
    return tuple(name.read_text().strip() for name in names)


def wait_until_usable(site: Site, onions: Sequence[str], progress: Progress) -> None:
    """Wait for the consensus, the relays, circuits, and the onion services.

    Raises:
        LabError: something does not come up; the message has tor's own words.

    """
    names = [relay.nickname for relay in site.network.relays()]
    authorities = [name for name in names if name.startswith("authority")]
    site.wait(authorities, _has_consensus, "consensus")
    for name in names:
        if name not in authorities:
            site.ask(name, "SETCONF FetchServerDescriptors=1")
    progress("consensus")
    with ExitStack() as stack:
        if onions:
            onion = stack.enter_context(Control(site.path(_ONION, "control"), timeout=_TIMEOUT))
            onion.ask("SETEVENTS HS_DESC STATUS_CLIENT")
            onion.ask("SETCONF DisableNetwork=0")
        # a client that asks a relay too early for microdescriptors asks again ten seconds later
        count = len(names)
        site.wait(names, lambda tor: _microdescriptors(tor) == count, "microdescriptors")
        progress("relays ready")
        if onions:
            _wait_until_published(onion, onions, progress)
            progress("onion services published")
    site.wait(names, _has_bootstrapped, "bootstrap")
    answering.check(names, lambda name: Control(site.path(name, "control")))


def _has_consensus(tor: Control) -> bool:
    return tor.ask("GETINFO consensus/valid-after").count("-") > 1


def _microdescriptors(tor: Control) -> int:
    lines = tor.ask("GETINFO md/all").splitlines()
    return lines.count("onion-key")


def _has_bootstrapped(tor: Control) -> bool:
    return "PROGRESS=100 " in tor.ask("GETINFO status/bootstrap-phase")


def _wait_until_published(tor: Control, onions: Sequence[str], progress: Progress) -> None:
    missing = {onion.removesuffix(".onion") for onion in onions}
    for event in tor.events():
        words = event.split()
        if words[2:3] == ["CIRCUIT_ESTABLISHED"]:
            progress("circuits")
        if words[:2] == ["HS_DESC", "UPLOADED"]:
            missing.discard(words[2])
        if not missing:
            return


def _finish(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()
