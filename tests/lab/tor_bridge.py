"""A bridge in the lab's internet, with obfs4 and without, and a censor of all public relays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from onionward.lab import Lab
from onionward.lab.network import Site
from onionward.lab.topology import TorNetwork
from onionward.system import System
from tests.lab.lifecycle_machine import Machine, run_in, until

ADDRESS, ADDRESS6 = "198.18.7.1", "2001:db8:7::1"
OBFS4_PORT, PLAIN_PORT = 443, 9443
_DATA = "/run/onionward-lab/bridge"
_TORRC = f"""
DataDirectory {_DATA}
ControlSocket {_DATA}/control
Log notice file {_DATA}/log
RunAsDaemon 1
SocksPort 0
Nickname bridge
Address {ADDRESS}
ORPort {ADDRESS}:{PLAIN_PORT}
ORPort [{ADDRESS6}]:{PLAIN_PORT}
OutboundBindAddress {ADDRESS}
AssumeReachable 1
ExitRelay 0
BridgeRelay 1
BridgeDistribution none
PublishServerDescriptor 0
ExtORPort auto
ServerTransportPlugin obfs4 exec /usr/bin/obfs4proxy
ServerTransportListenAddr obfs4 {ADDRESS}:{OBFS4_PORT}
ShutdownWaitLength 0
"""


@dataclass(frozen=True)
class Bridge:
    """Its lines, as operators give them away.

    Attributes:
        obfs4: with the transport.
        plain: without.
        plain6: the same, over IPv6.

    """

    obfs4: str
    plain: str
    plain6: str


@contextmanager
def running(lab: Lab) -> Iterator[Bridge]:
    """A bridge that knows the network already."""
    internet = lab.hosts["internet"]
    site = Site(System(), internet, TorNetwork())
    for address in (f"{ADDRESS}/32", f"{ADDRESS6}/128"):
        assert run_in(internet, ["ip", "address", "add", address, "dev", "lo"]).returncode == 0
    try:
        site.start("bridge", _TORRC + lab.network_torrc.read_text())
        site.wait(["bridge"], lambda tor: "PROGRESS=100" in tor.ask(_PHASE), "bootstrap")
        line = site.path("bridge", "pt_state", "obfs4_bridgeline.txt")
        until("obfs4proxy has written its line", line.exists)
        fingerprint = site.path("bridge", "fingerprint").read_text().split()[1]
        yield Bridge(
            _filled_in(line, fingerprint),
            f"{ADDRESS}:{PLAIN_PORT} {fingerprint}",
            f"[{ADDRESS6}]:{PLAIN_PORT} {fingerprint}",
        )
    finally:
        if site.path("bridge", "control").exists():
            site.ask("bridge", "SIGNAL HALT")
        for address in (f"{ADDRESS}/32", f"{ADDRESS6}/128"):
            run_in(internet, ["ip", "address", "delete", address, "dev", "lo"])


_PHASE = "GETINFO status/bootstrap-phase"


def _filled_in(path: Path, fingerprint: str) -> str:
    """The line with its places for the address and the fingerprint filled in."""
    last = path.read_text().splitlines()[-1].removeprefix("Bridge ")
    line = last.replace("<IP ADDRESS>:<PORT>", f"{ADDRESS}:{OBFS4_PORT}")
    return line.replace("<FINGERPRINT>", fingerprint)


def seeing_relays(machine: Machine, *places: tuple[str, int]) -> Machine:
    """The machine for a witness to whom TCP to relays is a leak, but to these places."""
    return Machine(replace(machine.lab, relays=places))


@contextmanager
def censored(machine: Machine, verdict: str = "drop") -> Iterator[None]:
    """Nobody on the uplink reaches a public relay."""
    internet = machine.lab.hosts["internet"]
    ports = ", ".join(sorted({str(port) for _, port in machine.lab.relays}))
    rules = (
        "table inet censor { chain in { type filter hook input priority 0; "
        f'iifname "uplink0" tcp dport {{ {ports} }} {verdict}; }}; }}'
    )
    assert run_in(internet, ["nft", rules]).returncode == 0
    try:
        yield
    finally:
        run_in(internet, ["nft", "delete", "table", "inet", "censor"])
