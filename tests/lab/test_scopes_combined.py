"""All scopes at once on a gateway that forwards: each seat is held to its own line.

    client1 ── eth1 gateway eth0 ── gateway0 (witness, peer)
    container ── br0 ┘  nobody, root: the host; alice: routed; carol: in clear

The container's bridge is not named, so what comes from there is blocked. From the container and
from carol, whom no other file seats on a routed host, every vector is tried that such a seat can
send; from the others, who have files of their own, the first two of each family and account.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Account, Needs, Place, Scope, Vector
from onionward.leaks.vectors import CATALOGUE
from tests.lab.leak_bench import BACKEND, Bench, Seat, chosen, sampled
from tests.lab.leak_trial import Trial
from tests.report import Faults

SWITCHES = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
# nothing is there: no vector aims at it
BYPASSED4, BYPASSED6 = "198.18.77.7", "2001:db8:77::7"
CONFIG = f"""
[bypass]
networks = ["{BYPASSED4}/32", "{BYPASSED6}/128"]
[host]
[[lan]]
interface = "eth1"
[[user]]
name = "alice"
[[user]]
name = "carol"
route = "direct"
"""
SEND = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.socket(family, socket.SOCK_DGRAM).sendto(b"bypass", (address, 4433))
    except OSError as error:
        print(error)
"""


def two_of_each(names: Sequence[str]) -> list[str]:
    """The first two of each family and account."""
    found: dict[tuple[str, Account], list[str]] = {}
    for name in names:
        vector = CATALOGUE[name]
        found.setdefault((vector.family, vector.account), []).append(name)
    return [name for group in found.values() for name in group[:2]]


def of_a_machine(vector: Vector) -> bool:
    return (
        not vector.prepared
        and not vector.limit
        and vector.place is Place.HOST
        and vector.account is not Account.TOR
        and vector.needs is Needs.NOTHING
    )


# they end on the link of whoever sends them, at a gateway that forwards, too
STAYS = (
    *("cast.", "group.", "guest.", "dhcp.", "foreign.dup", "foreign.dnat-loopback"),
    *("copy.dup-netdev", "copy.fwd-netdev", "stacked.macvlan-kernel", "stacked.stp"),
    # for the gateway itself, or from and to addresses of the link
    *("tcp.gateway4", "udp.gateway4", "dns.gateway4", "dns.broadcast", "ping.all-nodes"),
    *("tcp.router6", "udp.router6", "ping.router6", "dns.router6", "dns.bound-router6"),
    *("bound.loopback", "bound.mapped-onion", "chosen.dontroute", "spoof.loopback"),
    *("raw.ospf", "raw.pim", "raw.vrrp", "raw.igmp", "raw.mld", "raw.router-"),
    # routers take no such packets
    *("udp.source-route", "tcp.source-route", "udp.later-fragments"),
    *("udp.ttl", "ping.ttl", "forward.ttl"),
    # frames that are no IP
    *("frame.vlan", "frame.qinq", "frame.pppoe", "frame.mpls", "frame.lldp", "frame.experiment"),
    *("frame.eapol", "frame.preauth", "frame.lacp", "frame.rarp", "frame.loop", "frame.llc"),
    *("frame.snap", "frame.other-mac", "frame.arp-stuffed"),
)
# on a routed host not even a bypassed account sends these
NOT_CAROLS = (
    # addresses that may be mapped, sources that are not the machine's, detours
    *("onion.virtual", "spoof.", "tcp.source-route", "udp.source-route", "raw.routing"),
    # root's stub, and the range of another account: both are the host's
    *("stub.", "subordinate."),
    # connection tracking puts fragments together, of whomever, and waits for the others
    "raw.fragment",
    # the witness does not see it from this gateway with protection off either
    "raw.mld",
)

