"""Runs without root against SOCKS, and how soon a command begins.

    python tests/benchmark_run_rootless.py [PAIRS]

Builds a lab. Runs are paired: a measurement over SOCKS is followed at once by the same one in a run
that shares its circuits, so that what else the machine and the network do weighs on both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from onionward.lab import build, destroy
from onionward.system import System
from tests.lab.app_rootless_account import PYTHON, TESTS, Account, account_of

START = 0.120
"""Seconds that a run may take until its command begins, over the bare interpreter."""
THROUGHPUT = 0.8
"""Of what SOCKS has."""
SETUP = 0.005
"""Seconds that a connection may take longer."""
SIZE = 20_000_000
CONNECTIONS = 20
_NAME = "benchmark"
_METER = (PYTHON, "-I", f"{TESTS}/app_rootless_meter.py")


def first_instruction(argv: Sequence[str]) -> float:
    """Seconds until a command says its first byte."""
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        taken = time.perf_counter() - begun
        process.stdout.read()
    assert process.returncode == 0
    return taken


def start_pairs(account: Account, runs: int) -> list[tuple[float, float]]:
    """Seconds until a bare interpreter has begun, and until a run's command has."""
    bare = account.command(PYTHON, "-c", "print(1)")
    run = account.run_command("echo", "1")
    first_instruction(run)
    return [(first_instruction(bare), first_instruction(run)) for _ in range(runs)]


def pairs(account: Account, what: str, count: int) -> list[tuple[float, float]]:
    """Seconds over SOCKS and in a run, of the meter's `what`."""
    options = ("--name", _NAME)
    assert account.run("true", options=options).returncode == 0
    runtime = f"{account.variables['XDG_RUNTIME_DIR']}/onionward"
    password = (account.root / f"{runtime.lstrip('/')}/circuits/{_NAME}").read_text()
    words = (what, account.lab.web4)
    socks = account.command(*_METER, *words, f"{runtime}/tor/socks4", password)

    def over_socks() -> float:
        return float(subprocess.check_output(socks, timeout=300))

    def in_a_run() -> float:
        return float(account.output(*_METER, *words, options=options))

    over_socks()
    return [(over_socks(), in_a_run()) for _ in range(count)]


def ratio(found: Sequence[tuple[float, float]]) -> float:
    """How fast a run is, SOCKS being 1."""
    return statistics.median(socks / run for socks, run in found)


def difference(found: Sequence[tuple[float, float]]) -> float:
    """By how many seconds the second of a pair is slower."""
    return statistics.median(second - first for first, second in found)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    name = f"test-{os.getpid()}"
    lab = build(System(), name=name, progress=lambda _: None)
    try:
        with account_of(lab) as account:
            _print(account, count)
    finally:
        destroy(System(), name)


def _print(account: Account, count: int) -> None:
    soon = difference(start_pairs(account, 3 * count))
    longer = difference(pairs(account, f"setup/{CONNECTIONS}", count))
    speed = ratio(pairs(account, f"bytes/{SIZE}", count))
    for words, value, limit in (
        ("a command begins, over the interpreter", soon, START),
        ("connection to first byte, over SOCKS", longer, SETUP),
    ):
        verdict = "" if value <= limit else f"   more than {limit * 1000:.0f}"
        sys.stdout.write(f"{words:40}{value * 1000:9.1f} ms{verdict}\n")
    verdict = "" if speed >= THROUGHPUT else f"   less than {THROUGHPUT}"
    sys.stdout.write(f"{'throughput, SOCKS being 1':40}{speed:9.2f}{verdict}\n")


if __name__ == "__main__":
    main()
