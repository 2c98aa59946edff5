"""`onionward run` in the lab: how soon a command begins, and what connections cost it.

    python tests/benchmark_app.py [RUNS]

Each start is timed from the call to the command's first instruction, immediately after a bare
interpreter, so that what else the machine does weighs on both. Downloads and connections go in
turns by a run, by tor's own SOCKS port, and by torsocks where it is installed, over the same tor.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.benchmark_start import BARE_SECONDS

if TYPE_CHECKING:
    from onionward.lab import Host, Lab

TARGET = 0.060
SIZE = 20_000_000
_RUN = ("onionward", "run", "--")
_SOCKS = 9050


def _output(host: Host, *argv: str) -> str:
    done = subprocess.run(
        host.command(argv), capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


class Runs:
    """Runs on a host of the lab whose tor is there."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _begun(self) -> float:
        start = time.time()
        return float(_output(self._host, *_RUN, "date", "+%s.%N")) - start

    def _bare(self) -> float:
        start = time.time()
        _output(self._host, "python", "-c", "pass")
        return time.time() - start

    def pairs(self, count: int) -> list[tuple[float, float]]:
        """Seconds of a bare interpreter, and until a command began, alternating."""
        return [(self._bare(), self._begun()) for _ in range(count)]

    def end(self) -> None:
        """Leave the host as it was."""
        _output(self._host, "onionward", "down")


def prepared(host: Host) -> Runs:
    """Have tor up for runs."""
    _output(host, *_RUN, "true")
    return Runs(host)


def best_over(taken: Sequence[tuple[float, float]]) -> float:
    """What a run takes over the bare interpreter at its best: noise only ever adds."""
    return min(whole for _, whole in taken) - min(bare for bare, _ in taken)


def limit(taken: Sequence[tuple[float, float]]) -> float:
    """Seconds that it may take; a slower processor than the target's needs longer for both."""
    return TARGET * max(1.0, min(bare for bare, _ in taken) / BARE_SECONDS)


def ways(host: Host) -> dict[str, tuple[tuple[str, ...], str]]:
    """What stands before a shell, and which options curl gets, by each way that there is."""
    found: dict[str, tuple[tuple[str, ...], str]] = {
        # of one name, so that a circuit is there already, as it is for the others
        "onionward run": (("onionward", "run", "--name", "bench", "--"), ""),
        "SOCKS": ((), f"--socks5-hostname 127.0.0.1:{_SOCKS}"),
    }
    which = subprocess.run(host.command(["which", "torsocks"]), capture_output=True, check=False)
    if which.returncode == 0:
        # "sh" is a command of its own
        found["torsocks"] = (("torsocks", "-P", str(_SOCKS), "env"), "")
    return found


def measured(host: Host, url: str, words: str, count: int, each: int) -> dict[str, float]:
    """The median of what curl says of itself, by way; all ways in turns, several times each."""
    taken: dict[str, list[float]] = {}
    for _ in range(count):
        for name, (before, options) in ways(host).items():
            curl = f"curl -sS -o /dev/null -m 120 -w '{words}\\n' {options} {url}"
            loop = f"for n in $(seq {each}); do {curl}; done"
            lines = _output(host, *before, "sh", "-c", loop).split()
            taken.setdefault(name, []).extend(map(float, lines))
    return {name: statistics.median(values) for name, values in taken.items()}


def open_socks(host: Host) -> None:
    """Have the tor of runs offer SOCKS as well."""
    from onionward.lab.control import Control
    from onionward.paths import OF_RUNS

    socket, cookie = (
        host.root / str(path).lstrip("/")
        for path in (OF_RUNS.control_socket, OF_RUNS.control_cookie)
    )
    with Control(socket, timeout=30, cookie=cookie.read_bytes()) as control:
        control.ask(f"SETCONF SocksPort=127.0.0.1:{_SOCKS}")


def _print_ways(host: Host, lab: Lab, count: int) -> None:
    whole = measured(host, f"http://{lab.web4}/bytes/{SIZE}", "%{speed_download}", count, 1)
    # until the answer's first byte: by a run the connection is there when tor has it, not the exit
    first = measured(host, f"http://{lab.web4}/", "%{time_starttransfer}", count, 6)
    sys.stdout.write(
        f"\n{'':18}{'MB/s':>9}{'first byte ms':>16}   (medians of {count}, in turns)\n"
    )
    for name in whole:
        sys.stdout.write(f"{name:18}{whole[name] / 1e6:9.1f}{first[name] * 1000:16.1f}\n")
    sys.stdout.write(f"of SOCKS: {whole['onionward run'] / whole['SOCKS']:.2f}\n")


def main() -> None:
    """Print the tables."""
    from onionward.lab import build, destroy
    from onionward.system import System

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    name = f"bench-{os.getpid()}"
    silent: Callable[[str], None] = lambda _: None  # noqa: E731
    lab = build(System(), name=name, progress=silent)
    try:
        host = lab.hosts["host"]
        runs = prepared(host)
        taken = runs.pairs(2 * count)
        bare, begun, over = (
            statistics.median(column) * 1000
            for column in zip(*((b, w, w - b) for b, w in taken), strict=True)
        )
        sys.stdout.write(f"{'':18}{'bare':>9}{'begun':>9}{'over':>9}   (medians, ms)\n")
        sys.stdout.write(f"{'onionward run':18}{bare:9.1f}{begun:9.1f}{over:9.1f}\n")
        open_socks(host)
        _print_ways(host, lab, count)
        json.loads(_output(host, *_RUN, "curl", "-sS", f"http://{lab.web4}/"))
        runs.end()
    finally:
        destroy(System(), name)


if __name__ == "__main__":
    main()
