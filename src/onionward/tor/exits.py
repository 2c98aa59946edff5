"""Whether there is any exit where the configuration wants one; tor waits in silence for one."""

from __future__ import annotations

from onionward.config.values import TorConfig
from onionward.errors import TorError
from onionward.paths import Paths


def refuse_none(paths: Paths, wanted: TorConfig) -> None:
    """Ask tor in which countries the exits of its consensus are.

    Raises:
        TorError: none is where it must be, or tor does not answer.

    """
    if not wanted.names_countries:
        return
    from onionward.tor.control import connected

    with connected(paths) as controller:
        exits = [
            relay.address
            for relay in controller.get_network_statuses()
            if "Exit" in relay.flags and "BadExit" not in relay.flags
        ]
        keys = [f"ip-to-country/{address}" for address in sorted(set(exits))]
        found = set(controller.get_info(keys).values()) if keys else set()
    if not found:
        return  # without a consensus tor waits for something else
    # excluded as soon as any country is (tor(1), GeoIPExcludeUnknown)
    excluded = {*wanted.exclude_exit_countries, "??"}
    allowed = set(wanted.exit_countries) or found
    if not found & allowed - excluded:
        raise TorError(
            f"no exit is in the countries that exit_countries and exclude_exit_countries allow; "
            f"there are exits in: {', '.join(sorted(found - {'??'})) or 'no known country'}",
            "change these keys of [tor]",
        )
