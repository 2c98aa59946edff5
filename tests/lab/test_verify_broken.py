"""`onionward verify` finds what is wrong with rulesets that are broken on purpose.

    internet ── host0 ── eth0 host (verify)

The rules that `up` has loaded are changed behind its back, each time in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, until
from tests.lab.verify_machine import accepting, both, ids, load, load_back, opened, verify, without

Change = Callable[[str], str]


def egress_missing(text: str) -> str:
    return text + "delete table netdev onionward_l2\n"


def accepting_in_the_end(text: str) -> str:
    for hook in ("output priority 0", "postrouting priority 350"):
        text = text.replace(f"hook {hook}; policy drop", f"hook {hook}; policy accept")
    text = without(r"^\t\t(meta l4proto tcp )?counter name (refused|escaped)")(text)
    return text.replace("meta mark set 0x0\n", "")


def bypass_too_wide(text: str) -> str:
    name = "set bypass4 {\n\t\ttype ipv4_addr; flags interval;\n"
    return text.replace(name, f"{name}\t\telements = {{ 192.0.0.0/6 }}\n")


# what is wrong, which vectors it opens, which it leaves closed, and among which they are looked for
BROKEN: dict[str, tuple[Change, set[str], set[str]]] = {
    "QUIC is accepted": (accepting("udp dport 443"), {"udp.quic4", "udp.quic6"}, {"udp.ntp4"}),
    "IPv6 is forgotten": (
        accepting("meta nfproto ipv6", redirected=False), {"tcp.web6", "udp.any6"}, {"udp.any4"},
    ),
    "what conntrack does not know is accepted": (
        accepting("ct state invalid"), {"raw.tcp-fin"}, {"raw.gre4"},
    ),
    "ping is accepted": (
        accepting("meta l4proto { icmp, icmpv6 }"), {"ping.any4", "ping.any6"}, {"raw.gre4"},
    ),
    "frames are not judged": (egress_missing, {"frame.udp4", "frame.vlan"}, {"raw.udp4"}),
    "the router may be asked for names": (
        accepting("ip daddr 198.18.0.1 udp dport 53", redirected=False),
        {"dns.gateway4"}, {"dns.udp4"},
    ),
    "a mark opens the way": (accepting("meta mark 1"), {"mark.one"}, {"mark.all"}),
    "a tied socket has the last word": (
        both(without("ct mark 0x746f7200 goto drop_escaped_by"),
             accepting("meta l4proto tcp ct mark 0x746f7200")),
        {"bound.tcp4"}, {"bound.udp4"},
    ),
    "the bypass is too wide": (bypass_too_wide, {"udp.any4", "tcp.web4"}, {"udp.any6"}),
    "a protocol without ports is accepted": (
        accepting("meta l4proto gre"), {"raw.gre4", "raw.gre6"}, {"raw.esp4"},
    ),
    "everything is accepted in the end": (
        accepting_in_the_end, {"udp.quic4", "ping.any4"}, set(),
    ),
    "tor's usual range for names leaves": (
        accepting("ip daddr 10.192.0.0/10"), {"onion.virtual4"}, {"onion.virtual6-udp"},
    ),
    "groups of the link are spoken to": (
        accepting("ip daddr 224.0.0.0/4"), {"cast.mdns4", "cast.ssdp4"}, {"cast.mdns6"},
    ),
    "tor's account may send what it likes": (
        accepting("meta skuid onionward-tor"), {"tor.udp4", "tor.dns4"}, {"udp.any4"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    machine = Machine(lab)
    machine.configure()
    machine.up()
    machine.end_guard()  # it would put right what is broken here
    yield machine
    machine.down()


@pytest.mark.parametrize("name", BROKEN)
def test_it_finds_what_is_broken(machine: Machine, name: str) -> None:
    change, wanted, unwanted = BROKEN[name]
    load(machine, change)
    try:
        only = [word for vector in sorted(wanted | unwanted) for word in ("--only", vector)]
        report = verify(machine, *only, status=1)
    finally:
        load_back(machine)
    assert report["verdict"] == "open"
    assert wanted <= ids(report, "open")
    assert not unwanted & ids(report, "open")
    assert unwanted <= ids(report, "closed")


def test_an_exception_that_is_too_wide_is_told_by_who_leaks(machine: Machine) -> None:
    load(machine, accepting("meta skuid 60000-65535"))
    try:
        report = verify(machine, "--only", "udp.quic4", status=1)
    finally:
        load_back(machine)
    assert opened(report) == {("udp.quic4", "nobody")}
    closed = {(r["id"], r["who"]) for r in report["results"] if r["verdict"] == "closed"}
    assert closed == {("udp.quic4", "root")}


def test_what_left_has_its_moment_and_its_words(machine: Machine) -> None:
    load(machine, accepting("udp dport 443"))
    try:
        report = verify(machine, "--only", "udp.quic4", status=1)
    finally:
        load_back(machine)
    found = next(r for r in report["results"] if r["verdict"] == "open")
    assert report["canaries"]["web4"] in found["uplink"]["words"]
    assert report["trial"][0] <= found["uplink"]["time"] <= report["trial"][1]
    escapes = next(marks for marks in report["traffic"] if marks["kind"] == "canary")
    assert sum(count for _, count in escapes["counts"]) == 2  # of root and of nobody


def test_a_machine_that_is_open_is_called_so(machine: Machine) -> None:
    machine.pause_guard()
    load(machine, lambda _: "flush ruleset\n")
    for pid in machine.guard_pids():
        machine.run("kill", "-KILL", str(pid))
    until("no guard is left", lambda: machine.guard_pids() == [])
    try:
        report = verify(machine, "--only", "udp.quic4", status=1)
    finally:
        machine.up()
    assert report["state"] == "open"
    assert any("status: NOT PROTECTED" in words for words in report["notes"]), report["notes"]


def test_with_the_rules_as_they_should_be_all_of_that_is_closed(machine: Machine) -> None:
    names = {name for _, wanted, unwanted in BROKEN.values() for name in wanted | unwanted}
    only = [word for name in sorted(names) for word in ("--only", name)]
    report = verify(machine, *only, status=0)
    assert names <= ids(report, "closed")
