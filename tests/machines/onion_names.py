"""Runs inside a machine: one verb of `onionward.dns.onion`, what was surveyed kept in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from onionward.dns import onion
from onionward.system import System

DNS_PORT = 941
_SAVED = Path("/root/saved.json")


def main(verb: str) -> object:
    """What the verb gives, as JSON can have it."""
    system = System()
    if verb == "survey":
        found = onion.survey(system, onion.environment(system), DNS_PORT)
        _SAVED.write_text(json.dumps(found))
        return found
    if verb == "unusable":
        return onion.unusable(onion.environment(system))
    if verb == "recognise":
        return onion.recognise(system, onion.environment(system))
    saved: onion.Saved = json.loads(_SAVED.read_text())
    match verb:
        case "apply":
            onion.apply(system, saved)
            return None
        case "problems":
            return onion.problems(system, saved)
        case "restore":
            return onion.restore(system, saved)
        case _:
            raise ValueError(verb)


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
