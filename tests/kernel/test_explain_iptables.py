"""iptables does what `explain` says, as nft does: the same draws, the same packets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given

from onionward.config import Config
from onionward.explain import State, Verdict
from onionward.networks import contains
from tests.kernel.cases import Case, Send
from tests.kernel.drawing import cases
from tests.kernel.fates import SILENCE
from tests.kernel.iptables import script
from tests.kernel.machine import Machine
from tests.kernel.test_explain import MOST, drawn, mismatches
from tests.support import net


@pytest.fixture(scope="module", params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def tables(variant: str) -> Iterator[Machine]:
    """A machine of its own: nft's rules would judge the same packets once more."""
    assert variant
    defaults = Config().tor
    built = Machine(defaults.trans_port, defaults.dns_port, loader="sh -eu")
    try:
        yield built
    finally:
        built.close()


# where the kernel finds no address of the same scope for an interface (RFC 4007)
_OTHER_SCOPES = tuple(map(net, ("fe80::/10", "fec0::/10", "::/96")))


def untold(send: Send, verdict: Verdict) -> tuple[str, ...]:
    """What the kernel cannot turn round to where it can be refused, it drops.

    That is many a protocol, and IPv6 for a scope in which the interface has no address.
    """
    to = send.packet.destination
    if verdict.outcome != "refused":
        return ()
    if not send.is_client:
        # the first address of a network that is local: nft takes it for a group, iptables for
        # this machine, which refuses it on loopback
        return ("local",) if to.version == 6 and not int(to) & 0xFFFF_FFFF else ()
    can_be = send.packet.protocol in ("tcp", "udp") or send.kind_is_icmp
    return () if can_be and not contains(_OTHER_SCOPES, to) else (SILENCE,)


# of each variant; the sum of both is more than a thousand
_PAIRS = [("routed", 20, 425), ("blocked", 6, 150)]
_ALL_PAIRS = [("routed", 40, 850), ("blocked", 12, 300)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("state", "examples", "pairs"), _ALL_PAIRS if "ONIONWARD_SWEEP" in os.environ else _PAIRS
)
def test_iptables_agrees(
    tables: Machine, variant: str, state: State, examples: int, pairs: int
) -> None:
    tally: Counter[str] = Counter()

    @drawn(examples)
    @given(cases(state, MOST))
    def agree(case: Case) -> None:
        wrong = mismatches(tables, case, script(case, variant), tally, untold)
        assert not wrong, f"{len(wrong)} of {len(case.sends)} packets\n\n{wrong[0]}"

    agree()
    assert tally.total() >= pairs, tally
