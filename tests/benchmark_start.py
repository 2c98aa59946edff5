"""Cold start of the command line over the bare interpreter.

    python tests/benchmark_start.py [RUNS]

Runs are paired: each command is timed immediately after a bare interpreter, so that what else the
machine does weighs on both. `status` really reads this machine when it is root's, which takes the
time of a few `nft` calls; what Python itself needs is the row below it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

TARGET = 0.060
BARE_SECONDS = 0.010  # of a bare interpreter, on the processor that the target is for
BARE = (sys.executable, "-c", "pass")
COMMANDS = {
    "--help": (sys.executable, "-m", "onionward", "--help"),
    "status": (sys.executable, "-m", "onionward", "status"),
    "status (imports)": (sys.executable, "-c", "import onionward.__main__, onionward.status"),
}


def seconds(argv: Sequence[str]) -> float:
    """One cold start."""
    start = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def pairs(argv: Sequence[str], runs: int) -> list[tuple[float, float]]:
    """Seconds of the bare interpreter and of a command, alternating."""
    seconds(argv)  # compiled and in the page cache from here on
    return [(seconds(BARE), seconds(argv)) for _ in range(runs)]


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    sys.stdout.write(f"{'':18}{'bare':>9}{'command':>9}{'over':>9}   (median of {runs}, ms)\n")
    for name, argv in COMMANDS.items():
        measured = pairs(argv, runs)
        bare, whole, over = (
            statistics.median(column) * 1000
            for column in zip(*((b, c, c - b) for b, c in measured), strict=True)
        )
        verdict = "" if over <= TARGET * 1000 else f"   more than {TARGET * 1000:.0f}"
        sys.stdout.write(f"{name:18}{bare:9.1f}{whole:9.1f}{over:9.1f}{verdict}\n")


if __name__ == "__main__":
    main()
