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
    def socks4(self) -> Path:
        """Tor's SOCKS port for runs of accounts, IPv4 first."""
        return self.runtime / "socks/ipv4"

    @property
    def socks6(self) -> Path:
        """The same, IPv6 first."""
        return self.runtime / "socks/ipv6"

    @property
    def tor_log(self) -> Path:
        """Tor's messages; in memory, gone with a reboot."""
        return self.tor_runtime / "log"

    @property
    def rules(self) -> Path:
        """The rules in force, for the guard to put back."""
        return self.runtime / "rules.nft"

    @property
    def lock_rules(self) -> Path:
        """The guard's own rules."""
        return self.runtime / "lock.json"

    @property
    def guard_socket(self) -> Path:
        """Where the guard is told of new rules."""
        return self.runtime / "guard"

    @property
    def guard_record(self) -> Path:
        """What the guard has seen and done, in memory."""
        return self.runtime / "guard.json"

    @property
    def attempts(self) -> Path:
        """What was stopped, as the guard has been told, in memory."""
        return self.runtime / "attempts.json"

    @property
    def limits(self) -> Path:
        """What is not covered on this machine, as the last `up` has found it."""
        return self.runtime / "limits.json"

    @property
    def relays(self) -> Path:
        """To how many places tor is held, since rules were loaded."""
        return self.runtime / "relays.json"

    @property
    def tor_pid(self) -> Path:
        """Tor's process id, where there is no /proc to find it in."""
        return self.runtime / "tor.pid"


PATHS = Paths()

OF_RUNS = PATHS._replace(runtime=Path("/run/onionward-runs"))
"""Of what `onionward run` needs while onionward is off; below /run/onionward `down` removes all."""

BLOCKS_AT_BOOT = (
    Path("/etc/systemd/system/onionward-block.service"),
    Path("/etc/init.d/onionward-block"),
)
"""What `enable` makes; `status` asks for it in a hurry."""
