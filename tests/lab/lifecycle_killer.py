"""onionward that dies: `lifecycle_killer.py N LOG ARGUMENT…`.

Kills itself with SIGKILL immediately before its Nth change of the machine (never when N is 0),
and writes the time and the words of each change to LOG, the fatal one included.
"""

import os
import signal
import sys
import time

from onionward.cli import cli
from onionward.errors import OnionwardError
from onionward.system import System


class KillingSystem(System):
    """Counts what it changes."""

    def __init__(self, fatal: int, log: str) -> None:
        super().__init__()
        self._fatal = fatal
        self._count = 0
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def effect(self, words: str) -> None:
        self._count += 1
        os.write(self._log, f"{time.time():.6f} {words}\n".encode())
        if self._count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run the command line on it."""
    system = KillingSystem(int(sys.argv[1]), sys.argv[2])
    try:
        cli(sys.argv[3:], prog_name="onionward", standalone_mode=False, obj={"system": system})
    except OnionwardError as error:
        sys.stderr.write(f"onionward: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
