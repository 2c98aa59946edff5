"""What paused accounts have open is cut, and what no packet rule judges is closed to them."""

from __future__ import annotations

from collections.abc import Sequence

from onionward import flows
from onionward.paths import Paths
from onionward.pauses import Pause
from onionward.system import System


def cut(system: System, paths: Paths, pauses: Sequence[Pause]) -> None:
    """Cut what these have open, when rules refuse what is new.

    Raises:
        StepError: tor's port for runs cannot be closed to them.

    """
    close_runs(system, paths, pauses)
    uids = [uids for pause in pauses for uids in pause.uids]
    if uids:
        from onionward.app.rootless import closed_to

        flows.cut_accounts(system, uids)
        closed_to.end(system, paths, uids)


def close_runs(system: System, paths: Paths, pauses: Sequence[Pause]) -> None:
    """Have these accounts, and no others, not reach the port that tor has for runs.

    Raises:
        StepError: its directory cannot be closed to single accounts.

    """
    from onionward.app.rootless import closed_to

    uids = {first for pause in pauses for first, last in pause.uids if first == last}
    closed_to.apply(system, paths, uids)
