"""Where user namespaces are forbidden to accounts, `onionward run` says which setting does it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.app_rootless_account import PYTHON, TESTS, Account


@pytest.fixture(scope="module")
def account(lab: Lab) -> Iterator[Account]:
    made = Account(lab)
    made.prepare()
    yield made
    made.tidy()


def forbidden(account: Account, how: str) -> subprocess.CompletedProcess[str]:
    words = [f"{name}={value}" for name, value in account.variables.items()]
    forbid = (PYTHON, "-I", f"{TESTS}/app_rootless_forbidder.py", how, str(account.uid))
    run = (PYTHON, "-m", "onionward", "run", "--", "true")
    argv = account.host.command(["env", "--unset=XDG_STATE_HOME", *words, *forbid, *run])
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("how", "words", "hint"),
    [
        ("user.max_user_namespaces", "user.max_user_namespaces = 0", "sysctl -w user.max_user"),
        ("user.max_net_namespaces", "user.max_net_namespaces = 0", "sysctl -w user.max_net"),
        ("filter", "a filter of system calls", "sudo onionward run"),
    ],
)
def test_the_error_names_the_setting(account: Account, how: str, words: str, hint: str) -> None:
    for tor_is_up in (False, True):
        if tor_is_up:
            assert account.run("true").returncode == 0
        done = forbidden(account, how)
        assert done.returncode == 125, done.stderr
        assert words in done.stderr
        assert hint in done.stderr
        assert "nothing was started or changed" in done.stderr
        assert done.stdout == ""
        if not tor_is_up:
            assert account.processes() == {}
            assert list((account.root / "srv/runtime").iterdir()) == []
    account.end_all()
    account.as_root("sh", "-c", "rm -rf /srv/runtime/* /srv/home/.local")
