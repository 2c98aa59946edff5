"""Runs without root on a machine whose onionward is on: its tor takes them.

A second tor would only reach relays through the first.

    internet ── host0 (witness) ── eth0 host (routed): tor ── alice's runs
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.lab.app_rootless_account import Account
from tests.lab.app_rootless_wire import assert_only_tor, watched

FETCH = ("curl", "-sS", "--fail", "--noproxy", "*", "-m", "30")


@pytest.fixture
def account(lab: Lab) -> Iterator[Account]:
    made = Account(lab)
    made.prepare()
    with contextlib.ExitStack() as stack:
        stack.callback(made.tidy)
        stack.callback(made.as_root, "onionward", "down")
        yield made


def test_the_machines_tor_takes_runs_and_another_one_is_not_started(
    account: Account, lab: Lab, tmp_path: Path
) -> None:
    with watched(lab, tmp_path) as capture:
        plain = account.command(*FETCH, f"http://{lab.web4}/")
        assert json.loads(subprocess.check_output(plain))["client"] == lab.host4
        account.as_root("onionward", "up")
        started = time.time()
        for url in (f"http://{lab.web4}/", f"http://[{lab.web6}]/", "http://www.example.test/"):
            assert account.page(url)["client"] in lab.exits, url
        assert account.page(f"http://{lab.onion}/")["client"] == "127.0.0.1"
        assert account.tor() == []
        # nobody of the machine can do more there than ask for circuits
        found = account.as_root("stat", "-c", "%A %U", "/run/onionward/tor", "/run/onionward/socks")
        assert found.splitlines() == ["drwx------ onionward-tor", "drwxr-xr-x onionward-tor"]
    assert capture.packets(f"dst host {lab.web4}")  # what was sent before
    assert_only_tor(lab, capture, since=started)
    account.as_root("onionward", "down")
    # a run of its own tor again, and nothing is left of the machine's
    assert account.page(f"http://{lab.web4}/")["client"] in lab.exits
    assert len(account.tor()) == 1
    assert not (account.root / "run/onionward").exists()
