"""`onionward verify` on machines whose rules are as they should be.

internet ── host0 ── eth0 host      (everything, by root, alice without rights)
         ── gateway0 ── eth0 gateway (names under .onion, alice, bob, clients)
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onionward.lab import Lab
from tests.lab import verify_browser as browser
from tests.lab.app_rootless_account import PYTHON, Account
from tests.lab.lifecycle_machine import Machine, until
from tests.lab.lifecycle_scopes import without_senders
from tests.lab.verify_machine import Report, ids, opened, verify

PLACE = "/run/onionward-verify"
SCOPES = (
    'onion = true\n[[lan]]\ninterface = "eth1"\n[[user]]\nname = "alice"\n[[user]]\nname = "bob"\n'
)
# what a machine has that `verify` must leave alone; counters count
_SHOWN = (
    ("nft", "--stateless", "list", "ruleset"),
    ("ip", "-details", "-json", "link"),
    ("ip", "-json", "address"),
    ("ip", "-json", "route", "show", "table", "all"),
    ("ip", "-json", "-6", "route", "show", "table", "all"),
    ("ip", "-json", "rule"),
    ("sysctl", "net.ipv4", "net.ipv6.conf"),
    ("cat", "/proc/self/mountinfo", "/etc/resolv.conf"),
    ("find", "/run", "-maxdepth", "1", "-name", "onionward*"),
)
_VOLATILE = ("net.ipv4.route.flush", "fastopen_key")


def state_of(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for argv in _SHOWN:
        lines = without_senders(machine.output(*argv)).splitlines()
        found[" ".join(argv)] = [line for line in lines if not any(v in line for v in _VOLATILE)]
    status = machine.status()
    # the probes are stopped, and some go through tor, which makes circuits for them
    volatile = ("counters", "stopped", "attempts", "tor_circuits", "tor_guards", "tor_exits")
    kept = {key: value for key, value in status.items() if not key.startswith(volatile)}
    return {**found, "status": kept}


def leftovers(machine: Machine) -> list[str]:
    """Processes of a run that are still there."""
    found = []
    for entry in machine.path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(w in words for w in ("scratch_inside", "leaks.probe", "onionward-verify")):
            found.append(words)
    return found


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    machine = Machine(lab)
    machine.configure()
    machine.up()
    yield machine
    machine.close()
    machine.down()


class Whole:
    """One whole run, and what the machine was before and after it."""

    def __init__(self, machine: Machine, page: Path) -> None:
        self.before = state_of(machine)
        begun = time.monotonic()
        self.report: Report = verify(machine, "--html", str(page), status=0)
        self.seconds = time.monotonic() - begun
        self.after = state_of(machine)
        self.page = page


@pytest.fixture(scope="module")
def whole(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(machine, tmp_path_factory.mktemp("verify") / "report.html")


def test_everything_that_can_be_tried_is_closed(whole: Whole) -> None:
    report = whole.report
    assert report["verdict"] == "closed"
    assert report["counts"]["open"] == report["counts"]["not proven"] == 0
    assert report["counts"]["closed"] > 250
    by = {r["who"] for r in report["results"] if r["verdict"] == "closed"}
    assert by == {"root", "nobody", "tor's account"}


def test_the_detector_saw_each_in_the_control_and_none_on_the_wire(whole: Whole) -> None:
    for result in whole.report["results"]:
        if result["verdict"] == "closed":
            assert result["control"]["packets"], result
            assert not result["uplink"]["packets"], result


def test_the_wire_was_not_still_meanwhile(whole: Whole) -> None:
    # a detector that sees no tor either would be deaf
    marks = {m["kind"]: sum(n for _, n in m["counts"]) for m in whole.report["traffic"]}
    assert marks["tor"] > 0
    assert marks["control"] > 250
    assert marks["canary"] == marks["other"] == 0


def test_the_machine_is_as_it_was(whole: Whole) -> None:
    assert whole.after == whole.before


def test_it_takes_less_than_a_minute(whole: Whole) -> None:
    assert whole.seconds < 60


def test_nothing_of_it_is_left(machine: Machine, whole: Whole) -> None:
    assert leftovers(machine) == []
    assert not machine.path(PLACE).exists()


def begin(machine: Machine) -> subprocess.Popen[str]:
    """A run that has begun to try."""
    process = machine.spawn("onionward", "verify")
    until("it captures", lambda: any(machine.path(PLACE).glob("*.pcap")), 20)
    return process


def pid_of(machine: Machine) -> str:
    return machine.output("pgrep", "--full", "--oldest", "onionward verify").strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(machine: Machine, number: signal.Signals) -> None:
    process = begin(machine)
    machine.output("kill", f"-{number.value}", pid_of(machine))
    process.communicate(timeout=30)
    until("all of it has ended", lambda: leftovers(machine) == [])
    assert not machine.path(PLACE).exists()
    assert machine.status()["state"] == "routed"


def test_what_a_killed_run_left_is_swept_by_the_next(machine: Machine) -> None:
    process = begin(machine)
    machine.output("kill", "-KILL", pid_of(machine))
    process.communicate(timeout=30)
    until("all of it has ended", lambda: leftovers(machine) == [], 30)
    assert list(machine.path(PLACE).glob("*.pcap"))
    verify(machine, "--only", "udp.quic4", status=0)
    assert not machine.path(PLACE).exists()


def test_two_runs_do_not_meet(machine: Machine) -> None:
    process = begin(machine)
    done = machine.run("onionward", "verify")
    assert done.returncode == 1
    assert "another `onionward verify` is at work" in done.stderr
    machine.output("kill", "-TERM", pid_of(machine))
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--only", "no-such-name"), "no way out has such a name"),
        (("--interface", "eth9"), "there is no interface eth9"),
        (("--html", "/nowhere/at-all.html"), "/nowhere is no directory"),
        (("--only", "foreign."), "would change rules"),
    ],
)
def test_what_cannot_be_done_is_refused(
    machine: Machine, argv: tuple[str, ...], words: str
) -> None:
    done = machine.run("onionward", "verify", *argv)
    assert done.returncode == 2
    assert words in done.stderr


# -- without root ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account(lab: Lab, machine: Machine) -> Iterator[Account]:
    account = Account(lab)
    account.prepare()
    yield account
    account.tidy()


def test_without_root_nothing_is_called_closed_that_nobody_watched(account: Account) -> None:
    argv = account.command(PYTHON, "-m", "onionward", "verify", "--json", "--only", "udp.",
                           "--only", "raw.gre4")  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "not proven"
    assert report["watched"] == report["policy"] == []
    quic = next(r for r in report["results"] if r["id"] == "udp.quic4")
    assert quic["who"] == "alice"
    assert "root's rights" in quic["why"]
    assert quic["said"].startswith("refused")
    assert "raw.gre4" in ids(report, "not tried")


# -- nothing routed, and other scopes --------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(lab: Lab) -> Iterator[Machine]:
    machine = Machine(lab, "gateway")
    yield machine
    machine.down()


def test_where_nothing_is_routed_there_is_nothing_to_verify(gateway: Machine) -> None:
    done = gateway.run("onionward", "verify")
    assert done.returncode == 2
    assert "nothing is routed" in done.stderr


def test_names_accounts_and_clients(gateway: Machine) -> None:
    gateway.configure(SCOPES)
    gateway.up()
    report = verify(gateway, status=0)
    assert opened(report) == set()
    assert report["counts"]["not proven"] == 0
    closed = {(r["id"], r["who"]) for r in report["results"] if r["verdict"] == "closed"}
    wanted = {("onion-name.udp4", "nobody"), ("onion-name.own-tcp", "nobody"),
              ("onion-address.root-udp6", "root"), ("udp.quic4", "alice"),
              ("capable.ping4", "alice"), ("subordinate.udp4", "bob")}  # fmt: skip
    assert wanted <= closed
    assert any("clients behind eth1 were not tried" in note for note in report["notes"])
    # whoever is not routed is not reported as a leak, and not tried
    assert ("udp.quic4", "nobody") not in closed


def test_where_only_clients_are_routed_nothing_can_be_tried(gateway: Machine) -> None:
    gateway.configure('[[lan]]\ninterface = "eth1"\n')
    gateway.up("--yes")
    done = gateway.run("onionward", "verify")
    assert done.returncode == 2
    assert "begins with them" in done.stderr


# -- the page --------------------------------------------------------------------------------------


def test_a_browser_shows_the_page(whole: Whole, tmp_path: Path) -> None:
    text = browser.text_of(whole.page, tmp_path)
    assert "closed: nothing left this machine in clear" in text
    assert text.count("<svg") == 1
    assert "udp.quic4" in text
    picture = browser.picture_of(whole.page, tmp_path)
    assert picture.at(1100, 100) == browser.GREEN
    assert picture.counts()[browser.RED] < 1000  # a word
