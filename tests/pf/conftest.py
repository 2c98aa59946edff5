"""A BSD machine that exists in the tests only."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from onionward.bsd import facts as bsd_facts
from onionward.bsd import validation
from onionward.bsd.kind import KINDS
from onionward.config import parse
from onionward.facts import Account
from onionward.paths import Paths
from tests.pf.bsd import Bsd

ACCOUNTS = {"_tor": 56, "root": 0, "_dhcp": 77, "alice": 1001}
PF_CONF = {
    "openbsd": """\
#	$OpenBSD: pf.conf,v 1.55 2017/12/03 20:40:04 sthen Exp $

set skip on lo

block return	# block stateless traffic
pass		# establish keep-state

# By default, do not permit remote connections to X11
block return in on ! lo0 proto tcp to port 6000:6010
""",
    "freebsd": """\
ext_if = "em0"
set skip on lo0
scrub in all
nat on $ext_if inet from em1:network to any -> ($ext_if)
block in all
pass out all
""",
}
Make = Callable[..., Bsd]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a machine: `make("openbsd", "[[lan]]…")`, with a policy to judge packets by."""
    from onionward.tor import control

    def account(name: str) -> Account | None:
        uid = ACCOUNTS.get(name)
        return None if uid is None else Account(name, uid, uid, Path("/nonexistent"))

    def user(name: str) -> object:
        if name not in ACCOUNTS:
            raise KeyError(name)
        return pwd.struct_passwd((name, "*", ACCOUNTS[name], ACCOUNTS[name], "", "/", "/bin/sh"))

    monkeypatch.setattr("onionward.facts.find_account", account)
    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(bsd_facts, "find_tool", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # durable against a loss of power is not what is tried here, hundreds of times
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(control, "wait_for_circuits", lambda *_: None)

    def made(name: str, text: str = "", pf_conf: str | None = "default") -> Bsd:
        etc = tmp_path / "etc"
        etc.mkdir(exist_ok=True)
        kind = KINDS[name]._replace(etc=etc)
        paths = Paths(tmp_path / "db", tmp_path / "run", etc / "resolv.conf")
        (etc / "resolv.conf").write_text("nameserver 198.18.0.1\n")
        (etc / "rc.conf").write_text('hostname="gate"\nsshd_enable="YES"')
        if pf_conf is not None:
            (etc / "pf.conf").write_text(PF_CONF[name] if pf_conf == "default" else pf_conf)
        machine = Bsd(kind, paths)
        if machine.enabled and pf_conf is not None:
            machine.main = (etc / "pf.conf").read_text()
        machine.policy = validation.plan(machine, parse(text, "t.toml"), kind, paths).policy
        return machine

    return made
