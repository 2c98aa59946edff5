"""All scopes of one gateway at once, and a step from some of them to all without a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from onionward.lab.demo import tables
from onionward.lab.demo.circuits import Circuits, Observer, shared
from onionward.lab.demo.lan import resolver
from onionward.lab.demo.onion import onion_queries
from onionward.lab.demo.stage import BY_NAME, ONION, Asker, Fate, Stage, Visits
from onionward.lab.topology import LAN_DEVICE

VECTORS = ("udp.quic4", "udp.ntp6")
_ACCOUNTS = ("root", "alice", "bob", "carol")
_PAGES = (BY_NAME, ONION)
_SCOPES = f"""onion = true
[[lan]]
interface = "{LAN_DEVICE}"
[[user]]
name = "alice"
"""
_WITH_HOST = f"""{_SCOPES}[[user]]
name = "bob"
route = "direct"
[host]
"""


@dataclass(frozen=True, slots=True)
class State:
    """What is configured, and who must be routed then.

    Attributes:
        title: for people.
        config: what `up` reads, or "" for a machine that is off.
        routed: names of askers.
        onion: those who reach onion services though they are not routed.

    """

    title: str
    config: str
    routed: tuple[str, ...] = ()
    onion: tuple[str, ...] = ()


_CLIENTS = ("client1", "client2", "client3")
OFF = State("off", "")
SOME = State("lan, alice, onion", _SCOPES, (*_CLIENTS, "alice"), ("the gateway", "bob", "carol"))
ALL = State(
    "host too, bob not",
    _WITH_HOST,
    (*_CLIENTS, "alice", "the gateway", "carol"),
    # the machine's resolver is tor then, and addresses of .onion names lead there for everybody
    ("bob",),
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What everybody did in one state, and what was seen of it on the gateway's uplink.

    Attributes:
        visits: the addresses that servers saw, or "".
        routed: packets in clear while those acted who are routed in this state.
        others: packets in clear while the rest acted.
        onion_queries: queries in clear for names under .onion.
        circuits: of each address that tor saw; empty without tor.

    """

    visits: Visits
    routed: int
    others: int
    onion_queries: int
    circuits: Circuits


Observations = Mapping[State, Observation]


def play(stage: Stage) -> int:
    """Show it; returns the exit status."""
    found: dict[State, Observation] = {}
    with stage.configured(SOME.config), stage.forwarding(), resolver(stage):
        stage.heading("Protection off:", " three clients and four accounts fetch pages, and leak")
        found[OFF] = _observe(stage, OFF, None)
        with stage.routed():
            with stage.circuits() as observer:
                stage.heading("Clients, alice and .onion are routed:", " the same again")
                found[SOME] = _observe(stage, SOME, observer)
            stage.configure(ALL.config)
            stage.heading("onionward up,", " with the host in the configuration")
            stage.onionward("up")
            with stage.circuits() as observer:
                stage.heading("All are routed but bob:", " the same again")
                found[ALL] = _observe(stage, ALL, observer)
    stage.console.print()
    stage.console.print(_servers(stage, found))
    stage.console.print(_wire(stage, found))
    words = "tcpdump on the gateway's uplink, packets in clear of those who were routed:"
    escaped = sum(o.routed + o.onion_queries for state, o in found.items() if state is not OFF)
    return tables.verdict(stage.console, problems(stage, found), words, escaped)


def problems(stage: Stage, found: Observations) -> list[str]:
    """What is not as it must be, but for packets in clear."""
    wrong = []
    for state, observation in found.items():

        def expected(asker: Asker, title: str, state: State = state) -> Fate:
            if asker.name in state.routed or (title == ONION and asker.name in state.onion):
                return "Tor"
            return "nobody" if title == ONION else "itself"

        wrong += tables.strayed(stage, state.title, _askers(stage), observation.visits, expected)
        wrong += [
            f"{state.title}: {one} and {other} share a circuit"
            for one, other in shared(observation.circuits)
        ]
        if not observation.others:
            wrong.append(f"{state.title}: the witness saw nothing of those who are not routed")
        if state is not OFF and not observation.circuits:
            wrong.append(f"{state.title}: tor used no circuit")
    if not found[OFF].onion_queries:
        wrong.append("the witness did not see a query for an onion name with protection off")
    return wrong


def _askers(stage: Stage) -> tuple[Asker, ...]:
    return (*stage.clients(), *(stage.account(name) for name in _ACCOUNTS))


def _observe(stage: Stage, state: State, observer: Observer | None) -> Observation:
    visits: dict[str, Mapping[str, str]] = {}
    onions = 0

    def packets_of(askers: Sequence[Asker]) -> int:
        nonlocal onions
        if not askers:
            return 0
        with stage.watch("all") as capture:
            visits.update(stage.at_once(askers, VECTORS, _PAGES))
        onions += onion_queries(capture)
        return capture.count(stage.in_clear())

    routed = packets_of([asker for asker in _askers(stage) if asker.name in state.routed])
    others = packets_of([asker for asker in _askers(stage) if asker.name not in state.routed])
    return Observation(visits, routed, others, onions, observer.used() if observer else {})


def _servers(stage: Stage, found: Observations) -> Table:
    made = tables.table("What servers saw", "", *(state.title for state in found))
    for title in _PAGES:
        rows = {
            asker.name: [
                tables.seen(
                    stage,
                    asker,
                    observation.visits[asker.name][title],
                    harmless=state is not OFF and asker.name not in state.routed,
                )
                for state, observation in found.items()
            ]
            for asker in _askers(stage)
        }
        tables.add_section(made, title, rows)
    return made


def _wire(stage: Stage, found: Observations) -> Table:
    made = tables.table("What left the gateway in clear", "", *(state.title for state in found))
    off = found[OFF]
    later = [observation for state, observation in found.items() if state is not OFF]
    made.add_row(
        "[bold]packets of those who are routed[/]",
        f"{tables.packets(off.others)} of all",
        *(tables.packets(observation.routed) for observation in later),
    )
    others = (tables.packets(observation.others, harmless=True) for observation in later)
    made.add_row("packets of the others", "", *others)
    queries = (tables.packets(observation.onion_queries) for observation in found.values())
    made.add_row("[bold]queries for names under .onion[/]", *queries)
    made.add_row(
        "who had circuits of their own",
        "",
        *(", ".join(senders(stage, observation.circuits)) for observation in later),
    )
    return made


def senders(stage: Stage, circuits: Circuits) -> tuple[str, ...]:
    """Whose addresses these are; each has one of IPv4 and one of IPv6."""
    clients = {address: client.name for client in stage.clients() for address in client.own}
    known = {**clients, "127.0.0.1": "the gateway", "::1": "the gateway"}
    # the only account that is routed for itself
    return tuple(sorted({known.get(address, "alice") for address in circuits}))
