"""The account that tor runs as: its own, never root, never shared."""

from __future__ import annotations

from onionward.errors import TorError
from onionward.facts import Account, find_account
from onionward.paths import Paths
from onionward.system import System

# Accounts of the system's own tor on Debian, Fedora, Arch and BSD.
SYSTEM_TOR_ACCOUNTS = frozenset({"debian-tor", "toranon", "tor", "_tor"})


def ensure(system: System, name: str, paths: Paths) -> Account:
    """The account, created as a system account without login when it does not exist.

    Raises:
        TorError: it could not be created.

    """
    found = find_account(name)
    if found is not None:
        return found
    system.change(
        [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            str(paths.tor_data),
            "--shell",
            "/usr/sbin/nologin",
            "--comment",
            "onionward's tor",
            name,
        ]
    )
    created = find_account(name)
    if created is None:
        raise TorError(f"useradd made no account {name}", "look at /etc/passwd and at its log")
    return created
