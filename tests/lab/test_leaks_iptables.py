"""The catalogue and the flood once more, with iptables: some of it here, all of it on request.

ONIONWARD_TEST_BACKEND=iptables-nft (or iptables-legacy) has every test of leaks and scopes use
that filter; the report does so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.wire import Capture, Exempt
from tests.lab.leak_bench import Bench
from tests.lab.leak_flood import KINDS
from tests.lab.leak_trial import Trace, Trial
from tests.lab.test_leaks_flood import BYPASSED as OTHERWISE
from tests.lab.test_leaks_flood import LAB_NETWORK, OTHER_TOR, SIGHT, flooding, seen_kinds
from tests.lab.test_leaks_host import PLAIN

# how far apart the vectors are that are tried here
_STRIDE = int(os.environ.get("ONIONWARD_SWEEP", 12))
SOME = PLAIN[::_STRIDE]
VARIANTS = ("iptables-legacy", *(("iptables-nft",) if "ONIONWARD_SWEEP" in os.environ else ()))


@dataclass(frozen=True)
class Seen:
    """What the witness saw.

    Attributes:
        off: of the vectors, with protection off.
        routed: the same, with a routed host.
        before: the kinds of the flood that were seen shortly before `up`.
        flood: from then until after `down`.
        after: the kinds that were seen since.
        exempt: what may be seen.
        up: what `up` did.
        down: what `down` did.

    """

    off: Trial
    routed: Trial
    before: set[str]
    flood: Capture
    after: set[str]
    exempt: Exempt
    up: Trace
    down: Trace


@pytest.fixture(scope="module", params=VARIANTS)
def seen(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    bench = Bench(lab, tmp_path_factory.mktemp("tables"), backend=request.param)
    try:
        off = bench.try_control(SOME, "off")
        with flooding(bench.host, bench.targets):
            before = seen_kinds(bench, "before")
            with bench.witness.watch("flood") as capture:
                up = bench.onionward("up")
                for text, tor in ((OTHERWISE, ""), ("", OTHER_TOR)):
                    bench.configure(text, tor=tor, network=LAB_NETWORK)
                    bench.onionward("up")
                down = bench.onionward("down")
            after = seen_kinds(bench, "after")
        bench.configure()
        bench.onionward("up")
        routed = bench.try_vectors(SOME, "routed")
        yield Seen(off, routed, before, capture, after, bench.exempt, up, down)
    finally:
        bench.end()


def test_the_witness_sees_them_with_protection_off(seen: Seen) -> None:
    assert [name for name in SOME if not seen.off.seen(name)] == []
    assert len(SOME) >= 20


def test_nothing_leaves_a_routed_host(seen: Seen) -> None:
    assert seen.routed.broken(SOME) == {}
    assert [name for name in SOME if seen.routed.seen(name)] == []
    assert seen.routed.escaped() == ()


def test_the_witness_sees_the_flood_before_and_after(seen: Seen) -> None:
    assert seen.before == seen.after == KINDS.keys()
    begun = seen.up.loads()[0][0]
    assert any(packet.time < begun for packet in seen.flood.packets(SIGHT["udp"]))


def test_nothing_of_the_flood_escapes_from_block_to_release(seen: Seen) -> None:
    blocked, released = seen.up.blocked_by(), seen.down.loads()[-1][0]
    escaped = seen.flood.packets(seen.exempt.escaped(), since=blocked)
    assert [packet for packet in escaped if packet.time < released] == []
