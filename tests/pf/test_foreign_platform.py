"""On BSD nothing of Linux is imported, called or read: a new interpreter, told it is one."""

from __future__ import annotations

import subprocess
import sys

import pytest

# what exists on Linux only; reached, it ends the interpreter's command with a traceback
_PRELUDE = """
import os, sys
sys.platform = "{platform}"
forbidden = ("setns", "unshare", "pidfd_open", "setxattr", "removexattr", "memfd_create")
def refuse(name):
    def call(*_, **__):
        raise AssertionError(f"os.{{name}} is Linux's")
    return call
for name in forbidden:
    setattr(os, name, refuse(name))
class NoLinux:
    def find_spec(self, name, path=None, target=None):
        linux = ("onionward.lab", "onionward.leaks", "onionward.exposure", "onionward.masks",
                 "onionward.held_sockets", "onionward.routes", "onionward.lan", "onionward.guard",
                 "onionward.backend.nftables", "onionward.flows", "spwd")
        if name in linux or name.startswith(tuple(f"{{n}}." for n in linux)):
            raise AssertionError(f"{{name}} is Linux's")
sys.meta_path.insert(0, NoLinux())
def audit(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
        raise AssertionError(f"{{arguments[0]}} is Linux's")
    if event == "fcntl.ioctl":
        raise AssertionError("an ioctl has another number here")
sys.addaudithook(audit)
from pathlib import Path
import onionward.bsd.kind as kind_module
from tests.pf.bsd import Bsd
from onionward.bsd import facts, validation
from onionward.facts import Account
import onionward.facts, pwd
etc = Path("{folder}")
kind = kind_module.this_kind()._replace(etc=etc)
kind_module.KINDS = {{kind.dialect: kind}}
kind_module.PATHS = kind_module.PATHS._replace(
    state=etc / "db", runtime=etc / "run", resolv_conf=etc / "resolv.conf")
from onionward.bsd import commands
commands.PATHS = kind_module.PATHS
onionward.facts.find_account = lambda name: Account(name, 56, 56, Path("/"))
facts.find_tool = lambda name: "/sbin/" + name
os.geteuid = lambda: 0
machine = Bsd(kind, kind_module.PATHS)
if machine.enabled:
    machine.main = (etc / "pf.conf").read_text()
from onionward import cli
cli.cli(args={arguments!r}, obj={{"system": machine}}, standalone_mode=False)
"""

EXPECTED = {
    ("openbsd7", "show pf"): "divert-to 127.0.0.1 port 940",
    ("openbsd7", "show torrc"): "TransProxyType pf-divert",
    ("openbsd7", "show system"): "/hostname.lo1 gets these lines",
    ("openbsd7", "show policy"): "host: everything this machine sends goes through Tor",
    ("openbsd7", "show resolver"): "lookup file bind",
    ("openbsd7", "check"): "good; pfctl and tor accept it (interfaces: em0, em1)",
    ("openbsd7", "explain --user 1001 tcp 1.1.1.1 443"): "through Tor: TCP goes through Tor",
    ("openbsd7", "status"): "off: traffic leaves in clear",
    ("openbsd7", "disable"): "disabled already: nothing to remove",
    ("freebsd14", "show pf"): "rdr pass on lo1 inet proto tcp from any to any -> 127.0.0.1 port",
    ("freebsd14", "show pf --state blocked"): "# onionward: blocked",
    ("freebsd14", "show system"): 'cloned_interfaces="${cloned_interfaces} lo1"',
    ("freebsd14", "disable"): "disabled already: nothing to remove",
    ("freebsd14", "check"): "good; pfctl and tor accept it",
    ("freebsd14", "explain --tor tcp 1.1.1.1 443"): "leaves directly",
}


@pytest.mark.parametrize(("platform", "command"), EXPECTED)
def test_nothing_of_linux_is_needed(
    platform: str, command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("etc")
    (folder / "pf.conf").write_text("set skip on lo\nblock return\npass\n")
    (folder / "resolv.conf").write_text("nameserver 198.18.0.1\n")
    code = _PRELUDE.format(platform=platform, folder=folder, arguments=command.split())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert EXPECTED[platform, command] in done.stdout, done.stderr
    # standalone_mode=False hands the status of `status` through: off
    assert done.returncode == (3 if command == "status" else 0), done.stderr


def test_the_guard_of_this_test_sees() -> None:
    code = _PRELUDE.format(platform="openbsd7", folder="/nonexistent", arguments=["x"])
    for bad in ("import onionward.masks", "open('/proc/self/status')", "os.setns(0, 0)"):
        early = code.partition("from pathlib")[0]
        done = subprocess.run(
            [sys.executable, "-c", f"{early}\n{bad}"], capture_output=True, text=True, check=False
        )
        assert "is Linux's" in done.stderr
