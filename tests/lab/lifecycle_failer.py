"""onionward whose Nth change of the machine fails: `lifecycle_failer.py N KIND LOG ARGUMENT…`.

None fails when N is 0. KIND is a number from 0 to 3: what is no command gets an error of the
system (the last of them when the change has been made and goes to the disk); a command is missing,
ends with an error (nft: with words of its own), does not end in time, or does what it should and is
said to have failed all the same. The time and the words of each change are written to LOG, the
failing one included, and how it failed to LOG.kind.
"""

import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onionward.cli import cli
from onionward.errors import CommandError, OnionwardError
from onionward.system import DIES_WITH_US, System

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EPERM, errno.EIO)
ENDINGS = ("command missing", "command fails", "command hangs", "command fails late")
_SYNCED = ("write ", "mv ", "ln -sfn ")
_NFT = "/dev/stdin:1:1-2: Error: Could not process rule: Cannot allocate memory"


class FailingSystem(System):
    """Counts what it changes."""

    def __init__(self, fatal: int, kind: int, log: str) -> None:
        super().__init__()
        self._fatal = fatal
        self._kind = kind
        self._kind_log = Path(f"{log}.kind")
        self._count = 0
        self._runs_command = self._command_fails = self._sync_fails = False
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def effect(self, words: str) -> None:
        self._count += 1
        os.write(self._log, f"{time.time():.6f} {words}\n".encode())
        if self._count != self._fatal:
            return
        if self._runs_command:
            self._command_fails = True
            return
        number = ERRORS[self._kind]
        self._kind_log.write_text(errno.errorcode[number])
        if number == errno.EIO and words.startswith(_SYNCED):
            self._sync_fails = True
            return
        raise OSError(number, os.strerror(number), words)

    def sync_directory(self, directory: Path) -> None:
        if self._sync_fails:
            self._sync_fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(directory))
        super().sync_directory(directory)

    def change(self, argv: Sequence[str], **options: Any) -> str:
        self._runs_command = True
        try:
            return super().change(argv, **options)
        finally:
            self._runs_command = False

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        fails, self._command_fails = self._command_fails, False
        if not fails:
            return super().execute(argv, stdin=stdin, timeout=timeout, accept=accept)
        ending = ENDINGS[self._kind]
        self._kind_log.write_text(ending)
        shown = argv[len(DIES_WITH_US) :]
        match ending:
            case "command missing":
                raise CommandError(shown, 127, "No such file or directory")
            case "command hangs":
                raise CommandError(shown, None, f"after {timeout:g} s")
            case "command fails late":
                super().execute(argv, stdin=stdin, timeout=timeout, accept=accept)
        raise CommandError(shown, 1, _NFT if shown[0] == "nft" else "it does not want to")


def main() -> int:
    """Run the command line on it."""
    system = FailingSystem(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    try:
        cli(sys.argv[4:], prog_name="onionward", standalone_mode=False, obj={"system": system})
    except (OnionwardError, OSError) as error:
        sys.stderr.write(f"onionward: {error}\n")
        return getattr(error, "exit_status", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
