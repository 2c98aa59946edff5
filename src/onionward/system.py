"""The seam: every effect on the machine goes through `System`.

Commands get a list of arguments, a fixed locale, no inherited standard input and a timeout. Each
change is announced to `System.effect` immediately before it happens, which is what a trace prints
and where a test can make the program die.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from onionward import regular_file
from onionward.errors import CommandError

Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")

_FIXED_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
# ioctl_iflags(2); the same numbers on every 64-bit architecture
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x00000010
_FS_APPEND_FL = 0x00000020


def temporary_name(path: Path) -> Path:
    """Where `write_file` puts a file before it renames it.

    Always the same, so that what a killed program left is found and removed.
    """
    return path.with_name(f".{path.name}.onionward-new")


def find_tool(name: str) -> str | None:
    """Path of a system tool, looked up in the directories of a root login, or None."""
    # shutil.which does the same, but shutil knows archives, which takes longer than all else
    for directory in _FIXED_ENVIRONMENT["PATH"].split(":"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK) and Path(path).is_file():
            return path
    return None


@overload
def at_once(
    first: Callable[[], First], second: Callable[[], Second], /
) -> tuple[First, Second]: ...
@overload
def at_once(*actions: Callable[[], Result]) -> tuple[Result, ...]: ...
def at_once(*actions: Callable[[], Any]) -> tuple[Any, ...]:
    """Run actions side by side, the first in this thread, and wait for all.

    Returns:
        What they returned, in their order.

    Raises:
        BaseException: the first error of the first action that failed.

    """
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}

    def run(place: int) -> None:
        try:
            results[place] = actions[place]()
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(1, len(actions))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return tuple(results[place] for place in range(len(actions)))


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("HOME", "TMPDIR", "TERM")}
    return {**kept, **_FIXED_ENVIRONMENT, **(extra or {})}


def _flags(path: Path) -> int:
    """Flags of a file (ioctl_iflags(2)); 0 where the file system has none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        raw = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int.from_bytes(raw, sys.byteorder)


def _set_flag(path: Path, flag: int, *, wanted: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        raw = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
        flags = int.from_bytes(raw, sys.byteorder)
        flags = flags | flag if wanted else flags & ~flag
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, flags.to_bytes(8, sys.byteorder))
    finally:
        os.close(descriptor)


