"""`onionward` and `python -m onionward`."""

from __future__ import annotations

import sys

import click

from onionward.cli import cli
from onionward.errors import OnionwardError


def main() -> None:
    """Run the command line; errors become one message and an exit status."""
    try:
        cli(prog_name="onionward", standalone_mode=False)
    except OnionwardError as error:
        _say(str(error))
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _say(words: str) -> None:
    sys.stderr.write(f"onionward: {words}\n")


if __name__ == "__main__":
    main()
