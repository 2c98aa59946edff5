"""Activation, reload and removal under a flood: not one packet in between.

internet ── host0 (witness) ── eth0 host (six processes that send without pause)
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from onionward.lab import Host, Lab
from onionward.leaks.model import Targets
from onionward.leaks.wire import Capture, Exempt
from tests.lab.leak_bench import Bench
from tests.lab.leak_flood import KINDS, PORT
from tests.lab.leak_trial import Trace
from tests.report import Faults

_PATIENCE = 30.0  # seconds; other tests run on this machine, too
FLOOD = Path(__file__).with_name("leak_flood.py")
BYPASSED = '[bypass]\nnetworks = ["198.18.200.0/24"]\n'
OTHER_TOR = 'virtual_networks = ["127.128.0.0/10"]\n'
LAB_NETWORK = "/run/onionward-lab/network.torrc"
# all but the last change rules only, often, for a gap of microseconds must be hit; the last
# restarts tor, behind a block
RELOADS = (*((("", "", 1), (BYPASSED, "", 1)) * 10), ("", "", 1), ("", OTHER_TOR, 2))
SIGHT = {
    "udp": f"udp dst port {PORT}",
    "names": "udp dst port 53",
    "tcp": f"tcp dst port {PORT}",
    "ping": "icmp[0] = 8",
    "raw": "ip proto 253",
    "frames": "ether proto 0x88b5",
}


@dataclass(frozen=True)
class Flood:
    """What was seen until shortly before `up`, from there until after `down`, and since."""

    before: set[str]
    capture: Capture
    after: set[str]
    exempt: Exempt
    up: Trace
    reloads: tuple[Trace, ...]
    down: Trace


@contextlib.contextmanager
def flooding(host: Host, targets: Targets) -> Iterator[None]:
    """Six processes send without pause."""
    with contextlib.ExitStack() as stack:
        for kind in KINDS:
            words = ["python", str(FLOOD), kind, targets.stranger4]
            words += [targets.device_mac, targets.far_mac]
            process = subprocess.Popen(host.command(words), stdin=subprocess.PIPE)
            stack.callback(process.communicate, timeout=20)
        yield


def seen_kinds(bench: Bench, label: str) -> set[str]:
    """Which kinds the witness sees, as soon as it has seen them all, or after a while."""
    deadline = time.monotonic() + _PATIENCE
    seen: set[str] = set()
    while seen != KINDS.keys() and time.monotonic() < deadline:
        with bench.witness.watch(label) as capture:
            time.sleep(0.1)
        seen |= {kind for kind in KINDS if capture.count(SIGHT[kind])}
    return seen


@pytest.fixture(scope="module")
def flood(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flood]:
    bench = Bench(lab, tmp_path_factory.mktemp("flood"))
    try:
        with flooding(bench.host, bench.targets):
            before = seen_kinds(bench, "before")
            with bench.witness.watch("flood") as capture:
                up = bench.onionward("up")
                reloads = []
                for text, tor, _ in RELOADS:
                    bench.configure(text, tor=tor, network=LAB_NETWORK)
                    reloads.append(bench.onionward("up"))
                down = bench.onionward("down")
            after = seen_kinds(bench, "after")
        yield Flood(before, capture, after, bench.exempt, up, tuple(reloads), down)
    finally:
        bench.end()


def test_the_witness_sees_the_flood_before_and_after(flood: Flood) -> None:
    assert flood.before == flood.after == KINDS.keys()
    begun = flood.up.loads()[0][0]
    assert any(packet.time < begun for packet in flood.capture.packets(SIGHT["udp"]))


def test_nothing_escapes_from_block_to_release(flood: Flood, faults: Faults) -> None:
    blocked, released = flood.up.blocked_by(), flood.down.loads()[-1][0]
    escaped = flood.capture.packets(flood.exempt.escaped(), since=blocked)
    leaks = [packet for packet in escaped if packet.time < released]
    faults.record(
        "rules loaded under a flood",
        tried=len(flood.reloads) + 2,
        clear=len(leaks),
        seconds=released - blocked,
    )
    assert leaks == []


def test_rules_were_loaded_again_each_time(flood: Flood) -> None:
    assert [len(trace.loads()) for trace in flood.reloads] == [loads for _, _, loads in RELOADS]
