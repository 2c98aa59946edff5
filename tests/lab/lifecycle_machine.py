"""A machine of the lab as the lifecycle tests use it: commands, configuration, journal, snapshots.

Nothing here judges; the tests do.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onionward.lab import Host, Lab
from onionward.status_text import EXIT_STATUS

HERE = Path(__file__).parent
NETWORK = '[tor]\nnetwork = "/run/onionward-lab/network.torrc"\n'
CONFIG = Path("/run/onionward-lab/lifecycle.toml")
JOURNAL = Path("/var/lib/onionward/journal.json")
RESOLV_CONF = Path("/etc/resolv.conf")
WAITING = Path("/etc/.resolv.conf.before-onionward")

_SAY = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"something", (sys.argv[1], 9))
"""
BACKEND = os.environ.get("ONIONWARD_TEST_BACKEND", "")
"""Another packet filter than the machine's own choice, as the configuration names it."""

GUARD = b"onionward.guard.loop"

Done = subprocess.CompletedProcess[str]


def until(what: str, reached: Callable[[], bool], patience: float = 10.0) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + patience
    while not reached():
        assert time.monotonic() < deadline, f"not in {patience:g} s: {what}"
        time.sleep(0.02)


class Machine:
    """The protected machine of a lab: "host", or "gateway"."""

    def __init__(self, lab: Lab, name: str = "host") -> None:
        self.lab = lab
        self.host = lab.hosts[name]
        self.link = lab.host_link if name == "host" else lab.gateway_link
        self.started: list[subprocess.Popen[str]] = []
        self._of_accounts: list[subprocess.Popen[str]] = []

    def _on(self, name: str) -> Host:
        return self.lab.hosts[name] if name else self.host

    def path(self, inside: str | Path) -> Path:
        """A file of the host, as seen from outside; links in it are not for the outside."""
        return self.host.root / str(inside).lstrip("/")

    def run(
        self,
        *argv: str,
        on: str = "",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Done:
        """Run a command to its end."""
        # the host is not where the SSH session of whoever runs the tests ends
        words = ["env", "--unset=SSH_CONNECTION"]
        words += [*(f"{k}={v}" for k, v in (env or {}).items()), *argv]
        return subprocess.run(
            self._on(on).command(words, user=user),
            capture_output=True,
            text=True,
            errors="backslashreplace",  # names of interfaces may be any bytes
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def output(self, *argv: str, on: str = "", timeout: float = 60) -> str:
        """What a command prints; its failure is the test's."""
        done = self.run(*argv, on=on, timeout=timeout)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, *argv: str, on: str = "", user: str | None = None) -> subprocess.Popen[str]:
        """Start a command; `close` ends it. Its first line on standard output says it is ready.

        What an account runs ends by itself when its standard input does.
        """
        process = subprocess.Popen(
            self._on(on).command(argv, user=user),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.started.append(process)
        if user is not None:
            self._of_accounts.append(process)
        return process

    def stream(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command whose output is bytes; it ends by itself."""
        return subprocess.Popen(self.host.command(argv), stdout=subprocess.PIPE)

    def script(
        self, name: str, *arguments: str, on: str = "", user: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a script beside this file."""
        # other accounts cannot read the Python of whoever runs the tests
        python = "python" if user is None else "/usr/bin/python3"
        return self.spawn(python, "-I", str(HERE / name), *arguments, on=on, user=user)

    def close(self) -> None:
        """End what `spawn` has started."""
        for process in self._of_accounts:
            # by itself: runuser(1) that is told to end waits for seconds
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for process in self.started:
            end(process)
        self._of_accounts.clear()
        self.started.clear()

    def configure(self, text: str = "") -> None:
        """What the next `up` reads, beside the lab's Tor network."""
        merged = f"{text}\n{NETWORK}" if "[tor]" not in text else text.replace("[tor]\n", NETWORK)
        if BACKEND and "[firewall]" not in text:
            merged += f'\n[firewall]\nbackend = "{BACKEND}"\n'
        self.path(CONFIG).write_text(merged)

    def onionward(
        self, *argv: str, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run onionward with the configuration of `configure`."""
        config = ("--config", str(CONFIG))
        return self.run("onionward", *argv[:1], *config, *argv[1:], timeout=timeout, env=env)

    def up(self, *argv: str) -> Done:
        done = self.onionward("up", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def down(self, *argv: str) -> Done:
        done = self.onionward("down", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def say(self, address: str) -> Done:
        """Send a datagram; it may be refused."""
        return self.run("python3", "-I", "-c", _SAY, address)

    def status(self) -> dict[str, Any]:
        done = self.onionward("status", "--json")
        assert done.returncode in EXIT_STATUS.values(), done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == EXIT_STATUS[report["state"]]
        return report

    def journal(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path(JOURNAL).read_text())
        return document

    def tor_pids(self) -> list[int]:
        """Every tor of the host, as the host numbers them."""
        found = []
        for entry in self.path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and (entry / "comm").read_text() == "tor\n":
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
        return found

    def guard_pids(self) -> list[int]:
        """The guard's, as the host numbers them."""
        found = []
        for entry in self.path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and GUARD in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
        return found

    def pause_guard(self) -> None:
        """Stop it while it is idle, for what it has begun waits for it; `resume_guard` goes on."""

        def is_running(pid: str) -> bool:
            try:
                # one that has ended has none, until its parent has heard of it
                return bool(self.path(f"/proc/{pid}/cmdline").read_bytes())
            except (FileNotFoundError, ProcessLookupError):
                return False

        def is_idle() -> bool:
            children = [
                pid
                for guard in self.guard_pids()
                for pid in self.path(f"/proc/{guard}/task/{guard}/children").read_text().split()
            ]
            return not any(map(is_running, children))

        def paused() -> bool:
            until("the guard is idle", is_idle, 60)
            for pid in self.guard_pids():
                self.output("kill", "-STOP", str(pid))
            if is_idle():
                return True
            self.resume_guard()
            return False

        until("the guard is paused while it is idle", paused, 60)

    def resume_guard(self) -> None:
        for pid in self.guard_pids():
            self.output("kill", "-CONT", str(pid))

    def end_guard(self) -> None:
        """Without it what is broken stays broken; returns when its tables are gone, too."""

        def gone() -> bool:
            for pid in self.guard_pids():
                self.run("kill", "-KILL", str(pid))
            return not self.guard_pids() and "onionward_lock" not in self.tables()

        until("the guard is gone", gone)

    def kill_tor(self, *, guarded: bool = False) -> None:
        """As the kernel does when memory is short; returns when it is gone.

        Args:
            guarded: leave the guard alone, which starts another one; otherwise it is ended first.

        """
        if guarded:
            for pid in self.tor_pids():
                self.run("kill", "-KILL", str(pid))
            return
        self.end_guard()

        def gone() -> bool:
            # one that is just going to the background becomes another process
            for pid in self.tor_pids():
                self.run("kill", "-KILL", str(pid))
            return not self.tor_pids()

        until("tor is gone", gone)

    def snapshot(self) -> dict[str, Any]:
        """Everything that must be again as it was; see lifecycle_snapshot.py."""
        text = self.output("python", "-I", str(HERE / "lifecycle_snapshot.py"))
        found: dict[str, Any] = json.loads(text)
        return found

    def tables(self) -> str:
        return self.output("nft", "list", "tables")


TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""Of iptables, with their built-in chains."""


def empty_tables(host: Host, *variants: str) -> None:
    """Rules, chains and policies of iptables, gone; the kernel keeps tables of the older one."""
    lines = []
    for table, chains in TABLES.items():
        lines += [f"*{table}", *(f":{chain} ACCEPT" for chain in chains), "COMMIT"]
    script = [
        f"printf '%s\\n' \"$@\" | {family}tables-{variant}-restore"
        for variant in variants
        for family in ("ip", "ip6")
    ]
    if "nft" in variants:
        script += [f"nft delete table {family} {t}" for family in ("ip", "ip6") for t in TABLES]
    argv = host.command(["sh", "-euc", "\n".join(script), "sh", *lines])
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def end(process: subprocess.Popen[str]) -> None:
    """End a process that was started here, and wait for it."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def inside_pid(process: subprocess.Popen[Any]) -> int:
    """The command that nsenter runs, as the machine outside sees it; signals go to this one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until("nsenter has forked", lambda: bool(children.read_text().split()))
    return int(children.read_text().split()[0])


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What two snapshots do not have in common, one thing per line."""
    lines = []
    for kind in sorted(before.keys() | after.keys()):
        one, other = before.get(kind, {}), after.get(kind, {})
        for name in sorted(one.keys() | other.keys()):
            here, there = one.get(name), other.get(name)
            if here == there:
                continue
            if isinstance(here, str) and isinstance(there, str) and "\n" in here + there:
                changed = difflib.unified_diff(here.splitlines(), there.splitlines(), n=0)
                here, there = "", "".join(f"\n    {line}" for line in [*changed][3:])
            lines.append(
                f"{kind} {name}: {here!r} -> {there!r}" if here else f"{kind} {name}: {there}"
            )
    return "\n".join(lines)


def run_in(host: Host, argv: Sequence[str]) -> Done:
    """Run a command in a host's network, on the machine's own files."""
    return subprocess.run(
        host.network_command(argv), capture_output=True, text=True, timeout=20, check=False
    )


@contextmanager
def exactly_back(machine: Machine) -> Iterator[None]:
    """Whatever happens inside, the machine is afterwards as it was before."""
    before = machine.snapshot()
    yield
    assert difference(before, machine.snapshot()) == ""


@contextmanager
def open_machine(lab: Lab, name: str = "host") -> Iterator[Machine]:
    """A machine of the lab, off; and off again, whatever a test has done to it."""
    machine = Machine(lab, name)
    machine.configure()
    for host in lab.hosts.values():
        # earlier tests put frames in others' names on the wire
        subprocess.run(
            host.command(["ip", "neighbour", "flush", "all"]), capture_output=True, check=True
        )
    try:
        yield machine
    finally:
        machine.close()
        machine.onionward("down", "--force")
        machine.path(CONFIG).unlink()
        assert "onionward" not in (tables := machine.tables()), tables
