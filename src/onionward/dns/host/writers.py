"""Programs that write resolv.conf themselves at each lease: kept from it by their own means.

openresolv runs a script for each kind of resolver; a line in its configuration turns off the one
for resolv.conf, and what leases say it remembers (resolvconf.conf(5)). dhclient's script reads
files before it writes (dhclient-script(8)); one of ours turns its own function to the file that
waits for `onionward down`, so that what returns is what the latest lease says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from onionward.dns import file
from onionward.dns.host import dropin, places
from onionward.system import System, find_tool

OPENRESOLV = places.OPENRESOLV
HOOK = places.DHCLIENT
HOOKS = HOOK.parent
OPENRESOLV_MARK = f"{dropin.MARK}: names are resolved through Tor. Removed by `onionward down`.\n"
_LIBC_OFF = re.compile(r"^\s*libc=[\"']?(no|false|off|0)\b", re.MULTILINE | re.IGNORECASE)


def openresolv_writes(text: str) -> bool:
    """Whether openresolv with this configuration writes resolv.conf."""
    return not _LIBC_OFF.search(text)


def openresolv_text(text: str) -> str:
    """Its configuration, which is shell, with resolv.conf left alone."""
    kept = text if text.endswith("\n") or not text else f"{text}\n"
    return f"{kept}{OPENRESOLV_MARK}libc=NO\n"


def survey_openresolv(system: System) -> file.Saved:
    """What is there now, before anything changes."""
    text = OPENRESOLV.read_text(errors="surrogateescape") if OPENRESOLV.exists() else ""
    return file.survey(system, OPENRESOLV, openresolv_text(text))


def apply_openresolv(system: System, saved: file.Saved) -> None:
    """Keep it from resolv.conf; nothing happens when it is kept already."""
    if not file.is_ours(OPENRESOLV, saved):
        file.replace(system, OPENRESOLV, saved)


def restore_openresolv(system: System, saved: file.Saved) -> str:
    """Let it write resolv.conf, and have it write what leases say by now.

    Returns:
        What was left alone because others have changed it since, or "".

    Raises:
        CommandError: it does not write.

    """
    note = file.restore(system, OPENRESOLV, saved)
    if find_tool("resolvconf") is not None:
        system.change(["resolvconf", "-u"])
    return note


def openresolv_problems(saved: file.Saved) -> Iterator[str]:
    """What is no longer as `apply_openresolv` left it."""
    if not file.is_ours(OPENRESOLV, saved):
        yield f"{OPENRESOLV} was changed: openresolv may write resolv.conf"


def recognise_openresolv() -> file.Saved | None:
    """What an earlier `apply_openresolv` must have done; None when there is no trace."""
    text = OPENRESOLV.read_text(errors="surrogateescape") if OPENRESOLV.is_file() else ""
    ours = text if OPENRESOLV_MARK in text else "\0"
    return file.recognise(OPENRESOLV, ours)


def dhclient_hook(resolv_conf: Path) -> str:
    """Text of a file for dhclient's script.

    Args:
        resolv_conf: what it writes by itself.

    """
    waiting = str(file.waiting_name(resolv_conf))
    return f"""\
{dropin.MARK}: names are resolved through Tor. Removed by `onionward down`.
# What leases say of resolvers waits in {waiting}.
make_resolv_conf() {{ :; }}
eval "$(sed -n '/^make_resolv_conf() *{{/,/^}}/p' "$0" | sed 's|{resolv_conf}|{waiting}|g')"
"""


def hears_of_hooks() -> bool:
    """Whether dhclient's script reads such files, and nobody else's says how it writes."""
    if not HOOKS.is_dir():
        return False
    others = (path for path in HOOKS.iterdir() if path != HOOK and path.is_file())
    return not any("make_resolv_conf" in path.read_text(errors="replace") for path in others)
