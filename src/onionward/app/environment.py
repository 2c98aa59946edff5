"""Whose a run is, and which variables it gets; pure but for look-ups of accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onionward.app.request import Request

# addresses of services, and of who has called us; each has no meaning in a run or is a way out
_LOST = frozenset(
    {
        *("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID"),
        *("JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "WATCHDOG_PID", "WATCHDOG_USEC"),
        *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "CREDENTIALS_DIRECTORY"),
        *("TMUX", "TMUX_PANE", "STY", "SSH_AGENT_PID", "SSH_ASKPASS", "SESSION_MANAGER"),
        *("SUDO_COMMAND", "SUDO_USER", "SUDO_UID", "SUDO_GID", "SUDO_HOME", "MAIL"),
        *("DBUS_STARTER_ADDRESS", "DBUS_STARTER_BUS_TYPE", "GPG_AGENT_INFO"),
    }
)
_NEEDS = {
    "DBUS_SESSION_BUS_ADDRESS": "session-bus",
    "DBUS_SYSTEM_BUS_ADDRESS": "system-bus",
    "SSH_AUTH_SOCK": "ssh-agent",
    "DISPLAY": "display",
    "WAYLAND_DISPLAY": "display",
    "XAUTHORITY": "display",
    "PULSE_SERVER": "audio",
    "PIPEWIRE_REMOTE": "audio",
}


class Identity(NamedTuple):
    """An account as a process has it.

    Attributes:
        uid: user id.
        gid: primary group.
        groups: all groups.
        name: login name, "" for an account without one.
        home: home directory.
        shell: login shell.

    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def variables(
    identity: Identity,
    request: Request,
    inherited: Mapping[str, str],
    *,
    is_other: bool,
    has_runtime: bool,
) -> dict[str, str]:
    """The command's variables.

    Args:
        identity: whom it runs as.
        request: for what is allowed.
        inherited: of who has called us.
        is_other: whether that was another account (sudo, `--as`).
        has_runtime: whether the account has a runtime directory.

    """
    from onionward.app.mounts import runtime_directory

    found = {
        name: value
        for name, value in inherited.items()
        if name not in _LOST and (name not in _NEEDS or _NEEDS[name] in request.allowed)
    }
    if is_other:
        found |= {"HOME": identity.home, "SHELL": identity.shell}
        found |= {"USER": identity.name, "LOGNAME": identity.name}
        found.pop("XDG_RUNTIME_DIR", None)
    if has_runtime:
        found.setdefault("XDG_RUNTIME_DIR", runtime_directory(identity.uid))
    return found
