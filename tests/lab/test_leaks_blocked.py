"""Blocked: tor tries to reach a network that is not there, and nothing else leaves.

internet ── host0 (witness) ── eth0 host (`onionward up` waits for tor)
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Needs
from tests.lab.leak_bench import Bench, Trial, chosen

# what goes through tor first needs a tor
VECTORS = chosen(
    lambda v: (
        not v.prepared
        and not v.limit
        and v.needs in {Needs.NOTHING, Needs.TOR_GROUP}
        and v.family != "C1"
    )
)
NOWHERE = "/run/onionward-lab/nowhere.torrc"
AUTHORITIES, ELSEWHERE = "198.18.1.", "198.18.77."


@pytest.fixture(scope="module")
def blocked(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    bench = Bench(lab, tmp_path_factory.mktemp("blocked"))
    moved = lab.network_torrc.read_text().replace(AUTHORITIES, ELSEWHERE)
    (bench.host.root / NOWHERE.lstrip("/")).write_text(moved)
    relays = [(host.replace(AUTHORITIES, ELSEWHERE), port) for host, port in lab.relays]
    bench.exempt = replace(bench.exempt, relays=tuple(relays))
    # what tor remembers of the network that is there would lead it to its relays
    bench.run("rm", "--recursive", "--force", "/var/lib/onionward/tor")
    bench.configure(network=NOWHERE)
    up = subprocess.Popen(
        bench.onionward_command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert up.stderr
        words = ""
        # rules are announced, loaded and read back before tor is started
        while "] tor --" not in words:
            line = up.stderr.readline()
            assert line, words
            words += line
        trial = bench.try_vectors(VECTORS, "blocked")
        assert up.poll() is None, "it was not blocked all the time"
        yield trial
    finally:
        up.kill()
        up.communicate(timeout=20)
        bench.end()


def test_nothing_escapes_while_blocked(blocked: Trial) -> None:
    assert blocked.escaped() == ()


@pytest.mark.parametrize("name", VECTORS)
def test_it_does_not_leave_a_blocked_host(blocked: Trial, name: str) -> None:
    assert not blocked.outcomes[name].startswith("broken"), blocked.outcomes[name]
    assert blocked.seen(name) == ()


def test_tor_itself_was_seen(blocked: Trial) -> None:
    assert blocked.capture.count(f"tcp and dst net {ELSEWHERE}0/24")
