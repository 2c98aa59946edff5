"""onionward's own tor: checked, started in its own control group, found again, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onionward.errors import CommandError, RefusedError, TorError
from onionward.paths import PATHS, Paths
from onionward.system import System

if TYPE_CHECKING:
    from onionward.facts import Account

_HARMLESS = (
    "You have used DirAuthority",
    "TestingTorNetwork is set",
    "You are running Tor as root",
    "Reading config failed--see warnings above",
)
_PATIENCE = 10.0  # seconds for a process to end before it is killed


def command(torrc: Path) -> list[str]:
    """The command line of onionward's tor; also what it is recognised by."""
    return ["tor", "--defaults-torrc", "/dev/null", "--ignore-missing-torrc", "-f", str(torrc)]


def is_own(pid: int, paths: Paths = PATHS) -> bool:
    """Whether a process is the tor that was started with these paths.

    Its arguments anybody can imitate, so it must also run as root or as the owner of tor's data.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  # `status` is in a hurry
            raw = file.read()
        if raw.rstrip(b"\0").split(b"\0") != [os.fsencode(a) for a in command(paths.torrc)]:
            return False
        return is_of_this_machine(pid) and user_of(Path(f"/proc/{pid}")) in _trusted(paths)
    except OSError:
        return False


def is_of_this_machine(pid: int) -> bool:
    """Whether a process is no container's, which is seen from here and may be called the same.

    That is told by its process namespace (pid_namespaces(7)); who may not look it up sees no more
    of a container than that.

    Raises:
        FileNotFoundError: there is no such process.

    """
    try:
        theirs = os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115  # `status` is in a hurry
    except PermissionError:
        return True
    return theirs == os.readlink("/proc/self/ns/pid")  # noqa: PTH115


def user_of(process: Path) -> int:
    """The real account of a process, given its directory in /proc (proc(5), status).

    The owner of the directory will not do: it is root for programs that may not be dumped.
    """
    return _in_status(process, "Uid:")


def parent_of(process: Path) -> int:
    """The process that has started a process, given its directory in /proc; 0 for nobody's."""
    return _in_status(process, "PPid:")


def _in_status(process: Path, key: str) -> int:
    for line in (process / "status").read_text(errors="replace").splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise FileNotFoundError(process)


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped by a signal and does nothing (proc(5), stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] in ("T", "t")


def _trusted(paths: Paths) -> tuple[int, ...]:
    try:
        return (0, paths.tor_data.stat().st_uid)
    except FileNotFoundError:
        return (0,)


def own_group_of(pid: int) -> str | None:
    """The control group that was made for a running tor, or None."""
    from onionward.facts import cgroup_mount

    mount = cgroup_mount(Path("/proc/self/mountinfo").read_text())
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        name = line.removeprefix("0::").strip("/")
        if mount is not None and line.startswith("0::") and name.startswith("onionward-"):
            return str(mount / name)
    return None


def running(paths: Paths) -> tuple[int, ...]:
    """Process ids of onionward's tor."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return tuple(sorted(pid for pid in pids if is_own(pid, paths)))


def verify_config(system: System, text: str) -> None:
    """Have tor itself read a configuration, changing nothing.

    Raises:
        RefusedError: tor does not accept it; with tor's words.

    """
    try:
        system.query([*command(Path("-")), "--verify-config"], stdin=text, timeout=30)
    except CommandError as error:
        raise RefusedError(
            f"tor does not accept its configuration: {complaint(error.stderr)}",
            "nothing was changed; see the text with: onionward show torrc",
        ) from error


def complaint(words: str) -> str:
    """What tor's log complains of, without what it says of every private network and of root."""
    found = [
        line.split("] ", 1)[-1]
        for line in words.splitlines()
        if ("[warn]" in line or "[err]" in line) and not any(h in line for h in _HARMLESS)
    ]
    return "; ".join(found) or words.strip()


