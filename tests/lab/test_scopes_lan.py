"""The clients behind an interface are routed: whatever they send, nothing of it leaves.

    internet ── gateway0 (witness, peer) ── eth0 gateway eth1 ── client1 (vectors)

The gateway forwards, also packets with a source route, as somebody else has told it to; from `up`
on it masquerades, too. Its own programs are not routed, but say nothing here.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Scope
from onionward.leaks.vectors import CATALOGUE, number_of
from onionward.leaks.wire import HOUSEKEEPING, Packet
from tests.lab.leak_bench import Bench, Seat, chosen, sampled
from tests.lab.leak_trial import Trial
from tests.lab.lifecycle_machine import Machine
from tests.lab.lifecycle_scopes import LAN, forwarding
from tests.report import Faults

PLAIN = sampled("lan", chosen(lambda v: not v.prepared, Scope.LAN))
BEFORE = chosen(lambda v: v.prepared, Scope.LAN)
# connections to the peer that can also be opened through Tor
THROUGH_TOR = chosen(
    lambda v: (
        v.prepared and v.family == "P1" and v.id not in {"before.unanswered", "before.called"}
    ),
    Scope.LAN,
)
# what goes through tor first needs a tor
SHORT = [n for n in PLAIN if CATALOGUE[n].family in {"U1", "V6", "D1", "B1", "S1", "T2"}]
# connection tracking puts fragments together and waits for the others
UNSEEN_BEHIND_NAT = ("raw.fragment-first", "raw.fragment-last", "raw.fragment6")
BEHIND_NAT = [name for name in SHORT if name not in UNSEEN_BEHIND_NAT]
# the far end sends to the address of the gateway what belongs to no connection: it is not
# translated back, and the gateway answers for itself, as every machine does that is not routed
OF_THE_GATEWAY = "before.time-wait"
SILENCED = [name for name in BEFORE if name != OF_THE_GATEWAY]
NOWHERE = "/run/onionward-lab/nowhere.torrc"
AUTHORITIES, ELSEWHERE = "198.18.1.", "198.18.77."
SOURCE_ROUTES = "net.ipv4.conf.all.accept_source_route"


@dataclass(frozen=True)
class Trials:
    """The captures of this file, in the order in which they were taken."""

    off: Trial
    off_before: Trial
    off_behind_nat: Trial
    activated: Trial
    routed: Trial
    forgotten: Trial
    without_tor: Trial
    state_without_tor: str
    removed: Trial
    orphaned: Trial
    blocked: Trial


@contextmanager
def source_routes(machine: Machine) -> Iterator[None]:
    machine.output("sysctl", "-q", "-w", f"{SOURCE_ROUTES}=1")
    try:
        yield
    finally:
        machine.output("sysctl", "-q", "-w", f"{SOURCE_ROUTES}=0")


def tried_while_blocked(bench: Bench) -> Trial:
    """What is seen while `up` waits for a tor that looks for a network that is not there."""
    moved = bench.lab.network_torrc.read_text().replace(AUTHORITIES, ELSEWHERE)
    (bench.host.root / NOWHERE.lstrip("/")).write_text(moved)
    # what tor remembers of the network that is there would lead it to its relays
    bench.run("rm", "--recursive", "--force", "/var/lib/onionward/tor")
    bench.configure(LAN, network=NOWHERE)
    up = subprocess.Popen(
        bench.onionward_command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    exempt = bench.exempt
    try:
        assert up.stderr
        words = ""
        # rules are announced, loaded and read back before tor is started
        while "] tor --" not in words:
            line = up.stderr.readline()
            assert line, words
            words += line
        relays = [(host.replace(AUTHORITIES, ELSEWHERE), port) for host, port in exempt.relays]
        bench.exempt = replace(exempt, relays=tuple(relays))
        trial = bench.try_vectors(SHORT, "blocked")
        assert up.poll() is None, "it was not blocked all the time"
        return trial
    finally:
        bench.exempt = exempt
        up.kill()
        up.communicate(timeout=20)
        bench.onionward("down")
        (bench.host.root / NOWHERE.lstrip("/")).unlink()


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    machine = Machine(lab, "gateway")
    with ExitStack() as stack:
        stack.enter_context(forwarding(machine))
        stack.enter_context(source_routes(machine))
        seat = Seat(protected="gateway", sender="client1")
        bench = Bench(lab, tmp_path_factory.mktemp("lan"), seat)
        stack.callback(bench.end)
        # the gateway itself is not routed: only its kernel says something
        bench.exempt = replace(bench.exempt, others=HOUSEKEEPING)

        def activate() -> float:
            return bench.onionward("up").blocked_by()

        def forget() -> float:
            before = time.time()
            bench.run("conntrack", "-F")
            bench.run("conntrack", "-F", "-f", "ipv6")
            return before

        def remove() -> float:
            before = time.time()
            bench.onionward("down")
            return before

        def remove_without_tor() -> float:
            machine.kill_tor()
            return remove()

        off = bench.try_control(PLAIN, "off")
        off_before = bench.try_prepared(BEFORE, "off-before", time.time)
        blocked = tried_while_blocked(bench)
        masquerade = stack.enter_context(ExitStack())
        masquerade.enter_context(forwarding(machine, masquerade=True))
        off_behind_nat = bench.try_control(BEHIND_NAT, "off-behind-nat")
        bench.configure(LAN)
        activated = bench.try_prepared(BEFORE, "activated", activate)
        routed = bench.try_vectors(PLAIN, "routed")
        forgotten = bench.try_prepared(THROUGH_TOR, "forgotten", forget)
        machine.kill_tor()
        state = machine.status()["state"]
        without_tor = bench.try_vectors(SHORT, "without-tor")
        bench.onionward("up")
        removed = bench.try_prepared(THROUGH_TOR, "removed", remove)
        masquerade.close()
        stack.enter_context(forwarding(machine))
        bench.onionward("up")
        orphaned = bench.try_prepared(THROUGH_TOR, "orphaned", remove_without_tor)
        yield Trials(
            off=off,
            off_before=off_before,
            off_behind_nat=off_behind_nat,
            activated=activated,
            routed=routed,
            forgotten=forgotten,
            without_tor=without_tor,
            state_without_tor=state,
            removed=removed,
            orphaned=orphaned,
            blocked=blocked,
        )


@pytest.mark.parametrize("name", PLAIN)
def test_the_witness_sees_it_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off.seen(name), trials.off.outcomes[name]


@pytest.mark.parametrize("name", BEHIND_NAT)
def test_the_witness_sees_it_behind_somebody_s_nat(trials: Trials, name: str) -> None:
    assert trials.off_behind_nat.seen(name), trials.off_behind_nat.outcomes[name]


@pytest.mark.parametrize("name", BEFORE)
def test_the_witness_sees_flows_from_before_with_protection_off(trials: Trials, name: str) -> None:
    assert trials.off_before.seen(name), trials.off_before.outcomes[name]


@pytest.mark.parametrize("name", PLAIN)
def test_it_does_not_leave_from_a_routed_client(trials: Trials, name: str, faults: Faults) -> None:
    trials.routed.assert_silent(name, faults, "ways out of a routed client")


@pytest.mark.parametrize("name", SILENCED)
def test_a_flow_from_before_is_silent_once_blocked(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.activated.assert_silent(name, faults, "flows from before, client")


@pytest.mark.parametrize("name", SHORT)
def test_it_does_not_leave_from_a_blocked_client(trials: Trials, name: str, faults: Faults) -> None:
    trials.blocked.assert_silent(name, faults, "ways out of a blocked client")


@pytest.mark.parametrize("name", SHORT)
def test_it_does_not_leave_after_tor_was_killed(trials: Trials, name: str, faults: Faults) -> None:
    trials.without_tor.assert_silent(name, faults, "ways out of a client when tor is killed")


def test_the_machine_says_that_it_is_blocked_without_tor(trials: Trials) -> None:
    assert trials.state_without_tor == "blocked"


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_a_flow_through_tor_that_is_forgotten_does_not_leave(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.forgotten.assert_silent(name, faults, "flows that conntrack forgets, client")


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_a_flow_through_tor_does_not_go_on_in_clear_after_down(
    trials: Trials, name: str, faults: Faults
) -> None:
    trials.removed.assert_silent(name, faults, "flows through Tor after down, client")


@pytest.mark.parametrize("name", THROUGH_TOR)
def test_nor_when_tor_has_died_before(trials: Trials, name: str, faults: Faults) -> None:
    trials.orphaned.assert_silent(name, faults, "flows through Tor after down, client")


def of_the_gateway(packet: Packet) -> bool:
    return f".{number_of(OF_THE_GATEWAY)} > " in packet.words and "Flags [R]" in packet.words


@pytest.mark.parametrize("state", ["blocked", "activated", "routed", "forgotten", "without_tor"])
def test_nothing_at_all_escapes(trials: Trials, state: str, faults: Faults) -> None:
    trial: Trial = getattr(trials, state)
    trial.assert_nothing_escaped(
        faults, "ways out of a routed client", lambda packet: not of_the_gateway(packet)
    )


def test_the_witness_sees_tor_itself(trials: Trials) -> None:
    assert trials.blocked.capture.count(f"tcp and dst net {ELSEWHERE}0/24")
    relays = {host for host, _ in trials.routed.exempt.relays}
    to_relays = " or ".join(f"dst host {relay}" for relay in sorted(relays))
    assert trials.routed.capture.count(f"tcp and ({to_relays})")
