"""What a configuration needs beside tor itself: a transport for bridges, files of countries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onionward.errors import ConfigError
from onionward.system import find_tool
from onionward.toml_lines import KeyPath

if TYPE_CHECKING:
    from onionward.config.values import Config

# Debian 12 has the first one; the other is its successor.
_TRANSPORTS = ("obfs4proxy", "lyrebird")
_SHARED = (Path("/usr/share/tor"), Path("/usr/local/share/tor"))


class Installed(NamedTuple):
    """What there is.

    Attributes:
        transport: the program that speaks obfs4, or None.
        geoip: the directory of tor's GeoIP files, or None.

    """

    transport: str | None = None
    geoip: Path | None = None


def look(config: Config) -> Installed:
    """What there is of what this configuration needs."""
    if not (config.tor.bridges or config.tor.names_countries):
        return Installed()
    return Installed(
        next((path for name in _TRANSPORTS if (path := find_tool(name)) is not None), None),
        next((place for place in _SHARED if (place / "geoip").is_file()), None),
    )


def problems(config: Config, found: Installed) -> Iterator[tuple[KeyPath, str]]:
    """What is missing, with the key that needs it."""
    tor = config.tor
    if tor.names_countries and found.geoip is None:
        key = "exit_countries" if tor.exit_countries else "exclude_exit_countries"
        yield (
            ("tor", key),
            "tor has no GeoIP file, so it does not know in which country a relay is; install it: "
            "apt install tor-geoipdb",
        )
    for index, line in enumerate(tor.bridges):
        if found.transport is None and line.split()[0] == "obfs4":
            yield (
                ("tor", "bridges", index),
                "there is no program that speaks obfs4; install it: apt install obfs4proxy",
            )
            return


def refuse_missing(config: Config, found: Installed) -> None:
    """Refuse a configuration that needs what there is not.

    Raises:
        ConfigError: all that is missing.

    """
    if missing := [config.source.locate(*one) for one in problems(config, found)]:
        raise ConfigError(missing)
