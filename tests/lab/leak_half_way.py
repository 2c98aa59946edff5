"""`onionward up` that stays blocked: its tor looks for a network that is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.lab.leak_bench import Bench

_NOWHERE = "/run/onionward-lab/nowhere.torrc"
_AUTHORITIES, ELSEWHERE = "198.18.1.", "198.18.77."


@contextmanager
def half_way_up(bench: Bench, text: str = "") -> Iterator[None]:
    """The machine stays blocked while the block runs; afterwards the program is killed.

    Args:
        bench: whose machine.
        text: its configuration, beside Tor's network.

    """
    moved = bench.lab.network_torrc.read_text().replace(_AUTHORITIES, ELSEWHERE)
    (bench.host.root / _NOWHERE.lstrip("/")).write_text(moved)
    relays = [(host.replace(_AUTHORITIES, ELSEWHERE), port) for host, port in bench.lab.relays]
    bench.exempt = replace(bench.exempt, relays=tuple(relays))
    # what tor remembers of the network that is there would lead it to its relays
    bench.run("rm", "--recursive", "--force", "/var/lib/onionward/tor")
    bench.configure(text, network=_NOWHERE)
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
        yield
        assert up.poll() is None, "it was not blocked all the time"
    finally:
        up.kill()
        up.communicate(timeout=20)
