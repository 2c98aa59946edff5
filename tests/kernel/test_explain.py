"""`explain` says what the kernel does.

Machines, policies and packets are drawn; each packet is sent for real under the rules of its
policy, and what becomes of it is compared with the verdict. The draws are the same in every run;
with ONIONWARD_TEST_SEED=<number> others are drawn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from onionward.explain import Verdict, explain
from onionward.render import nftables
from tests.kernel.cases import Case, Send
from tests.kernel.drawing import cases
from tests.kernel.fates import SILENCE, expected, report
from tests.kernel.machine import Machine

MOST = 40  # packets for each policy
TRIES = 3
_SEED = os.environ.get("ONIONWARD_TEST_SEED")


def drawn(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many examples, from the seed of the environment when there is one."""
    chosen = settings(
        max_examples=examples,
        deadline=None,
        derandomize=_SEED is None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        return chosen(test) if _SEED is None else seed(int(_SEED))(chosen(test))

    return decorate


def rules(case: Case) -> str:
    """What is rendered for the state of a case."""
    ruleset = nftables.route if case.state == "routed" else nftables.block
    return ruleset(case.policy).text


def judged(case: Case, send: Send) -> Verdict:
    return explain(
        case.policy, send.packet, case.addresses, attached=case.networks, state=case.state
    )


def mismatches(
    machine: Machine,
    case: Case,
    text: str,
    tally: Counter[str],
    tolerated: Callable[[Send, Verdict], Collection[str]] = lambda _send, _verdict: (),
) -> list[str]:
    """What the kernel does with the packets of a case otherwise than `explain` says.

    Args:
        machine: that has the rules.
        case: machine, policy and packets.
        text: the rules.
        tally: counts what was seen.
        tolerated: outcomes that are good besides.

    """
    verdicts = [judged(case, send) for send in case.sends]
    good = [
        {*expected(case, send, verdict), *tolerated(send, verdict)}
        for send, verdict in zip(case.sends, verdicts, strict=True)
    ]
    for _ in range(TRIES):
        batch = machine.try_out(case, text, good)
        outcomes = list(batch.outcomes())
        # on a busy machine a packet, or what is heard of it, comes too late; silence is no leak
        if all(o in ok for o, ok in zip(outcomes, good, strict=True) if o == SILENCE):
            break
    wrong = []
    for number, happened in enumerate(outcomes):
        send, verdict = case.sends[number], verdicts[number]
        who = "client: " if send.is_client else ""
        tally[f"{who}{verdict.outcome} IPv{send.packet.destination.version}"] += 1
        if happened not in good[number]:
            wrong.append(report(case, send, verdict, happened, batch.fates[number]))
    wrong += [f"nobody was asked to send this, but it left: {stray}" for stray in batch.strays]
    return wrong


def hold(machine: Machine, case: Case, tally: Counter[str]) -> None:
    wrong = mismatches(machine, case, rules(case), tally)
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(case.sends)} packets\n\n{wrong[0]}")


def enough(tally: Counter[str], pairs: int, outcomes: Iterable[str]) -> None:
    """Nothing is shown by packets that were not sent."""
    assert tally.total() >= pairs, tally
    for outcome in outcomes:
        for family in ("IPv4", "IPv6"):
            assert tally[f"{outcome} {family}"] >= 5, tally


PROGRAMS = ("trans-port", "dns-port", "full-dns", "local", "direct", "refused")
CLIENTS = ("trans-port", "dns-port", "local", "refused", "dropped")


@pytest.mark.timeout(900)  # a failure takes a while to shrink
def test_routed(machine: Machine) -> None:
    tally: Counter[str] = Counter()

    @drawn(examples=200)
    @given(cases("routed", MOST))
    def agree(case: Case) -> None:
        hold(machine, case, tally)

    agree()
    enough(tally, 4000, (*PROGRAMS, *(f"client: {outcome}" for outcome in CLIENTS)))


@pytest.mark.timeout(900)
def test_blocked(machine: Machine) -> None:
    """Nothing of a scope gets out but tor's TCP, DHCP and what kept connections have to say."""
    tally: Counter[str] = Counter()

    @drawn(examples=80)
    @given(cases("blocked", MOST))
    def agree(case: Case) -> None:
        hold(machine, case, tally)

    agree()
    enough(tally, 1500, (*PROGRAMS[3:], *(f"client: {outcome}" for outcome in CLIENTS[2:])))
