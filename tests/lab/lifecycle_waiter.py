"""onionward that waits before a change: `lifecycle_waiter.py WORDS ARGUMENT…`.

Prints a line when it is about to make the first change that begins with WORDS, and goes on when it
gets one.
"""

import sys

from onionward.cli import cli
from onionward.system import System


class WaitingSystem(System):
    """Waits once."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words: str | None = words

    def effect(self, words: str) -> None:
        if self._words is not None and words.startswith(self._words):
            self._words = None
            sys.stdout.write("waiting\n")
            sys.stdout.flush()
            sys.stdin.readline()


if __name__ == "__main__":
    cli(sys.argv[2:], prog_name="onionward", obj={"system": WaitingSystem(sys.argv[1])})
