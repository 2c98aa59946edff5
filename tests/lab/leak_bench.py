"""Vectors on a bench: a machine of the lab tries to leak, the witness on the wire tells.

    internet ── host0 (witness, frames from the wire) ── eth0 host (vectors)
        └ peer at web4 and web6

or, with a gateway in between,

    internet ── gateway0 (witness, frames from the wire) ── eth0 gateway eth1 ── client1 (vectors)
                                                                  lan0 (witness of the LAN)
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from onionward.facts import cgroup_mount
from onionward.lab import Host, Lab, topology
from onionward.lab.targets import targets
from onionward.leaks.model import (
    FIRST_NUMBER,
    Account,
    Needs,
    Place,
    Scope,
    Sight,
    Targets,
    Vector,
)
from onionward.leaks.scopes import applies
from onionward.leaks.themes.flows import NOBODY4
from onionward.leaks.vectors import CATALOGUE
from onionward.leaks.wire import Capture, Exempt, Witness
from tests.lab.leak_processes import Peer, Running
from tests.lab.leak_trial import Trace, Trial
from tests.report import SWEEP, chance

_PROBE = ("python", "-m", "onionward.leaks.probe")
_SECONDS = 120.0
_SETTLE_SECONDS = 1.2  # the first repetition of a SYN comes after one second
# the packet filter that everything is tried with, "" for nft
BACKEND = os.environ.get("ONIONWARD_TEST_BACKEND", "")


@dataclasses.dataclass(frozen=True)
class Seat:
    """Who tries vectors, and where.

    Args:
        protected: the machine that `onionward` runs on.
        sender: the one that tries; its gateway is `protected` when it is another.
        account: who the ordinary account is there.
        other: one that is not routed when that one is.
        owner: an account that owns the sockets of vectors that need root's rights; "" for root.

    """

    protected: str = "host"
    sender: str = "host"
    account: str = "nobody"
    other: str = "nobody"
    owner: str = ""


class Bench:
    """Runs vectors in a lab.

    Args:
        lab: a built lab.
        directory: for capture files.
        seat: who tries, and where.
        backend: the packet filter, "" for what the configuration has when it does not say.

    """

    _CONFIG = "/run/onionward-lab/leaks.toml"

    def __init__(
        self, lab: Lab, directory: Path, seat: Seat = Seat(), backend: str = BACKEND
    ) -> None:
        self.lab = lab
        self.backend = backend
        self.seat = seat
        self.host = lab.hosts[seat.protected]
        self.sender = lab.hosts[seat.sender]
        self.internet = lab.hosts["internet"]
        self.aims = self._aims()
        self.exempt = Exempt(relays=lab.relays, networks6=("2001:db8::/64",))
        self.witnesses = {
            Sight.UPLINK: self._witness(directory / "uplink", self.aims[Place.WIRE].far_device),
            Sight.LAN: self._witness(directory / "lan", lab.lan_link),
        }
        self.configure()
        self.peers = (
            Peer(lab, self.targets, "internet", lab.web4, lab.web6),
            Peer(lab, self.targets, "neighbour", lab.neighbour4, lab.neighbour6),
        )
        self.run("ip", "route", "replace", "blackhole", NOBODY4, host=self.internet)
        # what came of what was served inside the host, when last tried
        self.served: dict[str, str] = {}

    def sit(self, *, account: str, owner: str, sender: str = "") -> None:
        """From now on another account tries, perhaps on another machine."""
        sender = sender or self.seat.sender
        self.seat = dataclasses.replace(self.seat, account=account, owner=owner, sender=sender)
        self.sender = self.lab.hosts[sender]
        self.aims = self._aims()
        # the same ports: one that is half closed would give its way to the other account's SYN
        for family in ("ipv4", "ipv6"):
            argv = ("conntrack", "-D", "-f", family, "-p", "tcp", "--dst-nat")
            done = subprocess.run(self.host.command(argv), capture_output=True, check=False)
            assert done.returncode in (0, 1)  # 1: there are none

    def _aims(self) -> dict[Place, Targets]:
        return {
            Place.HOST: self._aim(self.seat.sender),
            Place.WIRE: self._aim(self.seat.protected),
        }

    def _aim(self, name: str) -> Targets:
        bob = next(a for a in topology.ACCOUNTS if a.subordinate is not None)
        return dataclasses.replace(
            targets(self.lab, name),
            user_account=self.seat.account,
            other_account=self.seat.other,
            subordinate=(bob.subordinate or 0) + 123,
        )

    def _witness(self, directory: Path, device: str) -> Witness:
        directory.mkdir()
        return Witness(device, directory, namespace=self.internet.pid)

    @property
    def targets(self) -> Targets:
        """Where the sender aims."""
        return self.aims[Place.HOST]

    @property
    def witness(self) -> Witness:
        """The one on the uplink."""
        return self.witnesses[Sight.UPLINK]

    def end(self) -> None:
        """Leave the lab as it was."""
        self.onionward("down")
        for peer in self.peers:
            peer.end()
        self.run("ip", "route", "delete", "blackhole", NOBODY4, host=self.internet)

    def configure(self, text: str = "", *, tor: str = "", network: str = "") -> None:
        """Write the configuration that `onionward` is run with.

        Args:
            text: what comes before the lab's Tor network: keys, tables.
            tor: further keys of [tor].
            network: a file of torrc lines inside the host; "" for the lab's.

        """
        base = (self.host.root / "etc/onionward/onionward.toml").read_text()
        if network:
            base = f'[tor]\nnetwork = "{network}"\n'
        if self.backend:
            text += f'\n[firewall]\nbackend = "{self.backend}"\n'
        (self.host.root / self._CONFIG.lstrip("/")).write_text(f"{text}\n{base}\n{tor}")

    def program(self, *arguments: str) -> list[str]:
        """The program with its configuration, for a shell of the host."""
        return ["onionward", "--config", self._CONFIG, *arguments]

    def onionward_command(self, *arguments: str) -> list[str]:
        """What runs the program inside the host, and has it tell what it does."""
        name, *rest = self.program(*arguments)
        return self.host.command([name, "--verbose", *rest])

    def onionward(self, *arguments: str, succeeds: bool = True) -> Trace:
        """Run the program inside the host."""
        argv = self.onionward_command(*arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
        words = done.stderr + done.stdout
        assert not succeeds or done.returncode == 0, words
        return Trace(done.returncode, words)

    def run(self, *argv: str, host: Host | None = None, user: str | None = None) -> str:
        """Run a command inside the host."""
        done = subprocess.run(
            (host or self.host).command(argv, user=user),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def status(self, *argv: str, user: str) -> int:
        """Exit status of a command of an account of the host."""
        command = self.host.command(argv, user=user)
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode

    def try_vectors(self, names: Iterable[str], label: str) -> Trial:
        """Try vectors that need no preparation, watched."""
        self._free_ports()
        outcomes: dict[str, str] = {}
        begun = time.monotonic()
        with self._watch(names, label) as captures:
            for group in _groups(names):
                if CATALOGUE[group[0]].place is Place.WIRE:
                    outcomes |= self._from_wire(group)
                else:
                    running = self._start(group)
                    outcomes |= running.finish()
            time.sleep(_SETTLE_SECONDS)
        took = time.monotonic() - begun
        return Trial(captures, self.aims, self.exempt, outcomes, seconds=took)

    def try_control(self, names: Sequence[str], label: str) -> Trial:
        """Try vectors that the witness must see; those it has not seen are tried once more."""
        trial = self.try_vectors(names, label)
        missed = [name for name in names if not trial.seen(name)]
        if not missed:
            return trial
        return dataclasses.replace(trial, again=self.try_vectors(missed, f"{label}-again"))

    @contextlib.contextmanager
    def _watch(self, names: Iterable[str], label: str) -> Iterator[dict[Sight, Capture]]:
        """Every witness that is needed; the uplink's always."""
        wanted = {Sight.UPLINK, *(CATALOGUE[name].sight for name in names)}
        with contextlib.ExitStack() as stack:
            yield {
                sight: stack.enter_context(witness.watch(label))
                for sight, witness in self.witnesses.items()
                if sight in wanted
            }

    def try_prepared(self, names: Iterable[str], label: str, between: Callable[[], float]) -> Trial:
        """Prepare, let something happen, provoke; watched.

        Args:
            names: vectors whose probes prepare.
            label: for the capture file.
            between: what happens; it returns the moment from which packets count.

        """
        self._free_ports()
        outcomes: dict[str, str] = {}
        begun = time.monotonic()
        with contextlib.ExitStack() as stack:
            captures = stack.enter_context(self._watch(names, label))
            running: list[Running] = []
            for group in _groups(names):
                if CATALOGUE[group[0]].place is Place.WIRE:
                    running.append(self._start(group, serve=True))
                    stack.callback(running[-1].kill)
                    running[-1].wait_until_prepared()
                running.append(self._start(group))
                stack.callback(running[-1].kill)
                running[-1].wait_until_prepared()
            since = between()
            for peer in self.peers:
                peer.go()
            for probe in running:
                outcomes |= probe.finish()
        took = time.monotonic() - begun
        return Trial(captures, self.aims, self.exempt, outcomes, since, took)

    def _free_ports(self) -> None:
        """End what earlier trials left on the same ports, orphans and TIME_WAIT included."""
        first, beyond = FIRST_NUMBER, FIRST_NUMBER + len(CATALOGUE)
        ports = f"( sport >= :{first} and sport < :{beyond} )"
        for host in {self.host, self.sender}:
            self.run("ss", "-K", "-Htn", "state", "connected", ports, host=host)
        # a peer that was never answered goes on trying, and an open host would reset it
        answered = f"( dport >= :{first} and dport < :{beyond} )"
        peers = f"( sport = :{self.targets.peer_port} or {answered} )"
        for name in ("internet", "neighbour"):
            host = self.lab.hosts[name]
            self.run("ss", "-K", "-Htn", "state", "connected", peers, host=host)

    def _from_wire(self, names: Sequence[str]) -> dict[str, str]:
        served = [name for name in names if CATALOGUE[name].serve]
        if not served:
            return self._start(names).finish()
        service = self._start(served, serve=True)
        try:
            service.wait_until_prepared()
            outcomes = self._start(names).finish()
            answers = service.finish()
        finally:
            service.kill()
        self.served |= answers
        broken = {name: words for name, words in answers.items() if words.startswith("broken")}
        return outcomes | broken

    def _start(self, names: Sequence[str], *, serve: bool = False) -> Running:
        vector = CATALOGUE[names[0]]
        targets = self.aims[vector.place]
        outside = vector.place is Place.WIRE and not serve
        host = self.internet if outside else self.host if serve else self.sender
        account = []
        if outside:
            account = ["--account", "root"]
        if serve:
            account = ["--serve"]
        if self.seat.owner and vector.account is Account.ROOT and not outside:
            account += ["--owner", self.seat.owner]
        if not self._has_account(targets.tor_account):
            targets = dataclasses.replace(targets, tor_account=targets.user_account)
        group = self.tor_group() if vector.needs is Needs.TOR_GROUP else None
        if group:
            account += ["--cgroup", group]
        argv = [*_PROBE, *account, targets.to_json(), *names]
        return Running(host.command(argv))

    def _has_account(self, name: str) -> bool:
        accounts = (self.sender.root / "etc/passwd").read_text().splitlines()
        return any(line.startswith(f"{name}:") for line in accounts)

    def tor_pids(self) -> list[str]:
        """The tor processes of the host, by the host's own numbers."""
        found = []
        for entry in (self.host.root / "proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and (entry / "comm").read_text() == "tor\n":
                    found.append(entry.name)
        return found

    def tor_group(self) -> str | None:
        """The control group of the host's tor, as the host sees it; None while there is none."""
        processes = self.host.root / "proc"
        mount = cgroup_mount((processes / "1/mountinfo").read_text())
        for pid in self.tor_pids():
            group = (processes / pid / "cgroup").read_text().split("0::/")[-1].strip()
            if mount and group:
                return f"{mount}/{group}"
        return None


def _groups(names: Iterable[str]) -> Iterator[list[str]]:
    """Vectors that one probe process can run together, in the order of the catalogue."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        vector = CATALOGUE[name]
        key = (vector.place, vector.account, vector.needs is Needs.TOR_GROUP)
        groups.setdefault(key, []).append(name)
    yield from groups.values()


def chosen(wanted: Callable[[Vector], bool], scope: Scope = Scope.HOST) -> list[str]:
    """Names of vectors that mean something in a scope."""
    return [name for name, vector in CATALOGUE.items() if applies(vector, scope) and wanted(vector)]


def sampled(name: str, names: Sequence[str]) -> list[str]:
    """Half of them, the other half in another run; all of them in a sweep (tests/report.py).

    The whole catalogue is tried in every run from the host (test_leaks_host.py).
    """
    if os.environ.get(SWEEP):
        return list(names)
    return list(names[chance(name).randrange(2) :: 2])
