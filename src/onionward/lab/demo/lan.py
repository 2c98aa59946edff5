"""Three clients behind a gateway; each has a resolver of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.table import Table

from onionward.lab.demo import tables
from onionward.lab.demo.circuits import Circuits, Observer, merged, shared
from onionward.lab.demo.stage import BY_NAME, ONION, Asker, Fate, Stage, Visits
from onionward.lab.topology import CLIENTS, GATEWAY, LAN, LAN_DEVICE

VECTORS = (
    "udp.quic4",
    "udp.ntp6",
    "dns.udp4",
    "dns.udp6",
    "dns.tls4",
    "ping.any4",
    "ping.any6",
    "raw.gre4",
    "spoof.udp4",
)
_CONFIG = f'[[lan]]\ninterface = "{LAN_DEVICE}"\n'
_PID_FILE = "/run/onionward-lab/demo-resolver.pid"


@dataclass(frozen=True, slots=True)
class Observation:
    """What clients did, and what was seen of it on the gateway's uplink.

    Attributes:
        visits: what they fetched.
        leaks: packets of each vector.
        queries: name queries.
        in_clear: packets that routed clients must not cause.
        circuits: by client; empty without tor.
        gateway: what a server saw of the gateway's own program.

    """

    visits: Visits
    leaks: Mapping[str, int]
    queries: int
    in_clear: int
    circuits: Circuits
    gateway: str


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    with stage.configured(_CONFIG), stage.forwarding(), resolver(stage):
        stage.heading("Protection off:", " three clients fetch pages, and try to leak")
        off = _observe(stage, "off", None)
        with stage.routed(), stage.circuits() as observer:
            stage.heading("Protection on:", " the same again")
            on = _observe(stage, "on", observer)
    stage.console.print()
    stage.console.print(_servers(stage, off, on))
    stage.console.print(_wire(stage, off, on))
    words = "tcpdump on the gateway's uplink, packets of clients in clear with protection on:"
    return tables.verdict(stage.console, problems(stage, off, on), words, on.in_clear)


@contextmanager
def resolver(stage: Stage) -> Iterator[None]:
    """What client1 asks: a server at the gateway that asks the internet's."""
    lab = stage.lab
    argv = ["dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]
    argv += [f"--listen-address={lab.lan_gateway4}", f"--server={lab.dns4}", "--user=root"]
    # it goes to the background when it listens
    stage.run(GATEWAY.name, [*argv, f"--pid-file={_PID_FILE}"])
    try:
        yield
    finally:
        pid = stage.run(GATEWAY.name, ["cat", _PID_FILE]).strip()
        stage.run(GATEWAY.name, ["kill", pid])


def problems(stage: Stage, off: Observation, on: Observation) -> list[str]:
    """What is not as it must be, but for packets in clear."""
    clients = stage.clients()

    def expected_off(_: Asker, title: str) -> Fate:
        return "nobody" if title == ONION else "itself"

    found = tables.unseen(off.leaks)
    found += tables.strayed(stage, "off", clients, off.visits, expected_off)
    found += tables.strayed(stage, "on", clients, on.visits, lambda *_: "Tor")
    found += [
        f"{when}: the gateway's own program was seen as {seen or 'nobody'}"
        for when, seen in (("off", off.gateway), ("on", on.gateway))
        if seen not in stage.account("root").own
    ]
    found += [f"{client.name} has no circuit" for client in clients if not on.circuits[client.name]]
    found += [f"{one} and {other} share a circuit" for one, other in shared(on.circuits)]
    return found


def _observe(stage: Stage, label: str, observer: Observer | None) -> Observation:
    clients = stage.clients()
    with stage.watch(label) as capture:
        visits = stage.at_once(clients, VECTORS, list(stage.pages))
    used = observer.used() if observer else {}
    return Observation(
        visits,
        stage.seen_of(capture, VECTORS),
        capture.count("port 53"),
        capture.count(stage.in_clear()),
        {client.name: merged(used, client.own) for client in clients},
        stage.visit(stage.account("root"), {BY_NAME: stage.pages[BY_NAME]})[BY_NAME],
    )


def _servers(stage: Stage, off: Observation, on: Observation) -> Table:
    clients = stage.clients()
    made = tables.table("What servers saw", "", *(client.name for client in clients))
    resolvers = ("the gateway" if c.resolver == LAN.router4 else c.resolver for c in CLIENTS)
    made.add_row("asks for names", *resolvers)
    tables.add_visits(made, stage, "protection off", clients, off.visits)
    tables.add_visits(made, stage, "protection on", clients, on.visits)
    made.caption = tables.CIRCUITS
    made.add_row("circuits", *(tables.numbers(on.circuits[client.name]) for client in clients))
    return made


def _wire(stage: Stage, off: Observation, on: Observation) -> Table:
    made = tables.table("What left the gateway", "", "protection off", "protection on")
    for vector, title in tables.try_titles(VECTORS).items():
        made.add_row(title, *(tables.packets(of.leaks[vector]) for of in (off, on)))
    made.add_section()
    made.add_row("name queries of clients", *(tables.packets(of.queries) for of in (off, on)))
    in_clear = (tables.packets(of.in_clear) for of in (off, on))
    made.add_row("[bold]all packets of clients in clear[/]", *in_clear)
    made.add_section()
    own = stage.account("root")
    gateway = (tables.seen(stage, own, of.gateway, harmless=True) for of in (off, on))
    made.add_row("the gateway's own page: server saw", *gateway)
    return made
