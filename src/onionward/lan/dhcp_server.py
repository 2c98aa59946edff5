"""The one dnsmasq that serves the clients: started, found again, stopped; undone like any step."""

from __future__ import annotations

import grp
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from onionward.errors import CommandError, LanError
from onionward.facts import find_account
from onionward.lan import dhcp
from onionward.paths import PATHS, Paths
from onionward.system import System, temporary_name
from onionward.tor.process import is_of_this_machine, is_suspended, user_of

if TYPE_CHECKING:
    from onionward.facts import Account

# Whom dnsmasq may become, best first; Debian's package makes the first, every system has the other.
_ACCOUNTS = ("dnsmasq", "nobody")
_PATIENCE = 10.0  # seconds for a process to end after it was killed


class Saved(TypedDict):
    """How to undo the step; JSON in the journal.

    Attributes:
        config: file by which the server is recognised. There was none before.
        log: its messages.
        leases: who has which address; stays.

    """

    config: str
    log: str
    leases: str


def config_path(paths: Paths = PATHS) -> Path:
    """The server's configuration."""
    return paths.runtime / "dnsmasq-lan.conf"


def log_path(paths: Paths = PATHS) -> Path:
    """The server's messages; in memory, gone with a reboot."""
    return paths.runtime / "dnsmasq-lan.log"


def lease_path(paths: Paths = PATHS) -> Path:
    """Who has which address.

    It stays after `down`: clients keep their addresses meanwhile, and a server that had forgotten
    them would give them away again.
    """
    return paths.state / "dhcp.leases"


def command(config: Path) -> list[str]:
    """The command line of the server; also what it is recognised by."""
    return ["dnsmasq", f"--conf-file={config}"]


def choose_account(tor_uid: int) -> Account:
    """Whom the server becomes after it has opened its ports, never tor's account.

    Raises:
        LanError: there is no such account.

    """
    for name in _ACCOUNTS:
        account = find_account(name)
        if account is not None and account.uid not in (0, tor_uid):
            return account
    raise LanError(
        f"there is no account for the DHCP server ({' or '.join(_ACCOUNTS)}) besides tor's own",
        "create one: adduser --system --group dnsmasq",
    )


def render(
    segments: Iterable[dhcp.Segment], account: Account, paths: Paths = PATHS, *, ipv6: bool = True
) -> str:
    """The server's configuration with its files and account, see `dhcp.configuration`.

    Raises:
        RefusedError: a segment has nothing to give away.

    """
    return dhcp.configuration(
        segments,
        lease_file=lease_path(paths),
        log=log_path(paths),
        account=account.name,
        group=grp.getgrgid(account.gid).gr_name,
        ipv6=ipv6,
    )


def is_own(pid: int, config: Path) -> bool:
    """Whether a process is the server of a configuration.

    Its arguments anybody can imitate, so it must also run as root or as one whom it can become.
    """
    process = Path(f"/proc/{pid}")
    try:
        raw = (process / "cmdline").read_bytes()
        if raw.rstrip(b"\0").split(b"\0") != [os.fsencode(a) for a in command(config)]:
            return False
        return is_of_this_machine(pid) and user_of(process) in _trusted()
    except OSError:
        return False


def _trusted() -> frozenset[int]:
    return frozenset({0, *(a.uid for name in _ACCOUNTS if (a := find_account(name)))})


def running(config: Path) -> tuple[int, ...]:
    """Process ids of the server of a configuration."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return tuple(sorted(pid for pid in pids if is_own(pid, config)))


def listeners(system: System, config: Path) -> tuple[dhcp.Listener, ...]:
    """Who else holds UDP port 67.

    Raises:
        CommandError: sockets cannot be listed.

    """
    text = system.query(["ss", "-Hlunp", "sport = :67"])
    return dhcp.parse_listeners(text, running(config))


def start(system: System, text: str, paths: Paths = PATHS) -> None:
    """Start the server; returns when it has opened its ports and gone to the background.

    Raises:
        LanError: it ended instead; with dnsmasq's words.

    """
    if not paths.runtime.is_dir():
        system.make_directory(paths.runtime)
    if not lease_path(paths).exists():
        # dnsmasq would make one that every account can read
        system.write_file(lease_path(paths), "", mode=0o600)
    config = config_path(paths)
    system.write_file(config, text)
    try:
        system.change(command(config))
    except CommandError as error:
        raise LanError(
            f"dnsmasq does not serve DHCP: {error.stderr.strip() or error.message}",
            f"its configuration is {config}; leave dhcp = true out to go on without it",
        ) from error
    if not running(config):
        raise LanError(
            "dnsmasq has ended after it was started", f"what it wrote is in {log_path(paths)}"
        )


def stop(system: System, config: Path) -> None:
    """End the server, whatever it is doing; nothing happens when it is gone.

    Raises:
        LanError: a process does not end.

    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = running(config)
        if not pids:
            return
        for pid in pids:
            system.kill(pid, number)
        if _has_ended(config, _PATIENCE if number is signal.SIGKILL else 3.0):
            return
    left = ", ".join(map(str, running(config)))
    raise LanError(
        f"the DHCP server does not end: process {left}; clients may still get addresses from it"
    )


def _has_ended(config: Path, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while running(config):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def survey(paths: Paths = PATHS) -> Saved:
    """What undoes the step, before anything changes: a server of ours there never was."""
    return Saved(
        config=str(config_path(paths)),
        log=str(log_path(paths)),
        leases=str(lease_path(paths)),
    )


def apply(system: System, saved: Saved, text: str, paths: Paths = PATHS) -> None:
    """Have the server run with this configuration; one that does already is left alone.

    Raises:
        LanError: dnsmasq does not start, or an earlier one does not end.

    """
    config = Path(saved["config"])
    pids = running(config)
    if pids and not any(map(is_suspended, pids)) and config.read_text() == text:
        return
    # first: a new text beside an old process would look as if it had been read
    stop(system, config)
    start(system, text, paths)


def restore(system: System, saved: Saved) -> str:
    """End the server and remove its files but the leases, see `lease_path`.

    Works from every point at which `apply` can have been interrupted, and twice.

    Returns:
        Always "": there is nothing of others here.

    Raises:
        LanError: it does not end.

    """
    config = Path(saved["config"])
    stop(system, config)
    for path in (config, temporary_name(config), Path(saved["log"])):
        system.remove_file(path)
    system.remove_file(temporary_name(Path(saved["leases"])))
    return ""
