"""What every demonstration stands on: a lab, the machine in it that is protected, and a witness."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from onionward.errors import LabError
from onionward.lab import render, topology
from onionward.lab.demo import circuits, visit
from onionward.lab.host import Host
from onionward.lab.lab import Lab
from onionward.lab.targets import targets
from onionward.leaks.model import Account, Attempt
from onionward.leaks.vectors import CATALOGUE, number_of
from onionward.leaks.wire import Capture, Exempt, Witness
from onionward.system import System

Fate = Literal["itself", "Tor", "nobody", "somebody else"]
"""Whom a server saw."""

BY_NAME = "page by name"
ONION = "onion service"

_CONFIG = "etc/onionward/onionward.toml"
_SECONDS = 120.0
# What a kernel says to its own link; a client's packet with such an address is not forwarded.
_CHATTER = "igmp or (ip6 and dst net ff02::/16)"


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who asks for pages.

    Attributes:
        name: for people.
        machine: of the lab.
        own: the addresses from which servers see it when nothing is in between.
        account: of the machine.

    """

    name: str
    machine: str
    own: tuple[str, str]
    account: str = "root"


Visits = Mapping[str, Mapping[str, str]]
"""The address that a server saw, or "" without an answer, by asker and page."""


@dataclass(frozen=True)
class Stage:
    """A lab, and the machine that is protected.

    Attributes:
        system: the seam.
        lab: built.
        console: where to show things.
        directory: for capture files.
        machine: "host" or "gateway".

    """

    system: System
    lab: Lab
    console: Console
    directory: Path
    machine: str = topology.GATEWAY.name

    @property
    def host(self) -> Host:
        """The machine that is protected."""
        return self.lab.hosts[self.machine]

    @property
    def pages(self) -> dict[str, str]:
        """What is fetched: titles and URLs."""
        return {
            "page over IPv4": f"http://{self.lab.web4}/",
            "page over IPv6": f"http://[{self.lab.web6}]/",
            BY_NAME: "http://www.example.test/",
            ONION: f"http://{self.lab.onion}/",
        }

    def account(self, name: str) -> Asker:
        """An account of the gateway."""
        title = "the gateway" if name == "root" else name
        own = (self.lab.gateway4, self.lab.gateway6)
        return Asker(title, topology.GATEWAY.name, own, name)

    def clients(self) -> tuple[Asker, ...]:
        """The machines behind the gateway."""
        return tuple(
            Asker(machine.name, machine.name, (machine.address4, machine.address6))
            for machine in topology.CLIENTS
        )

    def heading(self, words: str, more: str = "") -> None:
        """Say what comes now."""
        self.console.print(f"\n[bold]{words}[/]{more}")

    def run(self, machine: str, argv: Sequence[str], *, accept: Sequence[int] = (0,)) -> str:
        """What a command prints on a machine of the lab.

        Raises:
            CommandError: it failed.

        """
        command = self.lab.hosts[machine].command(argv)
        return self.system.query(command, timeout=_SECONDS, accept=accept)

    def onionward(self, command: str) -> None:
        """Run onionward on the machine; it speaks for itself.

        Raises:
            LabError: it failed.

        """
        done = subprocess.run(self.host.command(["onionward", command]), check=False)
        if done.returncode:
            raise LabError(f"`onionward {command}` ended with status {done.returncode} in the lab")

    def configure(self, text: str) -> None:
        """Write what the next `up` reads, beside the lab's Tor network."""
        self.system.write_file(self.host.root / _CONFIG, text + render.onionward_toml())

    @contextmanager
    def configured(self, text: str) -> Iterator[None]:
        """As `configure`; afterwards the file is as it was."""
        path = self.host.root / _CONFIG
        before = path.read_text()
        self.configure(text)
        try:
            yield
        finally:
            self.system.write_file(path, before)

    @contextmanager
    def routed(self) -> Iterator[None]:
        """`onionward up`, and in the end `onionward down`."""
        self.heading("onionward up")
        self.onionward("up")
        try:
            yield
        finally:
            self.heading("onionward down")
            self.onionward("down")

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """Let the gateway forward, as a router does, protected or not."""
        names = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
        argv = ["sysctl", "-q", "-w"]
        self.run(topology.GATEWAY.name, [*argv, *(f"{name}=1" for name in names)])
        try:
            yield
        finally:
            self.run(topology.GATEWAY.name, [*argv, *(f"{name}=0" for name in names)])

    def circuits(self) -> AbstractContextManager[circuits.Observer]:
        """Listen to the machine's tor."""
        return circuits.listening(self.host)

    def watch(self, label: str) -> AbstractContextManager[Capture]:
        """Capture what leaves the machine, on the far end of its uplink."""
        host = topology.HOST.name
        link = self.lab.host_link if self.machine == host else self.lab.gateway_link
        witness = Witness(link, self.directory, namespace=self.lab.hosts["internet"].pid)
        return witness.watch(label)

    def in_clear(self) -> str:
        """The capture filter for what must not leave a machine on which everybody is routed."""
        escaped = Exempt(self.lab.relays, (topology.UPLINK.network6,)).escaped()
        return escaped if self.machine == topology.HOST.name else f"{escaped} and not ({_CHATTER})"

    def seen_of(self, capture: Capture, vectors: Iterable[str]) -> dict[str, int]:
        """How many packets of each vector were captured."""
        aims = targets(self.lab, self.machine)
        return {
            name: capture.count(CATALOGUE[name].filter(Attempt(aims, number_of(name))))
            for name in vectors
        }

    def visit(self, asker: Asker, pages: Mapping[str, str]) -> dict[str, str]:
        """Fetch pages at once; returns the addresses that the servers saw, by title."""
        argv = ["python", "-I", "-S", visit.__file__, asker.account, *pages.values()]
        return dict(zip(pages, json.loads(self.run(asker.machine, argv)), strict=True))

    def resolve(self, name: str, server: str, *, account: str = "root") -> str:
        """What a name server says to an account of the machine, or "" when it says nothing.

        Args:
            name: whose IPv4 address is asked for.
            server: its address.
            account: of the machine.

        """
        argv = ["dig", "+short", "+tries=1", "+time=5", f"@{server}", name, "A"]
        command = self.host.command(argv, user=account)
        # dig(1): 9 is no reply
        said = self.system.query(command, timeout=_SECONDS, accept=(0, 9))
        return " ".join(line for line in said.splitlines() if not line.startswith(";"))

    def attempt(self, asker: Asker, vectors: Iterable[str]) -> dict[str, str]:
        """Try ways out; returns what became of each attempt on the machine itself.

        See `onionward.leaks.probe` for the words.
        """
        name = asker.account
        aims = replace(targets(self.lab, asker.machine), user_account=name)
        if name == "root":
            aims = targets(self.lab, asker.machine)
        outcomes: dict[str, str] = {}
        for kind in (Account.USER, Account.ROOT):
            chosen = [vector for vector in vectors if CATALOGUE[vector].account is kind]
            owner = ("--owner", name) if kind is Account.ROOT and name != "root" else ()
            argv = ["python", "-m", "onionward.leaks.probe", aims.to_json(), *chosen, *owner]
            for line in self.run(asker.machine, argv).splitlines() if chosen else ():
                told = json.loads(line)
                outcomes[told["id"]] = told["outcome"]
        return outcomes

    def at_once(
        self, askers: Sequence[Asker], vectors: Sequence[str], pages: Sequence[str]
    ) -> Visits:
        """Have everybody fetch pages, and try ways out, side by side."""
        wanted = {title: self.pages[title] for title in pages}

        def act(asker: Asker) -> Mapping[str, str]:
            if vectors:
                self.attempt(asker, vectors)
            return self.visit(asker, wanted)

        with ThreadPoolExecutor(len(askers)) as pool:
            return dict(zip((a.name for a in askers), pool.map(act, askers), strict=True))

    def fate(self, asker: Asker, seen: str) -> Fate:
        """Whom a server saw when somebody asked."""
        if not seen:
            return "nobody"
        if seen in asker.own:
            return "itself"
        # an onion service sees its own tor
        return "Tor" if seen in (*self.lab.exits, "127.0.0.1") else "somebody else"
