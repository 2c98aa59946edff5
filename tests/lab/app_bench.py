"""Vectors tried from inside a run: as its account, and as root of its network namespace.

internet ── host0 (witness) ── eth0 host owr… ── tor0 run (vectors)
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from onionward.app.root.places import DEVICE, INTERFACE, RUNS4, RUNS6
from onionward.leaks.model import Account, Place, Targets
from onionward.leaks.vectors import CATALOGUE
from tests.lab.leak_bench import Bench
from tests.lab.leak_processes import Running
from tests.lab.lifecycle_machine import until

KEEPER = b"onionward.app.root.keeper"
_HERE = Path(__file__).parent


def processes(root: Path, word: bytes) -> list[int]:
    """Processes of a host that have a word among their arguments, by the host's own numbers."""
    found = []
    for entry in (root / "proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue
            if word in arguments:
                found.append(int(entry.name))
    return sorted(found)


class RunBench(Bench):
    """A bench whose sender is a run that does nothing else.

    Args:
        as for a bench.

    """

    run_pid = 0
    as_root = True
    _process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Start the run that vectors are tried from."""
        argv = ["onionward", "run", "--as", "nobody", "--", "sleep", "7654321"]
        self._process = subprocess.Popen(
            self.host.command(argv), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

        def is_there() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._process.communicate()[1]
            return len(self._sleepers()) == 1

        until("the run is there", is_there, patience=120)
        (self.run_pid,) = self._sleepers()
        self.aims = self._aims()

    def _sleepers(self) -> list[int]:
        # its launcher has the word among its arguments, too
        own = processes(self.host.root, b"7654321")
        return [pid for pid in own if self._arguments(pid) == b"sleep\x007654321\0"]

    def _arguments(self, pid: int) -> bytes:
        try:
            return (self.host.root / f"proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            return b""  # it has ended meanwhile

    def launcher(self) -> int:
        """The process of onionward that waits for the run."""
        found = processes(self.host.root, b"7654321")
        # the first process of the run's namespace is a copy of it, and its child
        return min(pid for pid in found if b"onionward" in self._arguments(pid))

    def finish(self) -> None:
        """End the run, and what was kept for others."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        until("the run has ended", lambda: not self._sleepers())
        self.onionward("down")

    def inside(self, *argv: str) -> list[str]:
        """What runs a command as root in the run's network."""
        return self.host.command(["nsenter", f"--net=/proc/{self.run_pid}/ns/net", "--", *argv])

    def become_open(self) -> None:
        """Show what would leave without rules: none are left, and the machine forwards."""
        # it would have another keeper at once
        self.run("kill", f"-{signal.SIGSTOP}", str(self.launcher()))
        for pid in processes(self.host.root, KEEPER):
            self.run("kill", "-KILL", str(pid))
        until("the keeper is gone", lambda: not processes(self.host.root, KEEPER))
        self.run("nft", "flush", "ruleset")
        self._forward("1")
        # what nothing but these stop in the run is to be sent, as root there could have it
        for family in ("-4", "-6"):
            self.run_inside("ip", family, "rule", "delete", "pref", "12")
            self.run_inside("ip", family, "route", "flush", "type", "prohibit")

    def become_closed(self) -> None:
        """Have a keeper and rules again; the machine forwards as before, which must not matter."""
        self.run("kill", f"-{signal.SIGCONT}", str(self.launcher()))
        until("there are rules", lambda: "onionward_run_lock" in self.run("nft", "list", "tables"))
        # whom the machine has asked the link for while it forwarded
        asked = "INCOMPLETE"
        until("nobody is asked for", lambda: asked not in self.run("ip", "neighbour", "show"))
        until("there is tor", lambda: bool(self.tor_pids()), patience=60)

    def _forward(self, value: str) -> None:
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.run("sysctl", "-qw", f"net/{name}={value}")
        for device in ("all", *devices_of_runs(self)):
            self.run("sysctl", "-qw", f"net/ipv4/conf/{device}/accept_source_route={value}")
        change = "replace" if value == "1" else "delete"
        for network, host in ((RUNS4, self.lab.host4), (RUNS6, self.lab.host6)):
            # so that answers come back to who asks
            self.run("ip", "route", change, network, "via", host, host=self.internet)

    def end(self) -> None:
        self.finish()
        self._forward("0")
        super().end()

    def _free_ports(self) -> None:
        super()._free_ports()
        self.run_inside("ss", "-K", "-Htn", "state", "connected")

    def run_inside(self, *argv: str) -> str:
        """Run a command as root in the run's network."""
        done = subprocess.run(
            self.inside(*argv), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def _aim(self, name: str) -> Targets:
        found = super()._aim(name)
        if not self.run_pid:
            return found
        shown = json.loads(self.run_inside("ip", "-j", "address", "show", "dev", DEVICE))[0]
        own = {a["family"]: a["local"] for a in shown["addr_info"]}
        return dataclasses.replace(
            found,
            device=DEVICE,
            device_mac=shown["address"],
            # both ends have the same
            far_mac=shown["address"],
            host4=own["inet"],
            host6=own["inet6"],
        )

    def _start(self, names: Sequence[str], *, serve: bool = False) -> Running:
        vector = CATALOGUE[names[0]]
        if vector.place is Place.WIRE or serve:
            return super()._start(names, serve=serve)
        targets = dataclasses.replace(self.targets, tor_account=self.targets.user_account)
        probe = ["python", "-m", "onionward.leaks.probe"]
        words = [targets.to_json(), *names]
        if self.as_root:
            return Running(self.inside(*probe, *words))
        # the interpreter may be nobody else's, so it is loaded before rights are given up
        assert vector.account is Account.USER
        into = ["nsenter", "--target", str(self.run_pid), "--net", "--mount", "--pid", "--"]
        return Running(self.host.command([*into, *probe, *words]))


def devices_of_runs(bench: Bench) -> list[str]:
    """Devices of runs that this machine has."""
    shown = json.loads(bench.run("ip", "-j", "link", "show"))
    return [link["ifname"] for link in shown if link["ifname"].startswith(INTERFACE)]
