"""Have another guard after this program was replaced by another version of itself.

`python3 -I -m onionward.guard.renew`, as the Debian package does it. The rules stay in force all
the time; for the moment between two guards nobody holds the second ruleset. Then what the new
version would load is loaded, in one transaction, by the configuration in force. A machine that is
off, or whose guard is gone, is left alone.
"""

from __future__ import annotations

import os
import sys

from onionward import applied, state
from onionward.app.root.calling import end_if_idle
from onionward.config.parse import parse_with_network
from onionward.errors import OnionwardError
from onionward.guard import process as guard
from onionward.lifecycle.activation import Request, up_under_lock
from onionward.lifecycle.deactivation import at_work
from onionward.lifecycle.reporter import Reporter
from onionward.paths import PATHS, Paths
from onionward.progress import Progress
from onionward.system import System


def renew(system: System, paths: Paths, report: Reporter) -> bool:
    """Replace the guard, and the rules by those of this version.

    Returns:
        False when there is no guard.

    Raises:
        OnionwardError: it could not be done; the machine is as closed as it was.

    """
    # without a journal a guard that is seen is another machine's: of a container here
    if not (paths.journal.exists() and guard.running(paths)):
        return False
    with at_work(system, paths, report):
        journal, text = state.load(paths), applied.load(paths)
        if journal is None:
            return False
        lock_rules = paths.lock_rules.read_text()
        guard.stop(system, paths)
        guard.ensure(system, paths, lock_rules)
        report.step("another guard")
        if journal.state == "routed" and text is not None:
            config = parse_with_network(text, journal.config)
            up_under_lock(system, Request(config, accept_cut=True), paths, report)
    return True


def main() -> None:
    """Run it and exit."""
    os.umask(0o022)
    sys.argv = ["onionward", "replacing", "the", "guard"]
    try:
        with Progress() as progress:
            renew(System(), PATHS, progress)
        end_if_idle()
    except (OnionwardError, OSError) as error:
        sys.stderr.write(f"onionward: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
