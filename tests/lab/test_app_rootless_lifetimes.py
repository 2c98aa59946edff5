"""How runs without root end, and how their tor lives: whatever is killed, nothing is left."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.app_rootless_account import PYTHON, RUNTIME, Account

SLEEP = "7654323"
FETCH = ("curl", "-sS", "--fail", "--noproxy", "*", "-m", "30")


@pytest.fixture(scope="module")
def prepared(lab: Lab) -> Iterator[Account]:
    account = Account(lab)
    account.prepare()
    yield account
    account.tidy()


@pytest.fixture
def account(prepared: Account) -> Iterator[Account]:
    assert prepared.processes() == {}
    yield prepared
    prepared.end_all()


def end(account: Account, pid: int, number: int = signal.SIGKILL) -> None:
    account.as_root("kill", f"-{number}", str(pid))


def named(account: Account, words: str) -> list[int]:
    return [pid for pid, found in account.processes().items() if words in found]


def keepers(account: Account) -> list[int]:
    return named(account, "onionward.app.rootless.keeper")


def background(account: Account) -> set[int]:
    """Her tor and its keeper."""
    return {*account.tor(), *keepers(account)}


@contextmanager
def running(
    account: Account, script: str, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A script on its way in a run, after its first line."""
    with subprocess.Popen(
        account.run_command("sh", "-c", f"echo begun; {script}", variables=variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def namespace_of(account: Account, pid: int) -> str:
    return str((account.root / f"proc/{pid}/ns/net").readlink())


def in_namespace(account: Account, namespace: str) -> list[str]:
    """Processes of the host in a network namespace."""
    found = []
    for entry in (account.root / "proc").iterdir():
        try:
            if entry.name.isdecimal() and str((entry / "ns/net").readlink()) == namespace:
                found.append(entry.name)
        except OSError:
            continue
    return found


def sleepers(account: Account) -> list[int]:
    return [pid for pid, words in account.processes().items() if words == f"sleep {SLEEP}"]


def parts(account: Account) -> dict[str, int]:
    """The processes of the one run, once its command sleeps."""
    account.poll(lambda: bool(sleepers(account)))
    (command,) = sleepers(account)
    runs = sorted(named(account, "-m onionward run -- sh -c echo begun;"))
    inside = namespace_of(account, command)
    # the other two are in the run's network, and onionward was there before it forked the first
    launcher, first = [pid for pid in runs if namespace_of(account, pid) == inside]
    (forwarder,) = [pid for pid in runs if pid not in (launcher, first)]
    return {"onionward": launcher, "forwarder": forwarder, "first": first, "command": command}


@pytest.mark.parametrize("victim", ["onionward", "first", "command"])
def test_a_killed_run_leaves_nothing(account: Account, victim: str) -> None:
    with running(account, f"sleep {SLEEP} & wait") as process:
        found = parts(account)
        inside = namespace_of(account, found["command"])
        kept = background(account)
        assert in_namespace(account, inside)
        end(account, found[victim])
        process.wait(timeout=30)
        account.poll(lambda: set(account.processes()) == kept)
        assert in_namespace(account, inside) == []
    # and the next one works
    assert account.run("true").returncode == 0


def test_without_its_forwarder_a_run_has_no_network_and_ends_as_ever(account: Account) -> None:
    fetch = shlex.join((*FETCH, f"http://{account.lab.web4}/"))
    with running(account, f"sleep {SLEEP} & read x; {fetch}; exit 9") as process:
        end(account, parts(account)["forwarder"])
        words, _ = process.communicate("\n", timeout=60)
        assert (process.returncode, words) == (9, "")
        account.poll(lambda: set(account.processes()) == background(account))


def test_what_a_command_leaves_running_ends_with_it(account: Account) -> None:
    done = account.run("sh", "-c", f"setsid sleep {SLEEP} & nohup sleep {SLEEP} >/dev/null & :")
    assert done.returncode == 0
    account.poll(lambda: not sleepers(account))


def test_a_polite_kill_reaches_the_command(account: Account) -> None:
    with running(account, f"trap 'exit 5' TERM; sleep {SLEEP} & wait") as process:
        end(account, parts(account)["onionward"], signal.SIGTERM)
        assert process.wait(timeout=30) == 5


def test_first_runs_at_once_start_one_tor(account: Account) -> None:
    argv = account.run_command("true")
    processes = [subprocess.Popen(argv, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert (len(account.tor()), len(keepers(account))) == (1, 1)


def test_tor_that_dies_is_started_again_while_a_run_lives(account: Account) -> None:
    lab = account.lab
    again = ("--retry", "40", "--retry-all-errors", "--retry-delay", "1")
    fetch = shlex.join((*FETCH, *again, f"http://{lab.web4}/"))
    with running(account, f"read x; {fetch}") as process:
        (old,) = account.tor()
        end(account, old)
        account.poll(lambda: bool(account.tor()) and account.tor() != [old])
        words, _ = process.communicate("\n", timeout=120)
        assert json.loads(words)["client"] in lab.exits


def test_a_killed_keeper_takes_tor_with_it_and_the_next_run_sweeps(account: Account) -> None:
    assert account.run("true").returncode == 0
    (keeper,) = keepers(account)
    end(account, keeper)
    account.poll(lambda: account.processes() == {})
    left = account.root / RUNTIME.lstrip("/") / "onionward"
    assert (left / "ready").exists()  # stale now
    assert account.output(*FETCH, f"http://{account.lab.web4}/")
    assert (len(account.tor()), len(keepers(account))) == (1, 1)


def test_an_idle_tor_is_stopped_after_the_last_run(account: Account) -> None:
    idle_after(account, 1.0)
    with running(account, "read x") as process:
        time.sleep(2.5)  # longer than it may be idle
        assert account.tor(), "a run lives"
        process.communicate("\n", timeout=60)
    account.poll(lambda: account.processes() == {})
    left = account.root / RUNTIME.lstrip("/") / "onionward"
    assert not (left / "ready").exists()
    assert account.run("true").returncode == 0


def idle_after(account: Account, seconds: float, **variables: str) -> None:
    """Have a keeper of tor that is as patient."""
    assert account.run("true", variables=variables).returncode == 0  # makes directories and torrc
    account.end_all()
    start = (
        "import os,subprocess,sys;from onionward.app.rootless import keeper,own_tor;"
        "own=own_tor.home(os.environ,'',os.getuid());"
        "subprocess.run(keeper.command(own, idle=float(sys.argv[1])),check=True)"
    )
    argv = account.command(PYTHON, "-c", start, str(seconds), variables=variables)
    subprocess.run(argv, check=True, timeout=60)


def test_a_session_s_end_is_the_end_of_its_tor(account: Account) -> None:
    other = "/srv/home/session"
    account.as_root("install", "-d", "-m", "700", "-o", "alice", "-g", "alice", other)
    idle_after(account, 4.0, XDG_RUNTIME_DIR=other)
    with running(account, "read x", {"XDG_RUNTIME_DIR": other}):
        assert len(account.tor()) == 1
        account.as_root("rm", "-r", other)
        account.poll(lambda: background(account) == set())


def test_without_a_runtime_directory_everything_is_in_the_home(account: Account) -> None:
    done = account.run("sh", "-c", "ls -A /srv/home", variables={"XDG_RUNTIME_DIR": ""})
    assert done.returncode == 0, done.stderr
    state = account.root / "srv/home/.local/state/onionward"
    assert (state / "run/torrc").exists()
    assert (state / "tor").stat().st_mode & 0o777 == 0o700
    # nothing of it is seen by the command, whose tor would tell the machine's address
    seen = account.run("ls", "/srv/home/.local/state/onionward", variables={"XDG_RUNTIME_DIR": ""})
    assert (seen.returncode, seen.stdout) == (0, "")
