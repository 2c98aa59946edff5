"""Programs that open sockets as another account, though a routed account starts them.

A program with the set-user-ID bit runs as its owner (execve(2)), mostly root, and the sockets it
makes are its owner's. File capabilities do not do this: a program with CAP_NET_RAW has the
sockets of whoever started it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onionward import acl
from onionward.accounts import User, WayAround

DIRECTORIES = tuple(
    Path(name)
    for name in (
        *("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/games"),
        *("/usr/local/bin", "/usr/local/sbin", "/usr/local/games"),
        *("/lib", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec"),
        *("/usr/local/lib", "/usr/local/libexec", "/opt", "/snap"),
    )
)
_SUDOERS = Path("/etc/sudoers")

# Programs that run as root for anybody and open no connection of their own, by their name,
# with the reason. Those that start other programs as root do so for whoever has proved to be
# an administrator, who may remove the rules as well.
HARMLESS = {
    "su": "starts a program as an account whose password was given",
    # but see `looks_up_names`
    "sudo": "starts a program for whoever sudoers(5) allows",
    "doas": "starts a program for whoever doas.conf(5) allows",
    "pkexec": "starts a program for whoever polkit allows",
    "polkit-agent-helper-1": "asks PAM for a password",
    "unix_chkpwd": "compares a password with /etc/shadow",
    "passwd": "writes /etc/shadow",
    "chage": "reads /etc/shadow",
    "expiry": "reads /etc/shadow",
    "chfn": "writes /etc/passwd",
    "chsh": "writes /etc/passwd",
    "gpasswd": "writes /etc/group",
    "newgrp": "changes the group of the caller",
    "sg": "changes the group of the caller",
    "newuidmap": "maps subordinate ids, whose packets are routed too",
    "newgidmap": "maps subordinate groups",
    # mount.nfs and its kind are programs of their own; without fstab(5) saying so it runs none
    "mount": "mounts what fstab(5) lets accounts mount",
    "umount": "unmounts what fstab(5) lets accounts mount",
    "fusermount": "mounts a file system of the account's own program",
    "fusermount3": "mounts a file system of the account's own program",
    "ntfs-3g": "mounts a disk",
    "ssh-keysign": "signs with the key of this machine",
    "dbus-daemon-launch-helper": "starts services that the system bus knows",
    "chrome-sandbox": "makes namespaces without a network",
    "dmcrypt-get-device": "reads device numbers",
    "at": "writes jobs that run as the account",
    "crontab": "writes jobs that run as the account",
    "bwrap": "makes namespaces, in which it has the account's id",
    "snap-confine": "makes namespaces, in which programs have the account's id",
}

# Most of what lies below these directories is data that nobody executes. Looking at each file of
# them takes longer than everything else, and the loader of programs does not go by names, so only
# these kinds are passed over.
_NO_PROGRAM = re.compile(
    r"\.(?:so(?:\.[0-9.]+)?|py[cio]?|ko(?:\.[xg]z|\.zst)?|[hcao]|js|mjs|ts|json|map|mo|html?|xml|txt"
    r"|pm|pod|rb|jar|class|xz|zst|gz|png|svg|md|rst|conf|service|yaml|yml|proto|sql|css)$"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program with the set-user-ID bit.

    Attributes:
        path: of the file.
        permissions: whose it is and who may execute it.

    """

    path: Path
    permissions: acl.Permissions


def programs(directories: Iterable[Path] = DIRECTORIES) -> tuple[Program, ...]:
    """Every set-user-ID program below these directories, other than on file systems with nosuid.

    Symbolic links are not followed, except for the directories named (/bin is one today).
    Directories that cannot be read are left out; run it as root.
    """
    tops = {Path(os.path.realpath(top)): None for top in directories}
    # one that lies in another is seen from there
    distinct = [top for top in tops if not any(parent in tops for parent in top.parents)]
    found: dict[tuple[int, int], Program] = {}
    for top in distinct:
        for place in _walk(str(top)):
            path = Path(place)
            status = path.lstat()
            permissions = acl.permissions(path)
            if permissions is not None and not os.statvfs(path).f_flag & os.ST_NOSUID:
                found.setdefault((status.st_dev, status.st_ino), Program(path, permissions))
    return tuple(sorted(found.values(), key=lambda program: program.path))


def _walk(top: str) -> Iterator[str]:
    pending = [top]
    is_data = _NO_PROGRAM.search
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not is_data(entry.name) and _has_bit(entry):
                    yield entry.path


def _has_bit(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISUID and mode & 0o111)


def read_sudoers(main: Path = _SUDOERS) -> str:
    """What sudoers(5) and the files beside it say, in the order in which sudo reads them."""
    directory = main.with_name("sudoers.d")
    # sudo passes over names with a dot, or with ~ at the end
    parts = [f for f in directory.glob("*") if "." not in f.name and not f.name.endswith("~")]
    texts = []
    for file in (main, *sorted(parts)):
        try:
            texts.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def looks_up_names(sudoers: str) -> bool:
    """Whether sudo asks the resolver, as root, for a host that anybody names (`sudo -h NAME -l`).

    It does with the option fqdn, which distributions switch on when they build it.
    """
    answer = True
    for line in sudoers.replace("\\\n", " ").splitlines():
        found = re.fullmatch(r"\s*Defaults\s+(.*)", line.split("#")[0])
        if found is not None:
            for option in re.findall(r"(?<![\w])(!?)\s*fqdn(?![\w])", found[1]):
                answer = not option
    return answer


def ways_around(found: Iterable[Program], user: User, sudoers: str = "") -> tuple[WayAround, ...]:
    """Of these programs those that the account may run and that could use the network.

    Args:
        found: what `programs` has found.
        user: the account.
        sudoers: what `read_sudoers` has read.

    Returns:
        Ways around that are accepted as "setuid", or each for itself as "setuid:PATH".

    """
    return tuple(
        WayAround("setuid", words, program.path)
        for program in found
        if not user.owns(program.permissions.owner)
        and program.permissions.allow(user.account.uid, user.groups, acl.EXECUTE)
        and (words := _reason(program, sudoers))
    )


def _reason(program: Program, sudoers: str) -> str:
    name = program.path.name
    if name == "sudo" and looks_up_names(sudoers):
        return (
            f"{program.path} -h NAME looks up that name as root, for anybody; write a line "
            "`Defaults !fqdn` to /etc/sudoers.d/no-lookups, or accept it"
        )
    if name in HARMLESS:
        return ""
    return (
        f"{program.path} runs as uid {program.permissions.owner} whoever starts it, and so do "
        f"its packets; take the bit away (chmod u-s {program.path}) or accept it"
    )
