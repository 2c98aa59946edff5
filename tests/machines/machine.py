"""Machines: a Debian tree with systemd as process 1, in the network of a lab's host.

Files of the machine are an overlay in memory on a cached tree (`tests.machines.tree`): each boot
starts clean, and nothing of it is on disk. The repository is at its own path, for reading. No
service runs but journald, D-Bus and logind; a test starts what it is about.

    with boot(lab.hosts["host"]) as machine:
        machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\\n")
        machine.output("systemctl", "start", "unbound")
        machine.onionward("up")

Also when the tests are killed, the machine ends with them; what may be left then are empty control
groups and directories, which the next boot removes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from onionward.errors import LabError
from onionward.lab import Host
from tests.machines.network import left_as_found
from tests.machines.tree import PACKAGES, tree

PROJECT = Path(__file__).parents[2]
PYTHONPATH = f"{PROJECT / 'src'}:{PROJECT}:{sysconfig.get_path('purelib')}"

Done = subprocess.CompletedProcess[str]

_GROUP = "onionward-machine-"
_PROPAGATE = Path("/run/systemd/nspawn/propagate")
_NUMBERS = itertools.count(1)
_BOOT_TIMEOUT = 30.0
_END_TIMEOUT = 10.0
# the command's control groups are joined first, so that all it starts is in them
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

_MOUNT = 'mount -t overlay overlay -o "$1" "$2" && shift 2 && exec "$@"'


class Machine:
    """A booted machine.

    Args:
        leader: its process 1, as the machine outside sees it.
        log: what was written on its console.

    """

    def __init__(self, leader: int, log: Path) -> None:
        self.leader = leader
        self._log = log

    @property
    def console(self) -> str:
        """What was written on its console."""
        return self._log.read_text(errors="replace")

    def path(self, inside: str | Path) -> Path:
        """A file of the machine, as seen from outside; links in it are not for the outside."""
        return Path(f"/proc/{self.leader}/root") / str(inside).lstrip("/")

    def write(self, inside: str | Path, text: str, *, mode: int = 0o644) -> None:
        """Write a file of the machine, in a directory that is made when missing.

        What is there already is removed first: through a link the outside would be written to.
        """
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def command(
        self, argv: Iterable[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """Arguments that run `argv` inside, in the directory /; it dies with this program.

        Args:
            argv: program and arguments.
            user: an account of the machine; None for root.
            env: further variables.

        """
        account = ["runuser", "-u", user, "--"] if user is not None else []
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "PYTHONPATH": PYTHONPATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        groups = [str(group) for group in _groups_of(self.leader)]
        return [
            *("sh", "-c", _JOIN, "sh", *groups, "--", "setpriv", "--pdeathsig", "KILL", "--"),
            *("nsenter", "--target", str(self.leader), "--all", "--"),
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("env", "--ignore-environment", *(f"{k}={v}" for k, v in variables.items())),
            *account,
            *argv,
        ]

    def run(
        self,
        *argv: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
    ) -> Done:
        """Run a command to its end."""
        return subprocess.run(
            self.command(argv, user=user, env=env),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def output(
        self,
        *argv: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
    ) -> str:
        """What a command prints; its failure is the test's."""
        done = self.run(*argv, user=user, env=env, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def onionward(self, *argv: str, timeout: float = 60) -> Done:
        """Run the program of this repository."""
        return self.run("python3", "-m", "onionward", *argv, timeout=timeout)

    def power_off(self) -> None:
        """Shut down in order, and wait until it is off."""
        self.run("systemctl", "poweroff")
        _poll(lambda: not Path(f"/proc/{self.leader}/root/etc").exists(), "it does not end")

    def start(self, *units: str) -> None:
        """Start services; one that does not start is the test's failure, with its journal."""
        done = self.run("systemctl", "start", *units)
        if done.returncode:
            journal = self.run("journalctl", "--no-pager", "-n", "40").stdout
            raise AssertionError(f"{units}: {done.stderr}\n{journal}")


@contextmanager
def boot(
    host: Host,
    packages: Iterable[str] = PACKAGES,
    *,
    release: str = "",
    disk: Path | None = None,
    reached: Iterable[str] = ("running", "degraded"),
) -> Iterator[Machine]:
    """Boot a machine in the network of a lab's host; it is gone when the block is left.

    The network is then as it was, but for tables of packet rules.

    Args:
        host: whose network.
        packages: what its tree has.
        release: of Debian; left out, that of the machine outside.
        disk: a directory for what the machine writes, to be booted from again; left out, it
            forgets everything.
        reached: what it has come to when it counts as booted (systemctl(1), is-system-running).

    Raises:
        LabError: there is no tree, or the machine does not boot.

    """
    place = tree(packages, release)
    _remove_leftovers_of_the_dead()
    name = f"{_GROUP}{os.getpid()}-{next(_NUMBERS)}"
    groups = [root / name for root in _control_trees()]
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as directory:
        log = Path(directory, "console")
        try:
            for group in groups:
                group.mkdir()
            with left_as_found(host):
                nspawn = _spawn(place, name, host, groups, log, disk)
                try:
                    leader = _wait_for_leader(nspawn, log)
                    machine = Machine(leader, log)
                    _wait_until_booted(machine, set(reached))
                    yield machine
                finally:
                    _end(nspawn)
        finally:
            for group in groups:
                _remove_group(group)
            with suppress(OSError):
                (_PROPAGATE / name).rmdir()


def _spawn(
    place: Path, name: str, host: Host, groups: list[Path], log: Path, disk: Path | None
) -> subprocess.Popen[bytes]:
    files: tuple[str, ...] = (f"--directory={place}", "--volatile=overlay")
    mounted: tuple[str, ...] = ()
    if disk is not None:
        for part in ("upper", "work", "whole"):
            (disk / part).mkdir(exist_ok=True)
        files = (f"--directory={disk / 'whole'}",)
        layers = f"lowerdir={place},upperdir={disk / 'upper'},workdir={disk / 'work'}"
        # in a mount namespace that ends with the machine
        mounted = ("unshare", "--mount", "--", "sh", "-c", _MOUNT, "sh", layers, f"{disk}/whole")
    with log.open("wb") as console:
        return subprocess.Popen(
            [
                *("sh", "-c", _JOIN, "sh", *map(str, groups), "--"),
                *mounted,
                # not KILL: a machine outlives an nspawn that has no time to end it
                *("setpriv", "--pdeathsig", "TERM", "--"),
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no"),
                *(*files, f"--machine={name}"),
                *("--hostname=machine", f"--network-namespace-path=/proc/{host.pid}/ns/net"),
                *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                # one that programs can open, or none
                f"--console={'read-only' if disk is not None else 'pipe'}",
                "--capability=CAP_NET_ADMIN,CAP_LINUX_IMMUTABLE",
                *(f"--bind-ro={path}" for path in _bound()),
                "--boot",
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={
                **os.environ,
                # several machines share a tree, which none of them writes to
                "SYSTEMD_NSPAWN_LOCK": "0",
                # /proc/sys/net is that of the lab's host, and may be changed
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            },
        )


def _bound() -> list[Path]:
    libraries = Path(sysconfig.get_path("purelib"))
    return [PROJECT, *([] if libraries.is_relative_to(PROJECT) else [libraries])]


def _wait_for_leader(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def leader() -> int:
        if nspawn.poll() is not None:
            raise LabError(f"systemd-nspawn ended: {log.read_text(errors='replace')}")
        for child in children.read_text().split():
            with suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                executable = Path(f"/proc/{child}/exe").readlink().name
                if "\t1\n" in status.partition("\nNSpid:")[2][:40] and executable == "systemd":
                    return int(child)
        return 0

    return _poll(leader, "its process 1 does not start")


def _wait_until_booted(machine: Machine, reached: set[str]) -> None:
    # systemctl cannot ask before systemd listens
    _poll(machine.path("/run/systemd/private").exists, "systemd does not listen")
    state = machine.run("systemctl", "is-system-running", "--wait", timeout=_BOOT_TIMEOUT)
    if state.stdout.strip() not in reached:
        raise LabError(f"the machine does not boot: {state.stdout}{state.stderr}{machine.console}")


def _poll(reached: Callable[[], int], what: str) -> int:
    deadline = time.monotonic() + _BOOT_TIMEOUT
    while not (found := reached()):
        if time.monotonic() > deadline:
            raise LabError(f"the machine does not boot: {what}")
        time.sleep(0.02)
    return found


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    """Kill the machine; nspawn then takes down what it made."""
    if nspawn.poll() is None:
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        try:
            nspawn.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def _control_trees() -> list[Path]:
    """Where control groups of systemd are: version 2, and version 1's named hierarchy (hybrid)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        Path(point)
        for _, point, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
    ]


def _groups_of(pid: int) -> list[Path]:
    """The control groups of a process, those that systemd manages."""
    roots = {root.name == "systemd": root for root in _control_trees()}
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, kind, name = line.split(":", 2)
        if number == "0" or kind == "name=systemd":
            found.append(roots[kind == "name=systemd"] / name.lstrip("/"))
    return found


def _remove_group(group: Path) -> None:
    """Remove a control group with those below; a process counts for a moment after its end."""
    deadline = time.monotonic() + _END_TIMEOUT
    while group.exists():
        for directory, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
        if group.exists() and time.monotonic() > deadline:
            raise LabError(f"{group} does not empty: {(group / 'cgroup.procs').read_text()}")


def _remove_leftovers_of_the_dead() -> None:
    """Remove the empty control groups and directories of tests that were killed."""
    trees = _control_trees()
    for place in (*trees, _PROPAGATE, Path(tempfile.gettempdir())):
        for path in place.glob(f"{_GROUP}*"):
            owner = path.name.removeprefix(_GROUP).partition("-")[0]
            if Path(f"/proc/{owner}").exists():
                continue
            if place in trees:
                with suppress(LabError):
                    _remove_group(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
