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

from onionward.lab import Lab
from onionward.leaks.wire import Capture, Exempt
from tests.lab.leak_bench import Bench, Trace
from tests.lab.leak_flood import KINDS, PORT

# on a machine where other tests run, too
_STARTING_SECONDS = 2.5
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
    """One capture from before `up` until after `down`."""

    capture: Capture
    exempt: Exempt
    up: Trace
    reloads: tuple[Trace, ...]
    down: Trace


@contextlib.contextmanager
def flooding(bench: Bench) -> Iterator[None]:
    targets = bench.targets
    with contextlib.ExitStack() as stack:
        for kind in KINDS:
            words = ["python", str(FLOOD), kind, targets.stranger4]
            words += [targets.device_mac, targets.far_mac]
            process = subprocess.Popen(bench.host.command(words), stdin=subprocess.PIPE)
            stack.callback(process.communicate, timeout=20)
        yield


@pytest.fixture(scope="module")
def flood(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flood]:
    bench = Bench(lab, tmp_path_factory.mktemp("flood"))
    try:
        with bench.witness.watch("flood") as capture, flooding(bench):
            time.sleep(_STARTING_SECONDS)
            up = bench.onionward("up")
            reloads = []
            for text, tor, _ in RELOADS:
                bench.configure(text, tor=tor, network=LAB_NETWORK)
                reloads.append(bench.onionward("up"))
            down = bench.onionward("down")
            time.sleep(_STARTING_SECONDS)
        yield Flood(capture, bench.exempt, up, tuple(reloads), down)
    finally:
        bench.end()


@pytest.mark.parametrize("kind", KINDS)
def test_the_witness_sees_the_flood_before_and_after(flood: Flood, kind: str) -> None:
    seen = flood.capture.packets(SIGHT[kind])
    assert any(packet.time < flood.up.loads()[0][0] for packet in seen)
    assert any(packet.time > flood.down.loads()[-1][1] for packet in seen)


def test_nothing_escapes_from_block_to_release(flood: Flood) -> None:
    blocked, released = flood.up.blocked_by(), flood.down.loads()[-1][0]
    escaped = flood.capture.packets(flood.exempt.escaped(), since=blocked)
    assert [packet for packet in escaped if packet.time < released] == []


def test_rules_were_loaded_again_each_time(flood: Flood) -> None:
    assert [len(trace.loads()) for trace in flood.reloads] == [loads for _, _, loads in RELOADS]
