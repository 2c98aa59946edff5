"""Circuits of their own: nobody's connection or name is on a circuit that somebody else uses.

tor's own account of its streams is the witness. That it would tell of a shared circuit is shown
where circuits are meant to be shared, and by switching isolation off in tor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from onionward.config.values import TorConfig
from onionward.lab import Lab
from onionward.policy import RELAY4, RELAY6
from tests.lab.circuits_people import (
    OTHER_PORT,
    PEOPLE,
    SUBORDINATE,
    Answers,
    People,
    Request,
    Seen,
    connection,
    name,
    people,
)
from tests.lab.lifecycle_machine import open_machine

LAN = '[[lan]]\ninterface = "eth1"\n'
SCOPES = f'[host]\n{LAN}[[user]]\nname = "alice"\n[[user]]\nname = "bob"\n'
ISOLATED = "[tor]\nisolate_destinations = true\n"
# who has circuits of their own; everybody else on the gateway is the host
GROUPS = {
    "alice": ("alice",),
    "bob": ("bob", SUBORDINATE),
    "the host": ("root", "carol"),
    "client1": ("client1",),
    "client2": ("client2",),
}
PAIRS = [*itertools.combinations(GROUPS, 2)]
IMPOSTORS = ("alice", "carol")
VICTIMS = ("bob", "client1")
TCP = ("TCP 4", "TCP 6")
NAMES = ("name 4", "name 6")
ELSEWHERE = ("to another port", "to another address")
ONION_NAME, ONION = "name of the onion service", "onion service"


@dataclass(frozen=True)
class Shown:
    """What became of what everybody asked.

    Attributes:
        plain: as configured first, by what was asked.
        held: streams that were open in the end of that, by circuit.
        impostors: what came of sockets bound to somebody else's address.
        beside_clients: the same, with nobody routed but clients.
        isolated: with `isolate_destinations`.
        by_hand: with isolation switched off in tor.

    """

    plain: Mapping[str, Answers]
    held: Mapping[str, int]
    impostors: Mapping[str, Answers]
    beside_clients: Mapping[str, Answers]
    isolated: Mapping[str, Answers]
    by_hand: Mapping[str, Answers]


def ordinary(lab: Lab) -> dict[str, Request]:
    """The same places and names for everybody, over both families."""
    found: dict[str, Request] = {}
    for version, web, other, server in (
        (4, lab.web4, lab.stranger4, lab.dns4),
        (6, lab.web6, lab.stranger6, lab.dns6),
    ):
        found |= {
            f"TCP {version}": connection(web),
            f"TCP {version} again": connection(web),
            f"TCP {version} to another port": connection(web, OTHER_PORT),
            f"TCP {version} to another address": connection(other),
            f"name {version}": name(server),
            f"name {version} again": name(server),
        }
    return found


def ask_everything(everybody: People, wanted: Mapping[str, Request]) -> dict[str, Answers]:
    found: dict[str, Answers] = {}
    for title, request in wanted.items():
        found[title] = everybody.ask(request)
    return found


def visit_the_onion(everybody: People) -> dict[str, Answers]:
    lab = everybody.machine.lab
    mapped = everybody.ask(name(lab.dns4, lab.onion))
    page = {"say": "GET / HTTP/1.0\r\n\r\n"}
    visits = {w: replace(connection(told.heard, 80), more=page) for w, told in mapped.items()}
    return {ONION_NAME: mapped, ONION: everybody.ask_each(visits)}


def impersonate(
    everybody: People, plain: Mapping[str, Answers], victims: Iterable[str] = VICTIMS
) -> dict[str, Answers]:
    """Requests from sockets that are bound to addresses under which tor knows others."""
    lab, ports = everybody.machine.lab, TorConfig()
    found: dict[str, Answers] = {}
    for version, web, server, loopback, relay in (
        (4, lab.web4, lab.dns4, "127.0.0.1", str(RELAY4)),
        (6, lab.web6, lab.dns6, "::1", str(RELAY6)),
    ):
        ways = {
            "TCP": connection(web),
            "name": name(server),
            "name at loopback": name(loopback),
            "name at tor's port": name(loopback, port=ports.dns_port),
            "name at the clients' port": name(relay, port=ports.dns_port),
            "TCP at tor's port": connection(loopback, ports.trans_port),
            "TCP at the clients' port": connection(relay, ports.trans_port),
        }
        for victim, (title, request) in itertools.product(victims, ways.items()):
            known = plain[f"TCP {version}"][victim].seen
            assert known is not None
            bound = replace(request, more={**request.more, "bind": known.source})
            found[f"{title} {version}, as {victim}"] = everybody.ask(bound, IMPOSTORS)
    return found


@pytest.fixture(scope="module")
def shown(lab: Lab) -> Iterator[Shown]:
    wanted = ordinary(lab)
    with open_machine(lab, "gateway") as machine, people(machine) as everybody:
        machine.configure(SCOPES)
        machine.up()
        plain = ask_everything(everybody, wanted) | visit_the_onion(everybody)
        held = everybody.held()
        impostors = impersonate(everybody, plain)
        machine.configure(SCOPES + ISOLATED)
        machine.up()
        isolated = ask_everything(everybody, wanted)
        machine.configure(SCOPES)
        machine.up()
        everybody.stop_isolating()
        by_hand = ask_everything(everybody, wanted)
        machine.configure(LAN)
        machine.up()
        beside_clients = impersonate(everybody, plain, ["client1"])
        yield Shown(plain, held, impostors, beside_clients, isolated, by_hand)


def used(answers: Mapping[str, Answers], who: Iterable[str]) -> set[str]:
    """Every circuit that somebody has used; names under .onion are answered by tor itself."""
    return {
        answers[title][each].circuit for title in answers if title != ONION_NAME for each in who
    }


# clients come in by another port of tor's than what runs on the gateway
BY_PORT = [pair for pair in PAIRS if ("client1" in pair) == ("client2" in pair)]


@pytest.mark.parametrize("kind", ["TCP", "name"])
@pytest.mark.parametrize(("one", "other"), BY_PORT)
def test_without_isolation_who_comes_by_the_same_port_shares(
    shown: Shown, one: str, other: str, kind: str
) -> None:
    answers = {title: told for title, told in shown.by_hand.items() if title.startswith(kind)}
    # tor may begin a fresh circuit meanwhile, but not for each
    assert used(answers, GROUPS[one]) & used(answers, GROUPS[other])


@pytest.mark.parametrize("activation", ["plain", "isolated"])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_have_no_circuit_in_common(shown: Shown, activation: str, one: str, other: str) -> None:
    answers: Mapping[str, Answers] = getattr(shown, activation)
    ones, others = used(answers, GROUPS[one]), used(answers, GROUPS[other])
    assert ones
    assert others
    assert not ones & others


@pytest.mark.parametrize("title", TCP)
def test_everybody_holds_connections_at_once_on_five_circuits(shown: Shown, title: str) -> None:
    circuits = {shown.plain[title][who].circuit for who in PEOPLE}
    assert len(circuits) == len(GROUPS)
    assert circuits <= shown.held.keys(), "some had ended before others began"


def by_destination(answers: Mapping[str, Answers], title: str, who: str) -> list[set[str]]:
    """The circuits of one place, of another port there, and of another address."""
    places = ((title, f"{title} again"), *((f"{title} {more}",) for more in ELSEWHERE))
    return [{answers[each][who].circuit for each in place} for place in places]


@pytest.mark.parametrize("title", TCP)
def test_destinations_share_circuits(shown: Shown, title: str) -> None:
    places = {who: by_destination(shown.plain, title, who) for who in PEOPLE}
    # tor may begin fresh circuits meanwhile, but not for each and for most
    shared = [
        who
        for who, circuits in places.items()
        if any(one & other for one, other in itertools.combinations(circuits, 2))
    ]
    assert len(shared) > len(PEOPLE) / 2, places


@pytest.mark.parametrize("title", TCP)
@pytest.mark.parametrize("who", PEOPLE)
def test_isolated_destinations_do_not(shown: Shown, who: str, title: str) -> None:
    places = by_destination(shown.isolated, title, who)
    assert not any(one & other for one, other in itertools.combinations(places, 2))


@pytest.mark.parametrize("who", PEOPLE)
def test_families_and_names_have_circuits_of_their_own(shown: Shown, who: str) -> None:
    kinds = [*TCP, *NAMES]
    assert len({shown.plain[kind][who].circuit for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("title", [*NAMES, *(f"{name} again" for name in NAMES)])
def test_a_name_is_asked_anew_for_everybody(shown: Shown, title: str, lab: Lab) -> None:
    for who, told in shown.plain[title].items():
        assert told.heard == lab.web4, who
        assert told.circuit, who


def test_an_onion_name_is_one_address_for_all_over_circuits_of_their_own(shown: Shown) -> None:
    mapped, visits = shown.plain[ONION_NAME], shown.plain[ONION]
    assert len({told.heard for told in mapped.values()}) == 1
    assert all("200 OK" in told.heard for told in visits.values())
    assert len({told.circuit for told in visits.values()}) == len(GROUPS)


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nobody_gets_on_circuits_by_the_address_of_their_owner(
    shown: Shown, victim: str, impostor: str
) -> None:
    theirs = used(shown.plain, GROUPS[victim])
    tried = {t: told for t, told in shown.impostors.items() if t.endswith(f" as {victim}")}
    seen = assert_not_taken_for(victim, impostor, tried, shown.plain)
    assert not [title for title, stream in seen.items() if stream.circuits & theirs]


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_nor_on_those_of_clients_when_nobody_else_is_routed(shown: Shown, impostor: str) -> None:
    assert_not_taken_for("client1", impostor, shown.beside_clients, shown.plain)


def assert_not_taken_for(
    victim: str, impostor: str, tried: Mapping[str, Answers], plain: Mapping[str, Answers]
) -> dict[str, Seen]:
    """What tor has seen of somebody is not under the address of another; returns that."""
    seen = {t: told[impostor].seen for t, told in tried.items()}
    reached = {title: stream for title, stream in seen.items() if stream}
    assert reached, "nothing has reached tor, which proves nothing"
    addresses = {stream.source for title in TCP if (stream := plain[title][victim].seen)}
    assert len(addresses) == len(TCP)
    assert not [title for title, stream in reached.items() if stream.source in addresses]
    return reached
