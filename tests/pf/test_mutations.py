"""Every rule is needed: without it, or with its action turned round, some packet fares otherwise.

Each mutation has to be noticed on one of several machines at least; what survives is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from onionward.explain import State
from onionward.policy import Policy
from onionward.render.pf import DialectName
from tests.pf.grammar import Anchor, Parsed
from tests.pf.machine import DIALECTS, Machine, anchor_of
from tests.pf.questions import Answered, answered, ask, machines

MACHINES = machines()
# What survives in every machine, and why the rule is there all the same.
SPARE = {
    "pass out quick on lo1 ": "what route-to sends there has a state; without one, the machine's "
    "own rules would be asked",
    "block return in quick on lo1 ": "all that is turned round is redirected; the last word is "
    "said all the same",
    "no rdr on fxp0 from any to (fxp0)": "`to (self)` says it, too",
    "block return in quick on fxp0 from any to <unroutable>": "where translation comes first, the "
    "last rule says it, too",
}


def mutants(anchor: Anchor, rule: Parsed) -> Iterator[tuple[str, Anchor]]:
    """The anchor without a rule, and with its action turned round."""
    turned = {"pass": "drop", "drop": "pass", "return": "pass"}.get(rule.kind)
    yield "deleted", _with(anchor, rule, [])
    if turned is not None:
        other = replace(rule, kind=turned, redirect=None, turned="")
        yield f"turned into {turned}", _with(anchor, rule, [other])


def _with(anchor: Anchor, rule: Parsed, instead: list[Parsed]) -> Anchor:
    def changed(rules: list[Parsed]) -> list[Parsed]:
        return [new for one in rules for new in (instead if one is rule else [one])]

    return Anchor(anchor.tables, changed(anchor.translation), changed(anchor.filter))


def survivors(policy: Policy, state: State, dialect: DialectName) -> tuple[set[str], set[str]]:
    """Mutations that some packet notices, and those that none does."""
    anchor = anchor_of(policy, state, dialect)
    asked: dict[str, list[Answered]] = {}
    for found in answered(policy, state, dialect):
        for text in found.rules:
            asked.setdefault(text, []).append(found)
    dead: set[str] = set()
    alive: set[str] = set()
    for rule in (*anchor.translation, *anchor.filter):
        for words, mutant in mutants(anchor, rule):
            # a rule that decided nothing changes nothing when it goes or decides otherwise
            machine = Machine(policy, mutant)
            noticed = any(ask(machine, f.question) != f.answer for f in asked.get(rule.text, ()))
            (dead if noticed else alive).add(f"{rule.text}: {words}")
    return dead, alive


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("state", ["routed", "blocked"])
def test_no_rule_can_go_or_be_turned_round(state: State, dialect: DialectName) -> None:
    found = [survivors(policy, state, dialect) for policy in MACHINES.values()]
    dead = set[str]().union(*(noticed for noticed, _ in found))
    left = set[str]().union(*(unnoticed for _, unnoticed in found)) - dead
    print(f"{state}, {dialect}: {len(dead)} mutations die, {len(left)} survive")  # noqa: T201
    for text in sorted(left):
        reason = next((why for spare, why in SPARE.items() if text.startswith(spare)), "")
        print(f"  {text}\n    because: {reason}")  # noqa: T201
        assert reason, text
    assert len(dead) > 10 * len(left)
