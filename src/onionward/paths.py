"""Where onionward keeps what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """Directories and files; tests use others.

    Attributes:
        state: survives a reboot: the journal and tor's data.
        runtime: does not: the lock, torrc and tor's sockets.
        resolv_conf: the resolver's configuration (resolv.conf(5)).

    """

    state: Path = Path("/var/lib/onionward")
    runtime: Path = Path("/run/onionward")
    resolv_conf: Path = Path("/etc/resolv.conf")

    @property
    def journal(self) -> Path:
        """What was done and how to undo it."""
        return self.state / "journal.json"

    @property
    def applied(self) -> Path:
        """The configuration in force."""
        return self.state / "applied.toml"

    @property
    def lock(self) -> Path:
        """Held by the one onionward at work."""
        return self.runtime / "lock"

    @property
    def torrc(self) -> Path:
        """Configuration of onionward's own tor."""
        return self.runtime / "torrc"

    @property
    def tor_data(self) -> Path:
        """Tor's DataDirectory."""
        return self.state / "tor"

    @property
    def tor_runtime(self) -> Path:
        """Tor's sockets and log, readable by tor and root only."""
        return self.runtime / "tor"

    @property
    def control_socket(self) -> Path:
        """Tor's control socket."""
        return self.tor_runtime / "control"

    @property
    def control_cookie(self) -> Path:
        """The secret for the control socket."""
        return self.tor_runtime / "control.authcookie"

    @property
    def tor_log(self) -> Path:
        """Tor's messages; in memory, gone with a reboot."""
        return self.tor_runtime / "log"


PATHS = Paths()

BLOCKS_AT_BOOT = (
    Path("/etc/systemd/system/onionward-block.service"),
    Path("/etc/init.d/onionward-block"),
)
"""What `enable` makes; `status` asks for it in a hurry."""
