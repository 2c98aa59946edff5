"""Which BSD this is, and where it keeps what onionward changes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from onionward.errors import RefusedError
from onionward.paths import Paths
from onionward.render.pf.dialects import DialectName

PF_ACCOUNT = "_tor"
"""The account that the package of tor makes on OpenBSD and FreeBSD."""


class Kind(NamedTuple):
    """A system.

    Attributes:
        name: "openbsd" or "freebsd", whose files it has.
        title: for people.
        dialect: of its pf.
        etc: below which its configuration is; another one in tests.

    """

    name: str
    title: str
    dialect: DialectName
    etc: Path = Path("/etc")

    @property
    def pf_conf(self) -> Path:
        """The main ruleset."""
        return self.etc / "pf.conf"

    @property
    def stored_block(self) -> Path:
        """What pf.conf loads into the anchor: in force until `up` has routed, also after a boot."""
        return self.etc / "onionward" / "pf.block"


KINDS: Mapping[str, Kind] = {
    "openbsd": Kind("openbsd", "OpenBSD", "openbsd"),
    "openbsd-4.6": Kind("openbsd", "OpenBSD 4.6", "openbsd-4.6"),
    "freebsd": Kind("freebsd", "FreeBSD", "freebsd"),
}
"""By dialect; nothing runs on the old OpenBSD, whose files can be shown all the same."""

PATHS = Paths(state=Path("/var/db/onionward"), runtime=Path("/var/run/onionward"))


def kind_of(platform: str | None = None) -> Kind | None:
    """The BSD that `sys.platform` names, or None for another system."""
    name = (platform or sys.platform).rstrip("0123456789.")
    return KINDS.get(name)


def this_kind() -> Kind:
    """The BSD that this is.

    Raises:
        RefusedError: it is none.

    """
    found = kind_of()
    if found is None:
        raise RefusedError(f"{sys.platform} has no pf that onionward knows")
    return found
