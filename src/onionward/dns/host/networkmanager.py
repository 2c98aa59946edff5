"""NetworkManager on a routed host: told to leave resolv.conf and systemd-resolved alone.

A file in a directory of its configuration, which it reads again when asked to, and when it starts
(NetworkManager.conf(5)). Without the file it writes what its connections want by then.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

from onionward.dns.host import dropin, places
from onionward.dns.host.detect import NetworkManager
from onionward.errors import CommandError
from onionward.system import System, find_tool

PLACES = places.NETWORKMANAGER
TEXT = f"""\
{dropin.MARK}: names are resolved through Tor. Removed by `onionward down`.
[main]
dns=none
rc-manager=unmanaged
systemd-resolved=false
"""
_KEYS = ("dns", "rc-manager", "systemd-resolved")
_ETC = Path("/etc/NetworkManager")
_GONE = 8  # nmcli(1): NetworkManager does not run
_BUS = (
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager/DnsManager",
    "org.freedesktop.NetworkManager.DnsManager",
)


def settings() -> NetworkManager:
    """What it has been told of names, our file left out."""
    texts = [*_texts(Path("/usr/lib/NetworkManager/conf.d")), *_texts(PLACES["run"].parent)]
    etc = [_text(_ETC / "NetworkManager.conf"), *_texts(_ETC / "conf.d")]
    return parse(texts, etc)


def parse(below: list[str], etc: list[str]) -> NetworkManager:
    """The settings in texts of its files, each overriding the one before it.

    Args:
        below: of files below /usr/lib and /run.
        etc: of files below /etc, which override those.

    """
    found: dict[str, str] = {}
    found_in_etc: dict[str, str] = {}
    for text in below:
        found |= _main(text)
    for text in etc:
        found_in_etc |= _main(text)
    found |= found_in_etc
    return NetworkManager(
        dns=found.get("dns", ""),
        rc_manager=found.get("rc-manager", ""),
        resolved=found.get("systemd-resolved", "true").lower() not in ("false", "no", "off", "0"),
        in_etc=bool(found_in_etc),
    )


def _main(text: str) -> dict[str, str]:
    """What [main] says of names; a file that cannot be read says nothing."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    if not parser.has_section("main"):
        return {}
    return {key: value for key, value in parser.items("main") if key in _KEYS and value}


def _texts(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    own = {path.name for path in PLACES.values()}
    return [_text(path) for path in sorted(directory.glob("*.conf")) if path.name not in own]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def apply(system: System, saved: dropin.DropIn) -> None:
    """Have it leave names alone; nothing happens when it does already.

    Raises:
        CommandError: it cannot be told.

    """
    if dropin.apply(system, saved) or _mode(system) not in ("", "none"):
        reload(system)


def restore(system: System, saved: dropin.DropIn) -> str:
    """Have it manage names again, when resolv.conf is back.

    Returns:
        What was left alone because others have changed it since, or "".

    Raises:
        CommandError: it cannot be told.

    """
    note = dropin.restore(system, saved)
    # also when the file was gone already: an earlier `restore` may have ended between the two
    reload(system)
    return note


def reload(system: System) -> None:
    """Have it read its configuration again, if it runs."""
    from onionward.dns.onion.facts import process_ids

    pids = process_ids("NetworkManager")
    if not pids:
        return
    if find_tool("nmcli") is None:
        for pid in pids:
            system.kill(pid, signal.SIGHUP)
        return
    system.change(["nmcli", "general", "reload"], accept=(0, _GONE))


def _mode(system: System) -> str:
    """What it does about names at the moment, or "" when that cannot be told."""
    from onionward.dns.onion.facts import is_running

    if find_tool("busctl") is None or not is_running("NetworkManager"):
        return ""
    try:
        text = system.query(["busctl", "--json=short", "get-property", *_BUS, "Mode"])
    except CommandError:  # it is about to start, or to end
        return ""
    mode: str = json.loads(text)["data"]
    return mode


def problems(system: System, saved: dropin.DropIn) -> Iterator[str]:
    """What is no longer as `apply` left it."""
    yield from dropin.problems(saved)
    if (mode := _mode(system)) not in ("", "none"):
        yield f"NetworkManager manages names again (dns={mode})"


def recognise() -> dropin.DropIn | None:
    """What an earlier `apply` must have done; None when there is no trace."""
    found = [dropin.recognise(path) for path in PLACES.values()]
    return next((one for one in found if one is not None), None)
