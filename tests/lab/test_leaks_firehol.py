"""The catalogue once more, with nothing but the rules that the real firehol has made of its file.

    internet ── gateway0 (witness, peer) ── eth0 gateway eth1 ── client1 (vectors)

`up` starts tor, firehol loads what `show firehol` prints, and then all of onionward's own rules are
taken away, and its guard. Some vectors here, all of them for each scope on request
(ONIONWARD_SWEEP). What is below IP firehol does not judge, and it knows tor by its account alone:
that leaves, and docs/security.md says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs, Scope, Vector
from tests.kernel import firehol
from tests.lab.leak_bench import Bench, Seat, chosen
from tests.lab.leak_trial import Trial
from tests.lab.lifecycle_machine import Machine, empty_tables
from tests.lab.lifecycle_scopes import forwarding
from tests.lab.test_scopes_lan import source_routes
from tests.report import Faults

_STRIDE = int(os.environ.get("ONIONWARD_SWEEP", 16))
LAN = '[[lan]]\ninterface = "eth1"\n'
CONFIGS = {"both": f"[host]\n{LAN}", "host": "[host]\n", "lan": LAN}
SCOPES = tuple(CONFIGS) if "ONIONWARD_SWEEP" in os.environ else ("both",)
GATEWAY, CLIENT = Seat("gateway", "gateway"), Seat("gateway", "client1")


BELOW_IP = (
    *("frame.", "guest.", "copy.", "stacked.", "dhcp.other-frame"),
    # an answer that never reaches the rules
    "in.foreign-reject-below",
)
AS_TOR = ("tor.tcp", "tor.dns-tcp", "tor.relay", "tor.bound")
LIMITS = ("frame.udp4", "frame.udp6", "in.foreign-reject-below", "tor.tcp4", "tor.tcp6")


def of_the_host(vector: Vector) -> bool:
    return (
        not vector.prepared
        and not vector.limit
        and vector.needs in (Needs.NOTHING, Needs.TOR_GROUP)
        and not vector.id.startswith((*BELOW_IP, *AS_TOR))
        # the witness does not see it from this gateway with protection off either
        and vector.id != "raw.mld"
    )


def vectors_of(scope: str) -> dict[Seat, list[str]]:
    """What is tried in a scope, by who tries it."""
    found = {}
    if scope != "lan":
        found[GATEWAY] = chosen(of_the_host)[::_STRIDE]
    if scope != "host":
        found[CLIENT] = chosen(lambda v: not v.prepared, Scope.LAN)[::_STRIDE]
    return found


TRIED = [
    pytest.param(scope, seat, name, id=f"{scope}-{seat.sender}-{name}")
    for scope in SCOPES
    for seat, names in vectors_of(scope).items()
    for name in names
]


@dataclass(frozen=True)
class Trials:
    """What was seen, by who has tried.

    Attributes:
        off: with protection off.
        on: with firehol alone, by scope.
        limits: of what it does not judge, with firehol alone.
        tables: those that nft knew then.
        pages: the address that the server saw of whom it served then.

    """

    off: dict[Seat, Trial]
    on: dict[tuple[str, Seat], Trial]
    limits: dict[str, Trial]
    tables: dict[str, str]
    pages: dict[tuple[str, str], str]


def sit(bench: Bench, seat: Seat) -> None:
    bench.sit(account=seat.account, owner=seat.owner, sender=seat.sender)


def page(bench: Bench, name: str) -> str:
    url = f"http://{bench.lab.web4}/"
    shown = bench.run("curl", "-sS", "--fail", "-m", "30", url, host=bench.lab.hosts[name])
    return str(json.loads(shown)["client"])


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    machine = Machine(lab, "gateway")
    found = Trials({}, {}, {}, {}, {})
    with ExitStack() as stack:
        stack.enter_context(forwarding(machine))
        stack.enter_context(source_routes(machine))
        bench = Bench(lab, tmp_path_factory.mktemp("firehol"), GATEWAY, backend="nftables")
        stack.callback(bench.end)
        stack.callback(empty_tables, bench.host, "legacy", "nft")
        for seat, names in vectors_of("both").items():
            sit(bench, seat)
            found.off[seat] = bench.try_control(names, f"off-{seat.sender}")
        for scope in SCOPES:
            bench.configure(CONFIGS[scope])
            bench.onionward("up")
            conf = bench.run(*bench.program("show", "firehol"))
            machine.end_guard()
            bench.run("sh", "-euc", firehol.script(conf))
            for table in machine.tables().splitlines():
                if "onionward" in table:
                    bench.run("nft", "delete", *table.split())
            found.tables[scope] = machine.tables()
            if scope != "lan":
                found.pages[scope, "gateway"] = page(bench, "gateway")
            if scope != "host":
                found.pages[scope, "client1"] = page(bench, "client1")
            for seat, names in vectors_of(scope).items():
                sit(bench, seat)
                found.on[scope, seat] = bench.try_vectors(names, f"{scope}-{seat.sender}")
            if scope != "lan":
                sit(bench, GATEWAY)
                found.limits[scope] = bench.try_vectors(LIMITS, f"{scope}-limits")
            bench.onionward("down")
            # it takes whichever variant of iptables it likes
            empty_tables(bench.host, "legacy", "nft")
        yield found


@pytest.mark.parametrize("sender", ["gateway", "client1"])
def test_the_witness_sees_all_of_them_with_protection_off(trials: Trials, sender: str) -> None:
    trial = next(trial for seat, trial in trials.off.items() if seat.sender == sender)
    assert {n: words for n, words in trial.outcomes.items() if not trial.seen(n)} == {}
    assert len(trial.outcomes) >= 12


@pytest.mark.parametrize(("scope", "seat", "name"), TRIED)
def test_it_does_not_leave(
    trials: Trials, scope: str, seat: Seat, name: str, faults: Faults
) -> None:
    trials.on[scope, seat].assert_silent(name, faults, "ways out, firehol alone")


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "lan"])
def test_nothing_else_leaves_either(trials: Trials, scope: str, faults: Faults) -> None:
    for (where, _), trial in trials.on.items():
        if where == scope:
            trial.assert_nothing_escaped(faults, "ways out, firehol alone")


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "lan"])
def test_what_is_said_not_to_be_judged_leaves(trials: Trials, scope: str) -> None:
    assert [name for name in LIMITS if not trials.limits[scope].seen(name)] == []


@pytest.mark.parametrize("scope", SCOPES)
def test_only_firehols_rules_were_there_and_tor_was_reached(
    lab: Lab, trials: Trials, scope: str
) -> None:
    assert "inet" not in trials.tables[scope]
    assert "netdev" not in trials.tables[scope]
    seen = {page for (where, _), page in trials.pages.items() if where == scope}
    assert seen
    assert seen <= set(lab.exits)
