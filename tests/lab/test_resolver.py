"""resolv.conf in every shape that machines have: replaced by `up`, and back exactly with `down`.

/etc is a plain file system here instead of the lab's overlay, whose files have no steady devices.
Compared of each file: kind, target, content, mode, owner, times, inode, links, attributes, flags.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import (
    RESOLV_CONF,
    WAITING,
    Machine,
    difference,
    open_machine,
)

NAMESERVER = "nameserver 198.18.53.1\n"
SEARCH = "# \\xe4 comment\nsearch example.test\n" + NAMESERVER
LONG = "# a comment that makes the file longer than ours\n" * 20 + NAMESERVER
PLAIN_ETC = """
set -e
mkdir /run/onionward-lab/etc
mount -t tmpfs -o mode=755 test /run/onionward-lab/etc
cp -a /etc/. /run/onionward-lab/etc
mount --bind /run/onionward-lab/etc /etc
"""
OVERLAY_AGAIN = """
umount -R /etc
umount /run/onionward-lab/etc
rmdir /run/onionward-lab/etc
"""

SHAPES = {
    "plain file": f"printf '{SEARCH}' > /etc/resolv.conf",
    "long file": f"printf '{LONG}' > /etc/resolv.conf",
    "old file with two names, mode 0600, of another owner": (
        f"printf '{NAMESERVER}' > /etc/resolv.conf; ln /etc/resolv.conf /etc/resolv.twin\n"
        "chown daemon:mail /etc/resolv.conf; chmod 0600 /etc/resolv.conf\n"
        "touch -d 2001-02-03 /etc/resolv.conf"
    ),
    "absent": "true",
    "relative link": (
        f"mkdir /run/stub; printf '{NAMESERVER}' > /run/stub/resolv.conf\n"
        "ln -s ../run/stub/resolv.conf /etc/resolv.conf"
    ),
    "dangling link of another owner": (
        "ln -s /run/nowhere/resolv.conf /etc/resolv.conf; chown -h daemon /etc/resolv.conf"
    ),
    "immutable": f"printf '{NAMESERVER}' > /etc/resolv.conf; chattr +i /etc/resolv.conf",
    "mounted from another file system": (
        f"mkdir /run/stub; printf '{SEARCH}' > /run/stub/resolv.conf\n"
        ": > /etc/resolv.conf; mount --bind /run/stub/resolv.conf /etc/resolv.conf"
    ),
    "mounted from the same file system": (
        f"printf '{LONG}' > /etc/resolv.mounted\n"
        ": > /etc/resolv.conf; mount --bind /etc/resolv.mounted /etc/resolv.conf"
    ),
}


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        opened.output("sh", "-c", PLAIN_ETC)
        opened.output("rm", "/etc/resolv.conf")
        try:
            yield opened
            opened.onionward("down", "--force")
        finally:
            opened.run("chattr", "-i", "/etc/resolv.conf")
            opened.output("rm", "-rf", "/run/stub")
            opened.output("sh", "-c", OVERLAY_AGAIN)


def look(path: Path) -> list[object]:
    """All of one name that must be the same again."""
    if not os.path.lexists(path):
        return ["absent"]
    status = path.lstat()
    found: list[object] = [oct(status.st_mode), status.st_uid, status.st_gid]
    found += [status.st_ino, status.st_dev, status.st_nlink, status.st_size, status.st_mtime_ns]
    if path.is_symlink():
        return [*found, str(path.readlink())]
    return [*found, sorted(path.iterdir()) if path.is_dir() else path.read_bytes()]


def listing(machine: Machine) -> dict[str, list[object]]:
    """The names of /etc that have to do with resolving, and those that they lead to."""
    names = [path for path in machine.path("/etc").iterdir() if "resolv" in path.name]
    found = {path.name: look(path) for path in names}
    found["target"] = look(machine.path("/run/stub/resolv.conf"))
    flags = machine.run("lsattr", "/etc/resolv.conf").stdout.split()
    found["flags"] = [*flags[:1]]
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_it_comes_back_exactly(machine: Machine, shape: str) -> None:
    machine.output("sh", "-c", SHAPES[shape])
    files, everything = listing(machine), machine.snapshot()
    machine.up()
    assert listing(machine) != files
    ours = machine.output("cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.1" in ours
    assert "example.test" not in ours
    report = machine.status()
    assert (report["state"], report["resolver"], report["problems"]) == ("routed", "tor", [])
    assert machine.lab.web4 in machine.output("getent", "ahosts", "v4.example.test")
    assert listing(machine)["target"] == files["target"] or "mounted" in shape
    machine.down()
    assert listing(machine) == files
    assert difference(everything, machine.snapshot()) == ""


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        ("plain file", "echo nameserver 192.0.2.1 > /etc/new; mv /etc/new /etc/resolv.conf"),
        ("relative link", "echo nameserver 192.0.2.1 > /etc/resolv.conf"),
        ("plain file", "ln -sf /run/elsewhere /etc/resolv.conf"),
        ("mounted from another file system", "echo nameserver 192.0.2.1 > /etc/resolv.conf"),
    ],
)
def test_what_somebody_else_wrote_is_left_alone(machine: Machine, shape: str, change: str) -> None:
    machine.output("sh", "-c", SHAPES[shape])
    machine.up()
    # it would take theirs for the new original, and put ours back
    machine.end_guard()
    machine.output("sh", "-c", change)
    theirs = listing(machine)["resolv.conf"]
    report = machine.status()
    assert (report["state"], report["resolver"]) == ("routed", "changed")
    assert any("resolv.conf was changed" in problem for problem in report["problems"])
    done = machine.down()
    assert "changed by somebody else" in done.stdout + done.stderr
    assert listing(machine)["resolv.conf"] == theirs
    assert not os.path.lexists(machine.path(WAITING))


def test_second_up_does_not_forget_the_original(machine: Machine) -> None:
    machine.output("sh", "-c", SHAPES["relative link"])
    files = listing(machine)
    machine.up()
    machine.up()
    machine.down()
    assert listing(machine) == files


def test_file_that_somebody_else_made_is_left_alone(machine: Machine) -> None:
    machine.up()
    machine.output("sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf")
    machine.down()
    assert machine.output("cat", "/etc/resolv.conf") == "nameserver 192.0.2.1\n"


def test_second_up_takes_what_somebody_else_wrote_for_the_original(machine: Machine) -> None:
    machine.output("sh", "-c", SHAPES["plain file"])
    machine.up()
    machine.output("sh", "-c", "echo nameserver 192.0.2.1 > /etc/new; mv /etc/new /etc/resolv.conf")
    theirs = listing(machine)["resolv.conf"]
    machine.up()
    assert machine.status()["resolver"] == "tor"
    machine.down()
    assert listing(machine)["resolv.conf"] == theirs


@pytest.mark.parametrize("covering", ["echo nameserver 192.0.2.1", "cat /etc/resolv.conf"])
def test_what_is_mounted_over_ours_costs_nobody_the_original(
    machine: Machine, covering: str
) -> None:
    """Nobody is told of a mount; `down` would rename the original to where it cannot go."""
    machine.output("sh", "-c", SHAPES["plain file"])
    files = listing(machine)
    machine.up()
    machine.output("sh", "-c", f"{covering} > /run/over; mount --bind /run/over /etc/resolv.conf")
    theirs = machine.output("cat", "/run/over")
    for _ in range(2):
        (problem,) = machine.status()["problems"]
        assert "something has been mounted over /etc/resolv.conf" in problem
        machine.up()
    assert "umount /etc/resolv.conf" in machine.onionward("doctor").stdout
    done = machine.onionward("down")
    assert (done.returncode, "umount /etc/resolv.conf" in done.stderr) == (1, True), done.stderr
    assert machine.output("cat", "/etc/resolv.conf") == theirs
    machine.output("umount", "/etc/resolv.conf")
    machine.output("rm", "/run/over")
    machine.down()
    assert listing(machine) == files


def test_lost_original_is_said(machine: Machine) -> None:
    machine.output("sh", "-c", SHAPES["plain file"])
    machine.up()
    machine.output("rm", str(WAITING))
    done = machine.down()
    assert "still points to Tor" in done.stdout + done.stderr
    assert machine.path(RESOLV_CONF).read_text().startswith("# Written by onionward")
