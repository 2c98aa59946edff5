"""No vector leaves a rootless run, whoever tries.

That is its account, root of a nested namespace, and the machine's root in the run's network: no
device there leads anywhere.

    internet ── host0 (witness) ── eth0 host: alice ── run: lo, tor0 (vectors)

The positive control is the same vectors on the same host without a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Account as Who
from onionward.leaks.model import Needs, Scope, Targets
from onionward.leaks.vectors import CATALOGUE
from onionward.leaks.wire import HOUSEKEEPING, Exempt
from tests.lab.app_rootless_account import PYTHON, Account, account_of
from tests.lab.leak_bench import Bench, Seat, chosen, sampled
from tests.lab.leak_processes import Running
from tests.lab.leak_trial import Trial
from tests.report import Faults

ALL = chosen(lambda v: not v.prepared and v.needs is Needs.NOTHING, Scope.USER)
VECTORS = sampled("run without root", ALL)
# with no more rights there than the account has here, the others are the account's
OF_ROOT = [name for name in VECTORS if CATALOGUE[name].account is not Who.USER]
PLAIN = [name for name in VECTORS if CATALOGUE[name].account is Who.USER]
CLASS = "ways out of a run without root"
PROBE = (PYTHON, "-m", "onionward.leaks.probe", "--account", "root")
NOT_ALLOWED = ("not permitted", "ermission denied", "CAP_NET_ADMIN", "setresuid failed")
SLEEP = "7654322"


class RunBench(Bench):
    """A bench whose vectors are tried in a run, once `become` says as whom."""

    def __init__(self, account: Account, *arguments: object) -> None:
        self.account = account
        self.place: list[str] | None = None
        super().__init__(account.lab, *arguments)  # type: ignore[arg-type]

    def become(self, place: list[str] | None) -> None:
        """What is put before the probe, from now on."""
        self.place = place

    def _aim(self, name: str) -> Targets:
        found = super()._aim(name)
        if getattr(self, "place", None) is None:
            return found
        return dataclasses.replace(found, device="tor0", host4="10.111.0.2", host6="fd5a:7012::2")

    def aim_anew(self) -> None:
        self.aims = self._aims()

    def _start(self, names: Sequence[str], *, serve: bool = False) -> Running:
        if self.place is None:
            return super()._start(names, serve=serve)
        return Running([*self.place, *PROBE, self.targets.to_json(), *names])


@dataclass(frozen=True)
class Trials:
    """The captures of this file."""

    off: Trial
    account: Trial
    nested: Trial
    root: Trial


@contextlib.contextmanager
def sleeping(account: Account) -> Iterator[int]:
    """A run that does nothing: the process id of its command, by the host's numbers."""
    process = subprocess.Popen(account.run_command("sleep", SLEEP), stderr=subprocess.PIPE)

    def found() -> list[int]:
        assert process.poll() is None, process.communicate()[1]
        return [pid for pid, words in account.processes().items() if words == f"sleep {SLEEP}"]

    try:
        account.poll(lambda: bool(found()))
        yield found()[0]
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with account_of(lab) as account:
        bench = RunBench(account, tmp_path_factory.mktemp("leaks"), Seat(account="alice"))
        try:
            bench.exempt = Exempt(
                relays=lab.relays, networks6=("2001:db8::/64",), others=HOUSEKEEPING
            )
            bench.become(account.run_command())
            bench.aim_anew()
            as_account = bench.try_vectors(PLAIN, "account")
            bench.become(account.run_command("unshare", "--user", "--map-root-user"))
            nested = bench.try_vectors(OF_ROOT, "nested")
            with sleeping(account) as pid:
                network = f"--net=/proc/{pid}/ns/net"
                places = ("PYTHONPATH=/srv/src:/srv/site", "nsenter", network, "--")
                bench.become(account.host.command(["env", *places]))
                as_root = bench.try_vectors(VECTORS, "root")
            # at the end, because the kernel goes on asking the link for addresses for a while
            bench.become(None)
            bench.aim_anew()
            off = bench.try_control(VECTORS, "off")
            yield Trials(off, as_account, nested, as_root)
        finally:
            bench.end()


@pytest.mark.parametrize("name", VECTORS)
def test_the_witness_sees_it_without_a_run(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", PLAIN)
def test_the_account_of_a_run_sends_nothing(trials: Trials, name: str, faults: Faults) -> None:
    trials.account.assert_silent(name, faults, CLASS)


def forgiven(trial: Trial, name: str) -> Trial:
    """A tool that may not is a refusal, too."""
    words = trial.outcomes[name]
    if not any(refusal in words for refusal in NOT_ALLOWED):
        return trial
    refused = {**trial.outcomes, name: f"refused: {words}"}
    return dataclasses.replace(trial, outcomes=refused)


@pytest.mark.parametrize("name", OF_ROOT)
def test_root_of_a_nested_namespace_sends_nothing(
    trials: Trials, name: str, faults: Faults
) -> None:
    forgiven(trials.nested, name).assert_silent(name, faults, CLASS)


@pytest.mark.parametrize("name", VECTORS)
def test_the_machines_root_in_the_runs_network_sends_nothing(
    trials: Trials, name: str, faults: Faults
) -> None:
    forgiven(trials.root, name).assert_silent(name, faults, CLASS)


def test_nothing_else_was_seen_either(trials: Trials, faults: Faults) -> None:
    for trial in (trials.account, trials.nested, trials.root):
        trial.assert_nothing_escaped(faults, CLASS)
