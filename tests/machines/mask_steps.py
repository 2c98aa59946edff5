"""Close services to bob, or open them again, as `up` and `down` do; run inside a machine.

Argument: "apply" or "restore". What undoes it waits in /run/masks.json, as in a journal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from onionward import exposure, masks
from onionward.accounts import find_user
from onionward.system import System

SAVED = Path("/run/masks.json")


def main() -> None:
    bob = find_user("bob")
    assert bob is not None
    if sys.argv[1] == "apply":
        found = exposure.look()
        assert exposure.ways_around(found, bob) == ()
        saved = masks.survey(found, [(bob, ())])
        SAVED.write_text(json.dumps(saved))
        masks.apply(System(), saved)
        assert masks.open_places(exposure.look(), [(bob, ())]) == ()
    else:
        assert masks.restore(System(), json.loads(SAVED.read_text())) == ""


if __name__ == "__main__":
    main()
