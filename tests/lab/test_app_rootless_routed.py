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


def test_a_run_goes_on_through_down_and_up_and_says_so(
    account: Account, lab: Lab, tmp_path: Path
) -> None:
    # it asks whenever it is told to, and holds a connection
    script = (
        f"exec 3<>/dev/tcp/{lab.web4}/80; echo begun; "
        f"while read x; do curl -sS --noproxy '*' -m 30 http://{lab.web4}/ || echo; done"
    )
    account.as_root("onionward", "up")
    started = time.time()
    with (
        watched(lab, tmp_path) as capture,
        subprocess.Popen(
            account.run_command("bash", "-c", script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"

        def reaches() -> bool:
            assert process.stdin is not None
            assert process.stdout is not None
            print("go", file=process.stdin, flush=True)
            line = process.stdout.readline()
            return line.startswith("{") and json.loads(line)["client"] in lab.exits

        account.poll(reaches)
        assert account.tor() == []
        account.as_root("onionward", "down")
        account.poll(reaches)
        assert len(account.tor()) == 1
        account.as_root("onionward", "up")
        account.poll(reaches)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    told = [line.removeprefix("onionward: ") for line in said.splitlines() if "onionward:" in line]
    assert told == [
        "there is no tor any more, so connections have ended; starting our own",
        "new connections go through this account's own tor; those of before have ended",
        "new connections go through the machine's tor; those of before have ended",
    ]
    assert_only_tor(lab, capture, since=started)
