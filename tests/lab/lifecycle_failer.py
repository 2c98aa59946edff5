"""onionward whose Nth change of the machine fails: `lifecycle_failer.py N LOG ARGUMENT…`.

None fails when N is 0. A command is missing or ends with 1; any other change gets an error of the
system. The time and the words of each change are written to LOG, the failing one included.
"""

import errno
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from onionward.cli import cli
from onionward.errors import CommandError, OnionwardError
from onionward.system import System

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EPERM)


class FailingSystem(System):
    """Counts what it changes."""

    def __init__(self, fatal: int, log: str) -> None:
        super().__init__()
        self._fatal = fatal
        self._count = 0
        self._runs_command = self._command_fails = False
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def effect(self, words: str) -> None:
        self._count += 1
        os.write(self._log, f"{time.time():.6f} {words}\n".encode())
        if self._count != self._fatal:
            return
        if self._runs_command:
            self._command_fails = True
        else:
            number = ERRORS[self._fatal % len(ERRORS)]
            raise OSError(number, os.strerror(number), words)

    def change(self, argv: Sequence[str], **options: Any) -> str:
        self._runs_command = True
        try:
            return super().change(argv, **options)
        finally:
            self._runs_command = False

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        if self._command_fails:
            self._command_fails = False
            if self._fatal % 2:
                raise CommandError(argv, 127, "No such file or directory")
            raise CommandError(argv, 1, "it does not want to")
        return super().execute(argv, stdin=stdin, timeout=timeout, accept=accept)


def main() -> int:
    """Run the command line on it."""
    system = FailingSystem(int(sys.argv[1]), sys.argv[2])
    try:
        cli(sys.argv[3:], prog_name="onionward", standalone_mode=False, obj={"system": system})
    except (OnionwardError, OSError) as error:
        sys.stderr.write(f"onionward: {error}\n")
        return getattr(error, "exit_status", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
