"""Prints as JSON all of a host that `down` must leave as `up` found it. Runs inside the host.

Of /etc and /var, which are overlays here, the files are looked at that differ from the machine's.
Left out: what changes by itself (counts of tracked connections), the databases of accounts and
their backups (tor's account stays), tor's own data and the leases of DHCP clients, times of access,
and times of directories.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

_ACCOUNTS = {
    f"/etc/{name}{backup}"
    for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
    for backup in ("", "-")
} | {"/etc/.pwd.lock"}
_VOLATILE = {
    "/proc/sys/net/netfilter/nf_conntrack_count",
    # made at random for the first program that wants one
    "/proc/sys/net/ipv4/tcp_fastopen_key",
}
_UPPER = "/run/onionward-lab/overlay{}/upper"  # what a host has changed, see onionward.lab.host
_TREES = (("/run", "/run"), ("/etc", _UPPER.format("/etc")), ("/var", _UPPER.format("/var")))
_TREES_OF_OTHERS = " /var/cache/onionward-trees/"
_GUARD = b"onionward.guard.loop"
_COPIED = "trusted.overlay.origin"
_OWN_STATE = "/var/lib/onionward"  # the directory stays, with what is named here; nothing else does
_STAYS = {f"{_OWN_STATE}/dhcp.leases"}


def _command(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return "no such program"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if argv[0].endswith("tables-save"):
        # when it was printed, and how often a policy has applied
        return re.sub(r"(?m)^#.*\n| \[\d+:\d+\]$", "", done.stdout)
    # a bridge shows how long it is until its next round of tidying
    return re.sub(r"_timer +[0-9.]+", "_timer", done.stdout + done.stderr)


def _file(path: Path) -> list[Any]:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    known: list[Any] = [oct(status.st_mode), status.st_uid, status.st_gid]
    if kind != stat.S_IFLNK:
        known.append(_attributes(path))
    if kind == stat.S_IFDIR:
        return known
    known += [status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns]
    if kind == stat.S_IFLNK:
        known.append(str(path.readlink()))
    elif kind == stat.S_IFREG:
        known.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return known


def _attributes(path: Path) -> dict[str, str]:
    """Extended attributes, access control lists among them (xattr(7), acl(5))."""
    names = sorted(name for name in os.listxattr(path) if not name.startswith("trusted.overlay."))
    return {name: os.getxattr(path, name).hex() for name in names}


def _files() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tree, walked in _TREES:
        for directory, names, files in os.walk(walked):
            place = tree + directory.removeprefix(walked)
            if place == "/run/onionward-lab":
                names.clear()  # the lab's own
                continue
            if place == _OWN_STATE and "tor" in names:
                names.remove("tor")
            # a directory of the machine is copied when something in it changes
            new = [n for n in names if _COPIED not in os.listxattr(f"{directory}/{n}")]
            for name in [*new, *files]:
                path = f"{place}/{name}"
                if path not in _ACCOUNTS | _STAYS | {_OWN_STATE}:
                    try:
                        found[path] = _file(Path(path))
                    except FileNotFoundError:
                        found[path] = "absent"
    return found


def _sysctls() -> dict[str, str]:
    found = {}
    for directory, _, files in os.walk("/proc/sys/net"):
        for name in files:
            path = f"{directory}/{name}"
            if path not in _VOLATILE:
                try:
                    found[path] = Path(path).read_text(errors="replace")
                except OSError as error:
                    found[path] = str(error.errno)
    return found


def _is_of_guard(process: Path) -> bool:
    """What a guard starts to look at rules comes and goes; without a guard there is none."""
    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    return parent != "0" and _GUARD in (process.parent / parent / "cmdline").read_bytes()


def _processes() -> dict[str, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                group = (entry / "cgroup").read_text()
                if _is_of_guard(entry):
                    continue
            except OSError:
                continue
            if line:  # the others have ended and wait to be noticed
                found[entry.name] = f"{line} in {group}"
    return found


def _mounts() -> str:
    """Without those of root trees that other tests of this machine build meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return "\n".join(line for line in lines if _TREES_OF_OTHERS not in line)


def main() -> None:
    """Print it."""
    routes = [
        [family, "-d", *words]
        for family in ("-4", "-6")
        for words in (["route", "show", "table", "all"], ["rule"], ["address"], ["maddress"])
    ]
    snapshot = {
        "command": {
            " ".join(argv): _command(*argv)
            for argv in (
                ["nft", "--stateless", "list", "ruleset"],
                ["iptables-save"],
                ["ip6tables-save"],
                *(["ip", *words] for words in routes),
            )
        },
        "file": _files(),
        "sysctl": _sysctls(),
        "process": _processes(),
        "environment": {"mounts": _mounts()},
    }
    json.dump(snapshot, sys.stdout)


if __name__ == "__main__":
    main()
