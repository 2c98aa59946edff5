"""Rules that are gone altogether while another onionward is at work.

It may be replacing them, but never takes them away while there is a guard; and its tor would wait
for a way out that only rules give. It does not wait for us, so what is loaded here may be older
than what it loads meanwhile: what is in force is read again afterwards, until nothing has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onionward import backend, state

if TYPE_CHECKING:
    from onionward.paths import Paths
    from onionward.system import System

_ROUNDS = 5  # who changes rules more often than that in a moment has loaded some


def put_back(system: System, paths: Paths) -> bool:
    """Have the rules that are to be in force, if there are none.

    Args:
        system: the seam.
        paths: of the journal and the rules.

    Returns:
        Whether some were missing.

    Raises:
        OnionwardError: the filter refuses them, or the journal cannot be read.
        OSError: there is no text of them.

    """
    journal = state.load(paths)
    if journal is None or not journal.digest:
        return False
    rules = backend.in_force(journal)
    if rules.read(system) is not None:
        return False
    for _ in range(_ROUNDS):
        # the text is written before rules are loaded, the journal before that
        text = paths.rules.read_text()
        rules.put_back(system, text)
        journal = state.load(paths)
        if journal is None:
            # off, although `down` ends the guard first: what is left closes, and is said by status
            break
        now = backend.in_force(journal)
        if now.NAME == rules.NAME and paths.rules.read_text() == text:
            break
        rules = now
    return True
