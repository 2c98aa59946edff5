"""The Debian package: built, and installed in a booted machine that has only what it depends on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from onionward.lab import Lab
from tests.machines.machine import PROJECT, Done, Machine, boot

# what is written whenever packages come and go, and what a running system writes
_CHANGING = (
    "/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?",
    "/etc/(ld.so.cache|machine-id|\\.pwd\\.lock)",
    "/var/(lib/dpkg|lib/systemd|log|cache/ldconfig|cache/man|tmp)(/.*)?",
    "/root(/.*)?",
)
_LISTING = (
    "find / -xdev -regextype posix-extended "
    r"\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path {project} "
    r"-o -regex '{changing}' \) -prune -o "
    r"\( -type d -printf '%p %y %m %u %g\n' -o -printf '%p %y %m %u %g %l %s\n' \) | sort; "
    "find /etc -regextype posix-extended -type f ! -regex '{changing}' "
    "-exec sha256sum {{}} + | sort"
)


def build(place: Path) -> Path:
    """The package of the repository as it is now; lintian has nothing against it."""
    done = subprocess.run(
        [PROJECT / "tools/build-deb", place],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = place.glob("onionward_*_all.deb")
    return package


def build_in_machine(lab: Lab, release: str, place: Path) -> Path:
    """The same, built on a machine with another release of Debian."""
    script = (PROJECT / "tools/install-dependencies").read_text()
    needed = re.search(r'^building="([^"]*)"', script, re.MULTILINE)
    assert needed is not None
    packages = ("systemd-sysv", "dbus", "procps", "iproute2", "nftables", *needed[1].split())
    with boot(lab.hosts["host"], packages, release=release) as machine:
        machine.output(str(PROJECT / "tools/build-deb"), "/opt/built", timeout=300)
        (made,) = machine.path("/opt/built").glob("onionward_*_all.deb")
        return Path(shutil.copy(made, place))


def newer(package: Path, place: Path) -> Path:
    """The same package as a later version of it, which says so."""
    tree, made = place / "newer", place / "onionward_newer_all.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control, module = tree / "DEBIAN/control", "usr/lib/python3/dist-packages/onionward/__init__.py"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+newer", control.read_text()))
    (tree / module).write_text((tree / module).read_text().replace('0"', '0+newer"'))
    sums = tree / "DEBIAN/md5sums"
    sums.write_text("".join(x for x in sums.open() if module not in x))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made],
        check=True,
        capture_output=True,
    )
    return made


def depends(package: Path) -> tuple[str, ...]:
    """Names of what it depends on, the first of alternatives."""
    field = subprocess.run(
        ["dpkg-deb", "--field", package, "Depends"], check=True, capture_output=True, text=True
    ).stdout
    names = (re.split(r"[ (|:]", word.strip())[0] for word in field.split(","))
    return tuple(sorted({"systemd-sysv" if name == "systemd" else name for name in names}))


class Installed:
    """A machine on which the package is put and used, without any help of the repository."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, *argv: str, timeout: float = 120) -> Done:
        variables = {"PYTHONPATH": "", "DEBIAN_FRONTEND": "noninteractive"}
        return self.machine.run(*argv, env=variables, timeout=timeout)

    def output(self, *argv: str, timeout: float = 120) -> str:
        done = self.run(*argv, timeout=timeout)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, package: Path) -> str:
        """Install or upgrade."""
        inside = f"/run/{package.name}"
        self.machine.path(inside).write_bytes(package.read_bytes())
        return self.output("dpkg", "--install", inside)

    def status(self) -> dict[str, object]:
        # its exit status tells the state, whatever it is
        found: dict[str, object] = json.loads(self.run("onionward", "status", "--json").stdout)
        return found

    def refused(self) -> int:
        """Packets that the rules in force have refused."""
        stopped: Any = self.status()["counters"]
        return int(stopped.get("refused", 0))

    def until_routed(self) -> None:
        deadline = time.monotonic() + 90
        while self.status()["state"] != "routed":
            assert time.monotonic() < deadline, self.machine.console + self.output(
                "journalctl", "--no-pager", "-n", "60"
            )
            time.sleep(0.3)

    def guard(self) -> str:
        """Process id of the guard."""
        shown = ("--property=MainPID", "--value")
        return self.output("systemctl", "show", *shown, "onionward-guard.service").strip()

    def files(self) -> list[str]:
        """All that stays on the machine, and what configuration files say."""
        listing = _LISTING.format(project=PROJECT, changing="|".join(_CHANGING))
        return self.output("sh", "-c", listing).splitlines()

    def services(self) -> list[str]:
        """What is started at boot and what runs."""
        enabled = self.output("systemctl", "list-unit-files", "--no-legend", "--no-pager")
        active = self.output(
            "systemctl", "list-units", "--type=service", "--no-legend", "--plain", "--no-pager"
        )
        running = (line.split()[0] for line in active.splitlines() if " running " in line)
        return [*sorted(map(str.strip, enabled.splitlines())), *sorted(running)]

    def accounts(self) -> set[str]:
        return set(self.machine.path("/etc/passwd").read_text().splitlines())