# a flow is forgotten once it is there: nobody answers who is blocked
FORWARDED = chosen(lambda v: of_a_machine(v) and v.family != "C1" and not v.id.startswith(STAYS))
ACCOUNTS = chosen(lambda v: not v.prepared, Scope.USER)
SEATS = {
    "gateway": Seat("gateway", "gateway"),
    "alice": Seat("gateway", "gateway", "alice", "carol", "alice"),
    "client1": Seat("gateway", "client1"),
    "container": Seat("gateway", "container"),
    "carol": Seat("gateway", "gateway", "carol", "alice", "carol"),
}
VECTORS = {
    "gateway": two_of_each(chosen(of_a_machine)),
    "alice": two_of_each(ACCOUNTS),
    "client1": two_of_each(FORWARDED),
    "container": sampled("container", FORWARDED),
    "carol": [name for name in ACCOUNTS if not name.startswith(NOT_CAROLS)],
}
SILENT = ("gateway", "alice", "client1", "container")
TRIED = [(seat, name) for seat, names in VECTORS.items() for name in names]
TRIED_IN_SILENCE = [(seat, name) for seat, name in TRIED if seat in SILENT]


@dataclass(frozen=True)
class Trials:
    """The captures of this file, by seat; and what left for the bypassed network."""

    off: dict[str, Trial]
    on: dict[str, Trial]
    bypassed: dict[str, int]


def try_all(bench: Bench, label: str) -> dict[str, Trial]:
    found = {}
    for name, seat in SEATS.items():
        bench.sit(account=seat.account, owner=seat.owner, sender=seat.sender)
        must_be_seen = label == "off" or name == "carol"
        attempt = bench.try_control if must_be_seen else bench.try_vectors
        found[name] = attempt(VECTORS[name], f"{label}-{name}")
    return found


def bypassed(bench: Bench) -> dict[str, int]:
    """How many of two datagrams to the bypassed network leave, from each seat."""
    found = {}
    for name, seat in SEATS.items():
        host = bench.lab.hosts[seat.sender]
        user = seat.account if seat.sender == "gateway" else None
        argv = ["/usr/bin/python3", "-I", "-S", "-c", SEND, BYPASSED4, BYPASSED6]
        with bench.witness.watch(f"bypassed-{name}") as capture:
            bench.run(*argv, host=host, user=user)
        found[name] = capture.count(f"udp and (host {BYPASSED4} or host {BYPASSED6})")
    return found


@pytest.fixture(scope="module")
def trials(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    bench = Bench(lab, tmp_path_factory.mktemp("combined"), SEATS["gateway"])
    try:
        bench.run("sysctl", "-q", "-w", *(f"{name}=1" for name in SWITCHES))
        off = try_all(bench, "off")
        bench.configure(CONFIG)
        bench.onionward("up")
        on = try_all(bench, "on")
        yield Trials(off, on, bypassed(bench))
    finally:
        bench.end()
        bench.run("sysctl", "-q", "-w", *(f"{name}=0" for name in SWITCHES))


@pytest.mark.parametrize(("seat", "name"), TRIED)
def test_the_witness_sees_it_with_protection_off(trials: Trials, seat: str, name: str) -> None:
    assert trials.off[seat].seen(name), trials.off[seat].outcomes[name]


@pytest.mark.parametrize(("seat", "name"), TRIED_IN_SILENCE)
def test_it_does_not_leave_from_who_is_routed_or_blocked(
    trials: Trials, seat: str, name: str, faults: Faults
) -> None:
    trials.on[seat].assert_silent(name, faults, "ways out, several scopes")


@pytest.mark.parametrize("seat", SILENT)
def test_nothing_at_all_escapes(trials: Trials, seat: str, faults: Faults) -> None:
    trials.on[seat].assert_nothing_escaped(faults, "ways out, several scopes")


def is_looked_up_anew(name: str) -> bool:
    """Whether others' rules change mark or destination of IPv4: the belt takes that for root's.

    A socket tied to a device finds its own way, and IPv6 is looked up with its account.
    """
    changes = name.startswith("foreign.dnat") and not name.endswith(("6", "-bound"))
    return BACKEND.startswith("iptables") and (changes or name == "mark.foreign")


@pytest.mark.parametrize("name", VECTORS["carol"])
def test_a_bypassed_account_sends_in_clear_as_always(trials: Trials, name: str) -> None:
    """As always, but for detours of others under the belt."""
    seen = bool(trials.on["carol"].seen(name))
    assert seen != is_looked_up_anew(name), trials.on["carol"].outcomes[name]


def test_the_bypassed_network_is_open_to_the_host_and_closed_behind_it(trials: Trials) -> None:
    assert trials.bypassed["gateway"] == trials.bypassed["carol"] == 2
    assert trials.bypassed["client1"] == trials.bypassed["container"] == 0
