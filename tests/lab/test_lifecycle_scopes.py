"""Every scope: `up`, `up` again, `up` with another configuration, `down`; and nothing remains.

    off ──► each of five configurations ──► off          the machine is exactly as it was
    each of them ──► each of the others                  as after an `up` from the beginning

Meanwhile everybody sends without a pause (see lifecycle_scopes.py): what is routed before and after
a change is never seen in clear, what is routed neither before nor after keeps its connections, and
of what a configuration gives up no connection goes on in clear.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import (
    LOADED,
    REMOVED,
    completed,
    reached,
    repeated,
    run_logged,
)
from tests.lab.lifecycle_machine import Machine, difference
from tests.lab.lifecycle_scopes import (
    BOB,
    CONTROL,
    ONION_ONLY,
    SCOPES,
    SENDERS,
    Scope,
    Stage,
    essence,
    furnished_gateway,
    stage,
)
from tests.report import chance


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with furnished_gateway(lab) as opened:
        yield opened


def assert_status(machine: Machine, scope: Scope) -> None:
    report = machine.status()
    assert report["state"] == "routed"
    assert report["problems"] == []
    assert report["forwarded"] == scope.clients
    for words, start in zip(report["scopes"], scope.scopes, strict=True):
        assert words.startswith(start)
    text = machine.output("onionward", "status")
    for name, what in scope.clients.items():
        assert f"  clients   behind {name}: {what}\n" in text


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_down_leaves_the_machine_as_it_was(machine: Machine, scope: Scope) -> None:
    before = machine.snapshot()
    machine.configure(scope.text)
    machine.up()
    group = Path(machine.journal()["undo"]["tor"]["cgroup"])
    assert group.exists()
    assert_status(machine, scope)
    routed = essence(machine)
    tor = machine.tor_pids()
    machine.up()
    assert machine.tor_pids() == tor
    assert difference(routed, essence(machine)) == ""
    assert_status(machine, scope)
    machine.down()
    assert difference(before, machine.snapshot()) == ""
    assert not group.exists()
    assert machine.output("conntrack", "-L", "-p", "udp").count("mark=19534607") == 0


def test_an_account_that_up_has_made_stays_and_nothing_else(machine: Machine) -> None:
    before = machine.snapshot()
    machine.configure(BOB.replace("bob", "dave") + CONTROL)
    try:
        done = machine.up("--create-users")
        assert "account dave created" in done.stdout
        assert [words[:11] for words in machine.status()["scopes"]] == ["user: dave "]
        machine.down()
        home = machine.output("getent", "passwd", "dave").split(":")[5]
        assert machine.output("stat", "--format=%U", home) == "dave\n"
    finally:
        machine.run("userdel", "--remove", "dave")
    assert difference(before, machine.snapshot()) == ""


def test_the_original_resolv_conf_outlives_a_damaged_journal(machine: Machine) -> None:
    before = machine.snapshot()
    machine.configure(ONION_ONLY.text)
    machine.up()
    machine.path("/var/lib/onionward/journal.json").write_text("garbage")
    machine.down("--force")
    now = machine.snapshot()
    assert now["file"]["/etc/resolv.conf"] == before["file"]["/etc/resolv.conf"]
    assert machine.status()["state"] == "off"
    assert difference(before, now) == ""


def every_change(scopes: Sequence[Scope]) -> list[Scope]:
    """A way from the first that takes every step from one to another once, and ends there."""
    left = {a.name: [b for b in scopes if b is not a] for a in scopes}
    way, back = [scopes[0]], []
    while way:  # Hierholzer's
        if left[way[-1].name]:
            way.append(left[way[-1].name].pop())
        else:
            back.append(way.pop())
    return back[::-1]


def test_every_change_is_taken_once() -> None:
    way = every_change(SCOPES)
    steps = {(a.name, b.name) for a, b in itertools.pairwise(way)}
    assert len(steps) == len(way) - 1 == len(SCOPES) * (len(SCOPES) - 1)


def change(stage: Stage, old: Scope | None, new: Scope) -> None:
    """`up` with another configuration, and everybody's packets meanwhile."""
    before = old.routed if old else frozenset[str]()
    everybody = frozenset(SENDERS)
    stage.machine.configure(new.text)
    heard = stage.senders.all_heard()
    begun = time.time()
    effects = run_logged(stage.machine, "up")
    loaded = completed(effects, LOADED)
    assert loaded is not None
    stage.senders.wait_until_all_hear()
    now = time.time()
    stage.assert_silent(before & new.routed, begun, now)
    stage.assert_silent(new.routed - before, loaded, now)
    stage.assert_no_tails()
    after = stage.senders.all_heard()
    for name in everybody - before - new.routed:
        assert after[name].opened == heard[name].opened, (
            f"a connection of {name} was cut: {new.name}"
        )
    assert_status(stage.machine, new)


def down(stage: Stage, old: Scope) -> None:
    """`down`, and everybody's packets meanwhile."""
    heard = stage.senders.all_heard()
    begun = time.time()
    effects = run_logged(stage.machine, "down")
    opened = reached(effects, REMOVED)
    assert opened is not None
    stage.assert_silent(old.routed, begun, opened)
    stage.senders.wait_until_all_hear()
    stage.assert_no_tails()
    after = stage.senders.all_heard()
    for name in frozenset(SENDERS) - old.routed:
        assert after[name].opened == heard[name].opened, f"a connection of {name} was cut"


FEW = 8  # steps that are taken when it is no sweep


def some_changes() -> list[Scope]:
    """A part of that way, another in each run; the whole way in a sweep (tests/report.py)."""
    way = every_change(SCOPES)
    steps = repeated(FEW, len(way) - 1)
    first = chance("changes").randint(0, len(way) - 1 - steps)
    return way[first : first + steps + 1]


def test_every_change_of_configuration(lab: Lab) -> None:
    with stage(lab) as everything:
        machine = everything.machine
        before = machine.snapshot()
        fresh: dict[str, dict[str, Any]] = {}
        way = some_changes()
        for scope in {scope.name: scope for scope in way}.values():
            change(everything, None, scope)
            fresh[scope.name] = essence(machine)
            down(everything, scope)
            assert difference(before, machine.snapshot()) == "", scope.name
        change(everything, None, way[0])
        for old, new in itertools.pairwise(way):
            change(everything, old, new)
            remains = difference(fresh[new.name], essence(machine))
            assert remains == "", f"{old.name} -> {new.name}"
        down(everything, way[-1])
        assert difference(before, machine.snapshot()) == ""
