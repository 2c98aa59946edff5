"""What commands say of a damaged journal: `lifecycle_damager.py cut|flip NUMBER…`. Runs inside.

For each number the journal is cut short at this byte, or a bit of this byte is another; then each
command runs on it, in this process and with a seam that changes nothing. Prints, as JSON, what was
not a message as it should be: [number, command, words]. The journal is afterwards as it was.
"""

import contextlib
import io
import json
import sys

from onionward import state
from onionward.cli import cli
from onionward.errors import JournalError
from onionward.paths import PATHS
from onionward.system import System

COMMANDS = ("status", "up", "down", "confirm", "doctor")
_BIT = 1


class NoSystem(System):
    """Reads only."""

    def effect(self, words: str) -> None:
        # it gives the lock away, and changes nothing either
        if words == "tell the guard: give way":
            return
        raise AssertionError(f"it would change something: {words}")


def _said(command: str) -> str:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            cli([command], standalone_mode=False, obj={"system": NoSystem()})
    except JournalError as error:
        return str(error)
    except SystemExit as ending:
        return printed.getvalue() if ending.code == 1 else f"ended with {ending.code}"
    return f"ended well: {printed.getvalue()}"


def _is_good(words: str) -> bool:
    damage = f"{PATHS.journal} is damaged: " in words or "written by another version" in words
    return damage and "onionward down --force" in words


def main(how: str, numbers: list[int]) -> list[tuple[int, str, str]]:
    """Try them all."""
    whole = PATHS.journal.read_bytes()
    good = state.load(PATHS)
    wrong = []
    for number in numbers:
        raw = bytearray(whole)
        if how == "flip":
            raw[number] ^= _BIT
        PATHS.journal.write_bytes(raw[:number] if how == "cut" else raw)
        with contextlib.suppress(JournalError):
            if state.load(PATHS) == good:
                continue  # space between two values
        for command in COMMANDS:
            try:
                words = _said(command)
            except Exception as error:  # noqa: BLE001  # what is no message is what is looked for
                words = repr(error)
            if not _is_good(words):
                wrong.append((number, command, words))
    PATHS.journal.write_bytes(whole)
    return wrong


if __name__ == "__main__":
    json.dump(main(sys.argv[1], [int(word) for word in sys.argv[2:]]), sys.stdout)
