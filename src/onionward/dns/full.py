"""Full DNS: an unbound of our own, for the types of records that tor's DNSPort does not know.

    host ─ port 53 ─► unbound ─ TCP or TLS ─► TransPort ─► Tor ─► resolvers
                         └─ names under .onion ─► DNSPort

Its account has no way out of its own: what it sends is turned to Tor, or refused, like what
everybody else sends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from onionward import background
from onionward.config import resolvers
from onionward.config.values import Config
from onionward.errors import CommandError, ResolverError
from onionward.facts import find_account
from onionward.paths import PATHS, Paths
from onionward.system import System, find_tool, temporary_name
from onionward.tor.process import is_suspended

if TYPE_CHECKING:
    from onionward.facts import Account

ROOT_KEY = Path("/usr/share/dns/root.key")
"""Debian's package dns-root-data has it."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's package ca-certificates makes it."""

# Debian's AppArmor profile lets unbound read its configuration there, of what root alone writes,
# and write nothing that root alone may
_CONFINED = Path("/etc/unbound/onionward.conf")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_PROFILE_NAMES = ("unbound", "/usr/sbin/unbound")
# Whom it may become, best first; Debian's package makes the first, every system has the other.
_ACCOUNTS = ("unbound", "nobody")


class Saved(TypedDict):
    """How to undo the step; JSON in the journal.

    Attributes:
        config: file by which the process is recognised. There was none before.
        log: its messages, in memory, which name no queries; "" for those of the system.

    """

    config: str
    log: str


def is_confined(profiles: str) -> bool:
    """Whether AppArmor holds unbound to the profile that Debian brings.

    Args:
        profiles: what is loaded, as the kernel prints it (/sys/kernel/security/apparmor/profiles).

    """
    enforced = (line.rpartition(" (")[0] for line in profiles.splitlines() if "(enforce)" in line)
    return any(name in _PROFILE_NAMES for name in enforced)


def _places(paths: Paths) -> Saved:
    try:
        profiles = _PROFILES.read_text(errors="replace")
    except OSError:
        profiles = ""
    if is_confined(profiles):
        return Saved(config=str(_CONFINED), log="")
    return Saved(config=str(paths.runtime / "unbound.conf"), log=str(paths.runtime / "unbound.log"))


def command(config: Path) -> list[str]:
    """Its command line; also what it is recognised by."""
    return ["unbound", "-c", str(config)]


def choose_account(named: Iterable[int]) -> Account:
    """Whom it becomes after it has opened its port.

    Args:
        named: user ids that have rules of their own: tor's, and those of the configuration.

    Raises:
        ResolverError: there is no such account.

    """
    taken = frozenset((0, *named))
    for name in _ACCOUNTS:
        account = find_account(name)
        if account is not None and account.uid not in taken:
            return account
    raise ResolverError(
        f"there is no account for full DNS ({' or '.join(_ACCOUNTS)}) that has no rules of its own",
        "create one: adduser --system --group unbound",
    )


def problems(config: Config) -> tuple[str, ...]:
    """What `dns = "full"` lacks on this machine, each with the line that asks for it."""
    if config.tor.dns != "full":
        return ()
    found = []
    if find_tool("unbound") is None:
        found.append(
            "unbound is missing; install it: apt install unbound dns-root-data, and leave its "
            "own service off: systemctl disable --now unbound"
        )
    if config.tor.dnssec and not ROOT_KEY.exists():
        found.append(
            f"{ROOT_KEY} is missing, by which answers are verified; install it: apt install "
            "dns-root-data, or write dnssec = false"
        )
    if _is_tls(config) and not CERTIFICATES.exists():
        found.append(
            f"{CERTIFICATES} is missing, by which resolvers are verified; install it: apt install "
            "ca-certificates"
        )
    return tuple(config.source.locate(("tor", "dns"), words) for words in found)


def _is_tls(config: Config) -> bool:
    return any(resolvers.read(text).name for text in config.tor.resolvers)


def wanted(config: Config, *, ipv6: bool) -> list[object]:
    """All that its configuration depends on, as JSON."""
    tor = config.tor
    return [*tor.resolvers, tor.dnssec, tor.full_dns_port, tor.dns_port, ipv6]


def render(config: Config, account: str, log: str, *, ipv6: bool) -> str:
    """Its configuration (unbound.conf(5)).

    Args:
        config: read and free of contradictions.
        account: whom it becomes.
        log: for its complaints; "" for syslog.
        ipv6: whether loopback has IPv6.

    """
    tor = config.tor
    upstream = "forward-tls-upstream" if _is_tls(config) else "forward-tcp-upstream"
    lines = [
        "server:",
        f"    interface: 127.0.0.1@{tor.full_dns_port}",
        *([f"    interface: ::1@{tor.full_dns_port}"] if ipv6 else []),
        # programs ask under whatever address they have; nobody else gets to loopback
        "    access-control: 0.0.0.0/0 allow",
        "    access-control: ::0/0 allow",
        f'    username: "{account}"',
        '    chroot: ""',
        '    directory: "/"',
        '    pidfile: ""',
        *(["    use-syslog: no", f'    logfile: "{log}"'] if log else ["    use-syslog: yes"]),
        "    verbosity: 0",
        "    num-threads: 1",
        "    hide-identity: yes",
        "    hide-version: yes",
        f'    module-config: "{"validator iterator" if tor.dnssec else "iterator"}"',
        *([f'    trust-anchor-file: "{ROOT_KEY}"'] if tor.dnssec else []),
        *([f'    tls-cert-bundle: "{CERTIFICATES}"'] if _is_tls(config) else []),
        # tor's DNSPort is on loopback
        "    do-not-query-localhost: no",
        # unbound has answers of its own for these
        '    local-zone: "onion." transparent',
        '    local-zone: "test." transparent',
        '    domain-insecure: "onion."',
        # milliseconds; a new circuit takes seconds
        "    tcp-auth-query-timeout: 20000",
        "    unknown-server-time-limit: 5000",
        "remote-control:",
        "    control-enable: no",
        "forward-zone:",
        '    name: "onion."',
        f"    forward-addr: 127.0.0.1@{tor.dns_port}",
        "    forward-no-cache: yes",
        "forward-zone:",
        '    name: "."',
        *(f"    forward-addr: {resolvers.read(text)}" for text in tor.resolvers),
        f"    {upstream}: yes",
    ]
    return "\n".join([*lines, ""])


def running(config: Path) -> tuple[int, ...]:
    """Its process ids."""
    accounts = (find_account(name) for name in _ACCOUNTS)
    owners = frozenset({0, *(account.uid for account in accounts if account is not None)})
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    argv = command(config)
    return tuple(sorted(pid for pid in pids if background.is_one(pid, argv, owners)))


def survey(paths: Paths = PATHS) -> Saved:
    """What undoes the step, before anything changes: one of ours there never was."""
    return _places(paths)


def apply(system: System, saved: Saved, text: str) -> None:
    """Have it run with this configuration; one that does already is left alone.

    Raises:
        ResolverError: it does not start, with unbound's words; or an earlier one does not end.

    """
    config = Path(saved["config"])
    pids = running(config)
    if pids and not any(map(is_suspended, pids)) and config.read_text() == text:
        return
    # first: a new text beside an old process would look as if it had been read
    _end(system, config)
    if not config.parent.is_dir():
        system.make_directory(config.parent)
    if saved["log"]:
        system.remove_file(Path(saved["log"]))
    system.write_file(config, text)
    try:
        system.change(command(config))
    except CommandError as error:
        raise ResolverError(
            f"unbound does not start: {_complaint(saved) or error.stderr.strip() or error.message}",
            'leave dns = "full" out to go on without it',
        ) from error
    if not running(config):
        raise ResolverError(f"unbound has ended at once: {_complaint(saved) or 'without a word'}")


def _complaint(saved: Saved) -> str:
    """What it wrote last."""
    try:
        lines = Path(saved["log"] or "/dev/null").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].partition("error: ")[2] or lines[-1] if lines else ""


def _end(system: System, config: Path) -> None:
    for pid in running(config):
        background.end(system, pid, "unbound")


def problem(saved: Saved) -> str:
    """Why names of this host are not resolved, or ""."""
    pids = running(Path(saved["config"]))
    if not pids:
        return "unbound has ended: this host's names are not resolved"
    if any(map(is_suspended, pids)):
        return "unbound is suspended: this host's names are not resolved"
    return ""


def restore(system: System, saved: Saved) -> str:
    """End it and remove its files.

    Works from every point at which `apply` can have been interrupted, and twice.

    Returns:
        Always "": there is nothing of others here.

    Raises:
        StepError: it does not end.

    """
    config = Path(saved["config"])
    _end(system, config)
    logs = [Path(saved["log"])] if saved["log"] else []
    for path in (config, temporary_name(config), *logs):
        system.remove_file(path)
    return ""


def recognise(paths: Paths = PATHS) -> Saved | None:
    """What an activation without a readable journal may have left."""
    for saved in (Saved(config=str(_CONFINED), log=""), _places(paths)):
        config = Path(saved["config"])
        if config.exists() or running(config):
            return saved
    return None
