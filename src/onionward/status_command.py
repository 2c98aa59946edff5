"""What `onionward status` does, also without the command line, whose library takes its time."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from onionward.backend.platform import is_bsd
from onionward.errors import RefusedError
from onionward.system import System


def main(system: System, *, as_json: bool, exit_address: str = "") -> NoReturn:
    """Print what is routed and whether it still holds, and exit with its state's status.

    Args:
        system: the seam.
        as_json: for programs.
        exit_address: a server to ask which address it sees, "default" for the usual one, "" for
            none.

    Raises:
        RefusedError: not root, or there is no asking.
        OnionwardError: nobody can tell.

    """
    from onionward import status_text
    from onionward.paths import PATHS

    if os.geteuid() != 0:
        raise RefusedError("`onionward status` needs root; nothing was touched", "use sudo")
    if is_bsd():
        from onionward.bsd import commands

        if exit_address:
            raise RefusedError("--exit-address is not available with pf, where tor has no SOCKS")
        on_bsd = commands.status(system)
        text = status_text.to_json(on_bsd) if as_json else status_text.to_text_on_bsd(on_bsd)
        code = status_text.EXIT_STATUS[on_bsd.state]
    else:
        from onionward import status

        report = status.gather(system, PATHS)
        if exit_address:
            report = status.with_exit_address(report, PATHS, exit_address)
        text = status_text.to_json(report) if as_json else status_text.to_text(report)
        code = status_text.EXIT_STATUS[report.state]
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    sys.exit(code)
