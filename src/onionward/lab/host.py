"""Hosts: machines made of namespaces, held by one process each.

The process is number 1 of its pid namespace: with it dies everything inside, and then the
namespaces, links and mounts go. What is left to remove is a directory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onionward.errors import LabError
from onionward.lab import init
from onionward.system import System

_MARKER = "onionward-lab-init"
_END_TIMEOUT = 10.0
_GROUP_PATIENCE = 2.0


@dataclass(frozen=True)
class Host:
    """A machine of the lab.

    Args:
        name: "internet" or that of a machine, see `onionward.lab.topology`.
        pid: its process 1, as the machine outside sees it.

    """

    name: str
    pid: int

    @property
    def root(self) -> Path:
        """Its file system, as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def command(self, argv: Sequence[str], *, user: str | None = None) -> list[str]:
        """Arguments that run `argv` inside, in the directory /.

        PATH is kept, with the directory of this Python first. The command gets SIGTERM when the
        returned command (nsenter) is killed; to send it another signal, signal it, not nsenter.

        Args:
            argv: program and arguments.
            user: an account of the host, which may exist only there; None for root.

        """
        search = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        account = ["runuser", "-u", user, "--"] if user is not None else []
        # nsenter forks to enter a pid namespace and does not pass signals on
        return [
            *("nsenter", "--target", str(self.pid)),
            # the root too: it may be a chroot
            *("--root", "--mount", "--net", "--uts", "--ipc", "--pid", "--"),
            *("setpriv", "--pdeathsig", "TERM", "--"),
            *account,
            # the SSH session of whoever runs this does not end in the host
            *("env", "--unset=SSH_CONNECTION", f"PATH={Path(sys.executable).parent}:{search}"),
            *argv,
        ]

    def network_command(self, argv: Sequence[str]) -> list[str]:
        """Arguments that run `argv` in the host's network but on the machine's files."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *argv]


def start(directory: Path, name: str) -> Host:
    """Start a host without links or mounts of its own.

    Args:
        directory: the lab's, which marks the process as belonging to it.
        name: also its host name.

    Raises:
        LabError: the kernel or the tools do not allow it.

    """
    log = directory / f"{name}.log"
    reader, writer = os.pipe()
    with log.open("wb") as errors, os.fdopen(reader, "rb") as report:
        try:
            # setsid --fork: the host must outlive this program, and be nobody's zombie
            launched = subprocess.run(
                [
                    *("setsid", "--fork", "unshare", "--net", "--mount", "--pid", "--uts", "--ipc"),
                    *("--fork", "--kill-child", "--", sys.executable, "-I", "-S", init.__file__),
                    *(_MARKER, str(directory), name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=errors,
                check=False,
            )
        finally:
            os.close(writer)
        pid = report.readline().strip()
    if launched.returncode or not pid:
        words = log.read_text(errors="replace").strip()
        raise LabError(
            f"the namespaces of {name} cannot be created: {words or 'unshare printed no reason'}",
            "The kernel needs network, mount, pid, uts and ipc namespaces, and you must be root.",
        )
    return Host(name, int(pid))


def furnish(system: System, host: Host, *, covered: Sequence[str] = ()) -> None:
    """Give a host /proc, /run and /sys of its own.

    Args:
        system: the seam.
        host: a started host.
        covered: directories such as "/etc" whose changes stay in the host.

    """
    overlays = "/run/onionward-lab/overlay"
    made = [f"{overlays}{path}/{part}" for path in covered for part in ("upper", "work")]
    mounts = [
        ["mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run"],
        ["mkdir", "-p", *made, "/run/lock", "/run/onionward-lab/cgroup"],
    ]
    mounts += [
        [
            *("mount", "-t", "overlay", "lab", path, "-o"),
            f"lowerdir={path},upperdir={overlays}{path}/upper,workdir={overlays}{path}/work",
        ]
        for path in covered
    ]
    # A fresh /sys shows the host's links, but would hide the control groups mounted below.
    mounts += [
        ["mount", "--rbind", "/sys/fs/cgroup", "/run/onionward-lab/cgroup"],
        ["mount", "-t", "sysfs", "lab", "/sys"],
        ["mount", "--rbind", "/run/onionward-lab/cgroup", "/sys/fs/cgroup"],
        ["umount", "-R", "/run/onionward-lab/cgroup"],
        ["mount", "-t", "proc", "lab", "/proc"],
    ]
    for argv in mounts:
        system.change(host.command(argv))


def processes(directory: Path) -> list[int]:
    """Pids of the processes that hold the hosts of the lab in `directory`, from /proc."""
    wanted = f"\0{_MARKER}\0{directory}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if wanted in arguments:
                found.append(int(entry.name))
    return found


def stop(system: System, directory: Path) -> None:
    """Kill the hosts of a lab and wait until they are gone, with all that ran inside.

    Raises:
        LabError: a process does not die.

    """
    deadline = time.monotonic() + _END_TIMEOUT
    pids = processes(directory)
    groups = _control_groups(pids)
    for pid in pids:
        system.kill(pid, signal.SIGKILL)
    # a killed init loses its arguments first, and ends only when all inside have ended
    while remaining := [pid for pid in {*pids, *processes(directory)} if not _has_ended(pid)]:
        if time.monotonic() > deadline:
            raise LabError(f"processes of the lab do not end: {remaining}")
        time.sleep(0.01)
    for group in groups:
        _remove_group(group)


def _has_ended(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")


def _remove_group(group: Path) -> None:
    """Remove a control group, with patience: a process counts for a moment after its end."""
    deadline = time.monotonic() + _GROUP_PATIENCE
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:  # in use by others
                return
            time.sleep(0.02)


def _control_groups(inits: Sequence[int]) -> list[Path]:
    """Version 2 control groups that programs inside the hosts made, the deepest first.

    The tree is the machine's own, so groups do not go with the processes. One that is empty
    already is not found.
    """
    namespaces = {_process_link(pid, "ns/pid") for pid in inits}
    namespaces -= {_process_link(os.getpid(), "ns/pid"), None}
    own = {_group(pid) for pid in inits}
    inside = {
        _group(int(entry.name))
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and _process_link(int(entry.name), "ns/pid") in namespaces
    }
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    trees = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    names = sorted(inside - own - {"", "/"}, key=lambda name: name.count("/"), reverse=True)
    return [tree / name.lstrip("/") for tree in trees[:1] for name in names]


def _process_link(pid: int, name: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/{name}").readlink())
    except OSError:  # it ended meanwhile
        return None


def _group(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
