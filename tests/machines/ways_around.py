"""Write which set-user-ID programs are ways around for bob, one per line; run inside a machine."""

from __future__ import annotations

import sys

from onionward import setuid
from onionward.accounts import find_user


def main() -> None:
    bob = find_user("bob")
    assert bob is not None
    for way in setuid.ways_around(setuid.programs(), bob, setuid.read_sudoers()):
        sys.stdout.write(f"{way.narrowest}\n")


if __name__ == "__main__":
    main()
