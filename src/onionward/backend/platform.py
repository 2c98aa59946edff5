"""Which life cycle is this machine's: that of Linux, or that of a BSD with pf."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from onionward.errors import ConfigError

if TYPE_CHECKING:
    from onionward.config.values import Config


def is_bsd() -> bool:
    """Whether pf is this system's packet filter."""
    return sys.platform.startswith(("openbsd", "freebsd"))


def refuse_foreign_filter(config: Config) -> None:
    """Refuse a configuration that asks for the packet filter of another system.

    Raises:
        ConfigError: it does.

    """
    wanted = config.firewall.backend
    if wanted == "auto" or (wanted == "pf") == is_bsd():
        return
    words = (
        "pf is the packet filter of OpenBSD and FreeBSD; `onionward show pf` prints its rules here"
        if wanted == "pf"
        else f'{wanted} is Linux\'s; this system has pf: write "pf" or "auto"'
    )
    raise ConfigError([config.source.locate(("firewall", "backend"), words)])
