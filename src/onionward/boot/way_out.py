"""What commands do about the boot; imports next to nothing where the boot is not protected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from onionward.errors import CommandError, OnionwardError
from onionward.paths import BLOCKS_AT_BOOT
from onionward.system import System

WAY_OUT = (
    "the network stays blocked; `onionward up` tries again, `onionward down` opens it until the "
    "next boot, `onionward disable` for those to come"
)


def is_enabled() -> bool:
    """Whether something of ours blocks at boot."""
    if not any(path.exists() for path in BLOCKS_AT_BOOT):
        return False
    from onionward.boot import install

    return install.is_enabled()


@contextlib.contextmanager
def telling_the_way_out(system: System) -> Iterator[None]:
    """What fails while the machine is blocked since its boot says how to get out of it."""
    try:
        yield
    except OnionwardError as error:
        from onionward import backend

        with contextlib.suppress(CommandError):
            if is_enabled() and backend.blocked_since_boot(system):
                error.add_hint(f"The machine is blocked since its boot: {WAY_OUT}")
        raise


def end_attempts(system: System) -> None:
    """Let nobody call `up` again until the next boot; what is in force stays in force."""
    if is_enabled():
        from onionward.boot import install

        install.end_attempts(system)
