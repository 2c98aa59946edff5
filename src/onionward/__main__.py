"""`onionward` and `python -m onionward`."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# a short life, and most of it is spent on imports, which leave nothing to collect
gc.disable()

from onionward.errors import OnionwardError  # noqa: E402


def main() -> None:
    """Run the command line; errors become one message and an exit status."""
    _open_closed()
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv[2:3]):
        _run()
    # modes are part of what is restored; a strange umask must not leak into files and tor
    os.umask(0o022)
    try:
        if sys.argv[1:2] == ["status"] and set(sys.argv[2:]) <= {"--json"}:
            _status()
        else:
            _command_line()
    except OnionwardError as error:
        _say(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(1)
    except (OSError, UnicodeError) as error:
        from onionward.progress import silence_stdout

        silence_stdout()
        _say(f"{error}; `onionward status` says what state the machine is in")
        sys.exit(1)


def _command_line() -> None:
    import click

    from onionward.cli import cli

    try:
        cli(prog_name="onionward", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _say("interrupted")
        sys.exit(1)


def _status() -> NoReturn:
    """`onionward status` without the command line's library."""
    from onionward import status_command
    from onionward.system import System

    status_command.main(System(), as_json="--json" in sys.argv)


def _run() -> NoReturn:
    """`onionward run` without the command line's library, which takes half of the time it has."""
    from onionward.app import start

    try:
        start.main(sys.argv[2:])
    except OnionwardError as error:
        _say(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)


def _open_closed() -> None:
    """Give standard streams that were closed to nobody.

    Else the next file that is opened has their number, a child gets it as its own, and Python has
    no stream to print to.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # the lowest number that is free, and those below are open by now
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r"))


def _say(words: str) -> None:
    from onionward.printable import printable_lines

    sys.stderr.write(printable_lines(f"onionward: {words}\n"))


if __name__ == "__main__":
    main()
