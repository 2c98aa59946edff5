"""Everybody behind one tor: they ask at once and hold what they get, and tor says on what circuit.

    client1, client2 (LAN) ── eth1 gateway: alice, bob, an id of bob's user namespaces, carol, root

Each request has a source port of its own, which no translation changes: by it the streams that
tor tells of belong to requests, whatever address tor thinks they come from.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from onionward.lab import topology
from onionward.lab.control import Control
from onionward.paths import PATHS
from tests.lab.lifecycle_machine import HERE, Machine

SUBORDINATE = "bob's namespace"
PEOPLE = ("alice", "bob", SUBORDINATE, "carol", "root", "client1", "client2")
NAME = "www.example.test"
"""Asked for by everybody; has an IPv4 address."""

# servers that everybody can reach, at each address of the lab's internet
PORT, OTHER_PORT = 8081, 8082
# a circuit to an onion service may take longer than whoever asks waits
_TRIES = 4
# below those that the kernel gives to others
_FIRST_OWN_PORT = 27201


@dataclass(frozen=True)
class Seen:
    """What tor says of a stream: who asks, as tor thinks, and the circuits it was put on."""

    source: str
    circuits: frozenset[str]


@dataclass(frozen=True)
class Told:
    """What became of a request."""

    heard: str
    error: str
    seen: Seen | None

    @property
    def circuit(self) -> str:
        """The only one."""
        assert not self.error, self.error
        assert self.seen is not None, "tor has not seen it"
        assert len(self.seen.circuits) == 1, self.seen
        return next(iter(self.seen.circuits))


Answers = Mapping[str, Told]
"""By who has asked."""


@dataclass(frozen=True)
class Request:
    """What somebody does, as circuits_asker.py reads it."""

    kind: str
    to: tuple[str, int]
    more: Mapping[str, str] = field(default_factory=dict)


def connection(address: str, port: int = PORT) -> Request:
    """A TCP connection to an echo, held open."""
    return Request("tcp", (address, port))


def name(server: str, asked: str = NAME, *, port: int = 53) -> Request:
    """A query."""
    return Request("name", (server, port), {"name": asked})


class People:
    """Everybody, and a connection to the gateway's tor; `people` makes one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._askers = {who: _asker(machine, who) for who in PEOPLE}
        self._ports = iter(range(_FIRST_OWN_PORT, 32768))

    def ask(self, request: Request, who: Iterable[str] = PEOPLE) -> dict[str, Told]:
        """Everybody does the same at once; returns when it is done by all."""
        return self.ask_each(dict.fromkeys(who, request))

    def ask_each(self, requests: Mapping[str, Request]) -> dict[str, Told]:
        """Everybody something of their own, at once; again, who was not answered in time."""
        told = self._ask_once(requests)
        for _ in range(_TRIES - 1):
            late = {who: requests[who] for who in requests if "timed out" in told[who].error}
            if not late:
                break
            told |= self._ask_once(late)
        return told

    def _ask_once(self, requests: Mapping[str, Request]) -> dict[str, Told]:
        ports = {who: next(self._ports) for who in requests}
        with self._control() as control:
            control.ask("SETEVENTS STREAM")
            for who, request in requests.items():
                line = {"kind": request.kind, "to": request.to, "port": ports[who], **request.more}
                stdin = self._askers[who].stdin
                assert stdin is not None
                stdin.write(json.dumps(line) + "\n")
            told = {who: _line(self._askers[who]) for who in requests}
            control.ask("GETINFO version")  # what came before the answer has been heard then
            streams = seen(control.heard)
        return {
            who: Told(told[who]["heard"], told[who]["error"], streams.get(port))
            for who, port in ports.items()
        }

    def held(self) -> dict[str, int]:
        """How many streams tor holds open on which circuit, by its own account."""
        with self._control() as control:
            lines = control.ask("GETINFO stream-status").splitlines()
        found: dict[str, int] = {}
        for line in lines:
            words = line.removeprefix("stream-status=").split()
            if words[1:2] == ["SUCCEEDED"]:
                found[words[2]] = found.get(words[2], 0) + 1
        return found

    def stop_isolating(self) -> None:
        """By hand, tor keeps nobody apart any more."""
        wanted = []
        with self._control() as control:
            for option in ("TransPort", "DNSPort"):
                lines = control.ask(f"GETCONF {option}").splitlines()
                wanted += [
                    f'{line.replace("=", "=" + chr(34))} NoIsolateClientAddr"' for line in lines
                ]
            # listeners that stay keep what they were opened with
            control.ask("SETCONF TransPort=0 DNSPort=0")
            control.ask(f"SETCONF {' '.join(wanted)}")

    def _control(self) -> Control:
        socket, cookie = map(self.machine.path, (PATHS.control_socket, PATHS.control_cookie))
        return Control(socket, timeout=30, cookie=cookie.read_bytes())


def _asker(machine: Machine, who: str) -> subprocess.Popen[str]:
    script = "circuits_asker.py"
    if who == SUBORDINATE:
        bob = next(account for account in topology.ACCOUNTS if account.name == "bob")
        assert bob.subordinate is not None
        uid = bob.subordinate + 123
        account = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        return machine.spawn(*account, "/usr/bin/python3", "-I", str(HERE / script))
    if who in machine.lab.hosts:
        return machine.script(script, on=who)
    return machine.script(script, user=None if who == "root" else who)


def _line(asker: subprocess.Popen[str]) -> dict[str, Any]:
    assert asker.stdout is not None
    found: dict[str, Any] = json.loads(asker.stdout.readline())
    return found


def seen(events: Iterable[str]) -> dict[int, Seen]:
    """Streams by source port, from the words of STREAM events (control-spec, 4.1.2)."""
    sources: dict[str, tuple[str, int]] = {}
    circuits: dict[str, set[str]] = {}
    for words in (event.split() for event in events):
        if len(words) < 5 or words[0] != "STREAM":
            continue
        number, status, circuit = words[1:4]
        for word in words:
            if word.startswith("SOURCE_ADDR="):  # of a new stream only
                address, _, port = word.removeprefix("SOURCE_ADDR=").rpartition(":")
                sources[number] = (address.strip("[]"), int(port))
        if status in ("SENTCONNECT", "SENTRESOLVE"):
            circuits.setdefault(number, set()).add(circuit)
    return {
        port: Seen(address, frozenset(circuits.get(number, ())))
        for number, (address, port) in sources.items()
    }


@contextmanager
def people(machine: Machine) -> Iterator[People]:
    """Everybody at their places, and servers for them."""
    server = machine.script(
        "lifecycle_server.py", f"tcp={PORT}", f"tcp={OTHER_PORT}", on="internet"
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield People(machine)
