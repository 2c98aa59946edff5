"""An ordinary account of the lab's host that has runs of its own.

    internet ── host0 (witness) ── eth0 host: alice ── onionward run ── her tor
                                                            └ namespace: the command

Source and libraries are shown to her in /srv, because a clone in root's home is hidden from her; so
are a home and a runtime directory.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onionward.lab import Host, Lab, topology
from onionward.tor.process import user_of

SOURCE = Path(__file__).resolve().parents[2] / "src"
HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
HOME, RUNTIME, TESTS = "/srv/home", "/srv/runtime", "/srv/tests"
PATIENCE = 60.0
CLIENT = (PYTHON, "-I", f"{TESTS}/lifecycle_client.py")


class Account:
    """Whose runs they are.

    Args:
        lab: a built lab.
        name: of the account.

    """

    def __init__(self, lab: Lab, name: str = "alice") -> None:
        self.lab = lab
        self.name = name
        self.host: Host = lab.hosts["host"]
        self.uid = next(a.uid for a in topology.ACCOUNTS if a.name == name)
        self.variables = {
            "HOME": HOME,
            "XDG_RUNTIME_DIR": RUNTIME,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": "/srv/src:/srv/site",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def root(self) -> Path:
        """The host's files."""
        return self.host.root

    def prepare(self) -> None:
        """Give her what she needs."""
        script = (
            "mount -t tmpfs -o mode=755 test /srv && cd /srv && mkdir src site tests && "
            'mount --bind "$1" src && mount --bind "$2" site && mount --bind "$3" tests && '
            'install -d -m 700 -o "$4" -g "$4" home runtime'
        )
        places = (str(SOURCE), sysconfig.get_path("purelib"), str(HERE), str(self.uid))
        # paths of this machine, which the host's mounts are made of
        argv = ["nsenter", "--target", str(self.host.pid), "--mount", "--", "sh", "-ec", script]
        subprocess.run([*argv, "sh", *places], check=True)

    def tidy(self) -> None:
        """End her tor, and take back what `prepare` has given."""
        self.end_all()
        self.as_root("sh", "-c", "umount /srv/src /srv/site /srv/tests && umount /srv")

    def end_all(self) -> None:
        """End every process of hers that tests have started, her tor among them."""
        for _ in range(3):
            for pid in self.processes():
                with contextlib.suppress(subprocess.CalledProcessError):
                    self.as_root("kill", "-KILL", str(pid))
        self.poll(lambda: not self.processes())

    def command(self, *argv: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """Arguments that run a command as her."""
        found = {**self.variables, **(variables or {})}
        words = [f"{name}={value}" for name, value in found.items() if value]
        unset = [f"--unset={name}" for name in ("XDG_STATE_HOME", "LC_ALL")]
        unset += [f"--unset={name}" for name, value in found.items() if not value]
        return self.host.command(["env", *unset, *words, *argv], user=self.name)

    def run_command(
        self, *argv: str, options: Sequence[str] = (), variables: Mapping[str, str] | None = None
    ) -> list[str]:
        """Arguments that run a command through Tor, as her."""
        run = (PYTHON, "-m", "onionward", "run", *options, "--")
        return self.command(*run, *argv, variables=variables)

    def run(
        self,
        *argv: str,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command through Tor and wait."""
        return subprocess.run(
            self.run_command(*argv, options=options, variables=variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 4,
            check=False,
        )

    def output(self, *argv: str, options: Sequence[str] = ()) -> str:
        """What a command prints that succeeds."""
        done = self.run(*argv, options=options)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def page(self, url: str, *options: str) -> dict[str, Any]:
        """What the lab's web server tells a run of who asks."""
        argv = ("curl", "-sS", "--fail", "--noproxy", "*", "-m", "25", *options, url)
        done = self.run(*argv)
        for _ in range(3 if ".onion" in url else 0):
            if not done.returncode:
                break
            # a rendezvous that hangs is the network's misfortune; another run has other circuits
            done = self.run(*argv)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def as_root(self, *argv: str) -> str:
        """Run a command as root of the host."""
        return subprocess.run(
            self.host.command(argv), capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout

    def processes(self) -> dict[int, str]:
        """Her processes with their command lines, by the host's numbers."""
        found = {}
        for entry in (self.root / "proc").iterdir():
            with contextlib.suppress(OSError):
                # of a tor that may not be looked into the directory is root's
                if entry.name.isdecimal() and user_of(entry) == self.uid:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if words:  # else it has ended
                        found[int(entry.name)] = words
        return found

    def tor(self) -> list[int]:
        """Her tor's process ids."""
        return [pid for pid, words in self.processes().items() if words.startswith("tor ")]

    @staticmethod
    def poll(wanted: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + patience
        while not wanted():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextlib.contextmanager
def account_of(lab: Lab) -> Iterator[Account]:
    """An account with a tor that is up."""
    account = Account(lab)
    account.prepare()
    try:
        done = account.run("true")
        assert done.returncode == 0, done.stderr
        yield account
    finally:
        account.tidy()