def start(system: System, text: str, paths: Paths, account: Account, cgroup: Path | None) -> None:
    """Start tor; returns when it has opened its ports and gone to the background.

    Args:
        system: the seam.
        text: its torrc.
        paths: where its files are.
        account: whose its files are.
        cgroup: the control group it runs in, created when missing.

    Raises:
        TorError: it ended instead; with tor's words.

    """
    owner = (account.uid, account.gid)
    system.make_directory(paths.tor_data, mode=0o700, owner=owner)
    system.make_directory(paths.tor_runtime, mode=0o700, owner=owner)
    system.make_directory(paths.socks4.parent, mode=0o755, owner=owner)
    _give_files(system, paths.tor_data, owner)
    # left by a tor that was killed; it would look as if the new one were listening
    system.remove_file(paths.control_socket)
    _remove_foreign_log(system, paths)
    # bridges are nobody else's business; tor reads it again by its group's right
    system.write_file(paths.torrc, text, mode=0o640, owner=(0, account.gid))
    try:
        with _inside(system, cgroup):
            system.change(command(paths.torrc), timeout=60)
    except CommandError as error:
        raise TorError(f"tor did not start: {complaint(error.stderr)}") from error


def _remove_foreign_log(system: System, paths: Paths) -> None:
    """A pipe there would have tor wait for ever, a link have it write elsewhere."""
    try:
        mode = paths.tor_log.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise TorError(f"{paths.tor_log} is a directory: tor cannot write its log", "remove it")
    if not stat.S_ISREG(mode):
        system.remove_file(paths.tor_log)


def _give_files(system: System, directory: Path, owner: tuple[int, int]) -> None:
    """Hand over what another account's tor has written here."""
    strangers = [f for f in directory.rglob("*") if (f.lstat().st_uid, f.lstat().st_gid) != owner]
    if strangers:
        system.change(
            ["chown", "--recursive", "--no-dereference", f"{owner[0]}:{owner[1]}", str(directory)]
        )


@contextlib.contextmanager
def _inside(system: System, cgroup: Path | None) -> Iterator[None]:
    """Be in a control group for a moment, so that a child is in it from its first instruction."""
    if cgroup is None:
        yield
        return
    system.make_directory(cgroup)
    before = _own_cgroup(cgroup)
    try:
        _join(cgroup)
        yield
    finally:
        _join(before)


def _own_cgroup(beside: Path) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return beside.parent / line[3:].lstrip("/")
    return beside.parent


def _join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0\n")


def stop(system: System, paths: Paths, cgroup: Path | None) -> None:
    """End tor, whatever it is doing, and remove its control group; nothing happens when it is gone.

    Raises:
        TorError: a process does not end.

    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = set(running(paths)) | set(_members(cgroup))
        if not pids:
            break
        for pid in pids:
            system.kill(pid, number)
        # SIGINT and SIGTERM end a client at once (tor(1), signals)
        _wait_for_end(paths, cgroup, _PATIENCE if number is signal.SIGKILL else 3.0)
    if left := set(running(paths)) | set(_members(cgroup)):
        raise TorError(f"tor does not end: process {', '.join(map(str, sorted(left)))}")
    if cgroup is not None and cgroup.exists():
        system.effect(f"rmdir {cgroup}")
        _remove_group(cgroup)


def _members(cgroup: Path | None) -> tuple[int, ...]:
    if cgroup is None:
        return ()
    try:
        text = (cgroup / "cgroup.procs").read_text()
    except OSError:
        return ()
    # 0 is a process outside our pid namespace, which cannot be ours
    return tuple(int(line) for line in text.split() if line != "0")


def _wait_for_end(paths: Paths, cgroup: Path | None, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not running(paths) and not _members(cgroup):
            return
        time.sleep(0.02)


def _remove_group(cgroup: Path) -> None:
    deadline = time.monotonic() + 3.0
    while True:
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # the kernel still counts a process that has just ended
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