class System:
    """Runs commands and changes files; the only object that does.

    Args:
        trace: print each change with a time stamp on standard error before it is made.

    """

    def __init__(self, *, trace: bool = False) -> None:
        self._trace = trace

    def effect(self, words: str) -> None:
        """Announce a change that is about to be made."""
        if self._trace:
            now = time.time()
            sys.stderr.write(f"[{now:.6f}] {words}\n")
            sys.stderr.flush()

    def query(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 20.0,
        accept: Sequence[int] = (0,),
    ) -> str:
        """Run a command that only reads; returns its standard output.

        Args:
            argv: program and arguments.
            stdin: text for its standard input.
            timeout: seconds before it is killed.
            accept: exit statuses that are no failure.

        Raises:
            CommandError: another exit status, a timeout, or no such program.

        """
        return self.execute(argv, stdin=stdin, timeout=timeout, accept=accept)

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        """What `query` and `change` have in common: every command passes here, and only here."""
        shown = argv[len(DIES_WITH_US) :] if tuple(argv[:4]) == DIES_WITH_US else argv
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=_environment(None),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(shown, None, f"after {timeout:g} s") from error
        except OSError as error:
            raise CommandError(shown, 127, str(error)) from error
        if done.returncode not in accept:
            raise CommandError(shown, done.returncode, done.stderr or done.stdout)
        return done.stdout

    def change(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 20.0,
        accept: Sequence[int] = (0,),
        words: str = "",
    ) -> str:
        """Run a command that changes the machine; arguments and errors as `query`.

        It dies with this program: what a killed `up` had begun must not come after a `down`.

        Args:
            argv: program and arguments.
            stdin: text for its standard input.
            timeout: seconds before it is killed.
            accept: exit statuses that are no failure.
            words: announced in place of the command.

        """
        import shlex

        self.effect(words or shlex.join(argv))
        # setpriv(1) is Linux's; elsewhere a killed `up` leaves the command that it had begun
        dying = (*DIES_WITH_US, *argv) if sys.platform == "linux" else argv
        return self.execute(dying, stdin=stdin, timeout=timeout, accept=accept)

    def write_file(
        self, path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Replace a file's content atomically and durably (write, fsync, rename, fsync)."""
        self.effect(f"write {path}")
        temporary = temporary_name(path)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.sync_directory(path.parent)

    def append(self, path: Path, text: str, *, mode: int = 0o600) -> None:
        """Add to the end of a file of ours, which is made if need be.

        A link is not followed, and a pipe that somebody puts there does not hold anybody up.
        """
        self.effect(f"append to {path}")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            if regular_file.require(descriptor, path).st_uid != os.geteuid():
                raise OSError(errno.EPERM, "it belongs to another account", str(path))
            file.write(text)

    def sync_directory(self, directory: Path) -> None:
        """Make renames and removals in a directory durable."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(
        self, path: Path, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Create a directory with its parents, or correct the mode and owner of one that exists."""
        self.effect(f"mkdir {path}")
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, *owner)
        path.chmod(mode)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all below it; nothing happens when it does not exist."""
        if path.exists():
            self.effect(f"rm -r {path}")
            import shutil

            shutil.rmtree(path)

    def remove_file(self, path: Path) -> None:
        """Remove a file or link; nothing happens when it does not exist."""
        if path.is_symlink() or path.exists():
            self.effect(f"rm {path}")
            path.unlink(missing_ok=True)

    def hard_link(self, path: Path, name: Path) -> None:
        """Give the file (or symbolic link) at `path` a second name."""
        self.effect(f"ln -P {path} {name}")
        os.link(path, name, follow_symlinks=False)

    def symbolic_link(self, target: str, path: Path) -> None:
        """Make a link, atomically and durably; what has its name is replaced."""
        self.effect(f"ln -sfn {target} {path}")
        temporary = temporary_name(path)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)
        self.sync_directory(path.parent)

    def rename(self, path: Path, target: Path) -> None:
        """Rename atomically, replacing what is there, and make it durable."""
        self.effect(f"mv -T {path} {target}")
        path.replace(target)
        self.sync_directory(target.parent)

    def is_immutable(self, path: Path) -> bool:
        """Whether chattr's immutable flag is set; False where the file system has no flags."""
        return bool(_flags(path) & _FS_IMMUTABLE_FL)

    def is_append_only(self, path: Path) -> bool:
        """Whether chattr's flag is set that neither lets a file be replaced nor renamed."""
        return bool(_flags(path) & _FS_APPEND_FL)

    def set_immutable(self, path: Path, *, immutable: bool) -> None:
        """Set or clear chattr's immutable flag (ioctl_iflags(2))."""
        self.effect(f"chattr {'+' if immutable else '-'}i {path}")
        _set_flag(path, _FS_IMMUTABLE_FL, wanted=immutable)

    def set_append_only(self, path: Path, *, append_only: bool) -> None:
        """Set or clear chattr's flag for append-only files."""
        self.effect(f"chattr {'+' if append_only else '-'}a {path}")
        _set_flag(path, _FS_APPEND_FL, wanted=append_only)

    def set_attribute(self, path: Path, name: str, value: bytes | None) -> None:
        """Set an extended attribute of a file, not of what it links to; None removes it (xattr(7)).

        Removing what is not there is no error.
        """
        self.effect(f"{'setfattr -n' if value is not None else 'setfattr -x'} {name} {path}")
        if value is not None:
            os.setxattr(path, name, value, follow_symlinks=False)
            return
        try:
            os.removexattr(path, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise

    def send_packets(self, packets: Sequence[tuple[bytes, str]], *, mark: int, words: str) -> None:
        """Send whole IP packets, each to an address (raw(7)); one without a way is left out.

        Args:
            packets: bytes from the IP header on, and where they go.
            mark: their packet mark (socket(7), SO_MARK).
            words: announced.

        """
        import socket

        self.effect(words)
        sockets: dict[bool, socket.socket] = {}
        try:
            for packet, address in packets:
                ipv6 = ":" in address
                if ipv6 not in sockets:
                    family = socket.AF_INET6 if ipv6 else socket.AF_INET
                    made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                    value = mark.to_bytes(4, sys.byteorder)
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, value)
                    sockets[ipv6] = made
                with contextlib.suppress(OSError):
                    sockets[ipv6].sendto(packet, (address, 0))
        finally:
            for one in sockets.values():
                one.close()

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process; nothing happens when it is gone."""
        self.effect(f"kill -{number.name.removeprefix('SIG')} {pid}")
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
