"""Life with iptables instead of nft, in both of its variants: through tor, and exactly back.

Each test has one variant here, and both on request (ONIONWARD_SWEEP).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, difference, empty_tables, open_machine, until

# what somebody has already: restored byte for byte with its counts, and judging still
THEIRS = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
[7:420] -A PREROUTING -i wlan9 -m comment --comment "a # in it; and [1:2]" -j CT --notrack
COMMIT
*security
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:theirs - [0:0]
[3:180] -A OUTPUT -o wlan9 -j theirs
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[9:999] -A POSTROUTING -o wlan9 -j MARK --set-xmark 0x7/0xffffffff
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:theirs - [0:0]
[0:0] -A OUTPUT -p tcp -m tcp --dport 9 -j theirs
[0:0] -A theirs -m set --match-set theirs{version} dst -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:onion - [0:0]
[12:720] -A OUTPUT -p tcp -m tcp --dport 4242 -m comment --comment "theirs \\"quoted\\"" -j onion
[1:60] -A onion -p tcp -j REJECT --reject-with tcp-reset
COMMIT
"""


def with_variant(name: str) -> pytest.MarkDecorator:
    """Of a test, which variant it always has."""
    names = ("nft", "legacy") if "ONIONWARD_SWEEP" in os.environ else (name,)
    return pytest.mark.parametrize("variant", names)


@pytest.fixture
def machine(lab: Lab, variant: str) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        opened.configure(f'[firewall]\nbackend = "iptables-{variant}"\n')
        try:
            yield opened
        finally:
            opened.onionward("down", "--force")
            empty_tables(opened.host, variant)


def restore(machine: Machine, tool: str, text: str) -> None:
    machine.path("/run/onionward-lab/theirs").write_text(text)
    machine.output("sh", "-c", f"{tool} < /run/onionward-lab/theirs")


def saved(machine: Machine, variant: str) -> list[str]:
    texts = [machine.output(f"{family}tables-{variant}-save", "-c") for family in ("ip", "ip6")]
    # when it was printed, and how often a policy has applied
    return [re.sub(r"(?m)^#.*\n| \[\d+:\d+\]$", "", text) for text in texts]


@contextmanager
def rules_of_others(machine: Machine, variant: str) -> Iterator[None]:
    """In every table of both families, with counts, comments and a set."""
    families = {"ip": ("4", "inet", "192.0.2.9"), "ip6": ("6", "inet6", "2001:db8:99::9")}
    for version, family, address in families.values():
        machine.output("ipset", "create", f"theirs{version}", "hash:ip", "family", family)
        machine.output("ipset", "add", f"theirs{version}", address)
    for tool, (version, _, _) in families.items():
        text = THEIRS.replace("{version}", version)
        restore(machine, f"{tool}tables-{variant}-restore -c", text)
    try:
        yield
    finally:
        machine.onionward("down", "--force")
        empty_tables(machine.host, variant)
        for version, _, _ in families.values():
            machine.output("ipset", "destroy", f"theirs{version}")


@with_variant("nft")
def test_up_and_down(machine: Machine, variant: str) -> None:
    with rules_of_others(machine, variant):
        before, rules = machine.snapshot(), saved(machine, variant)
        sets = machine.output("ipset", "save")
        assert [text.count("\n*") + text.startswith("*") for text in rules] == [5, 5]
        machine.up()
        status = machine.status()
        assert (status["state"], status["problems"]) == ("routed", [])
        assert machine.journal()["filters"] == [f"iptables-{variant}"]
        assert "table inet onionward {" not in machine.output("nft", "list", "ruleset")
        ours = saved(machine, variant)
        for family, text in zip(rules, ours, strict=True):
            left = [line for line in text.splitlines() if "onionward-" not in line]
            assert left == family.splitlines()
        for url in (f"http://{machine.lab.web4}/", f"http://[{machine.lab.web6}]/"):
            page = json.loads(machine.output("curl", "-sS", "--fail", "-m", "30", url))
            assert page["client"] in machine.lab.exits, url
        rules_that_are_put_in_front(machine, variant)
        machine.down()
        assert saved(machine, variant) == rules
        assert machine.output("ipset", "save") == sets
        assert difference(before, machine.snapshot()) == ""


@with_variant("nft")
def test_a_machine_without_nft(machine: Machine, variant: str) -> None:
    machine.configure("" if variant == "nft" else '[firewall]\nbackend = "iptables-legacy"\n')
    nft = "/usr/sbin/nft"
    machine.output("mount", "--bind", "/dev/null", nft)
    try:
        checked = machine.onionward("check")
        assert checked.returncode == 0, checked.stderr
        assert "packet sockets" in checked.stdout
        machine.up()
        found = machine.status()
        assert (found["state"], found["problems"]) == ("routed", [])
        page = json.loads(machine.output("curl", "-sS", "-m", "30", f"http://{machine.lab.web4}/"))
        assert page["client"] in machine.lab.exits
        assert machine.onionward("doctor").returncode == 0
        # somebody flushes: the guard looks, or is told
        tool = f"iptables-{variant}"
        machine.output(tool, "-t", "filter", "-F")
        until("the rules are back", lambda: machine.status()["problems"] == [], 8)
        machine.down()
        assert machine.status()["state"] == "off"
    finally:
        machine.onionward("down", "--force")
        machine.output("umount", nft)


@with_variant("legacy")
def test_from_one_filter_to_the_other(machine: Machine, variant: str) -> None:
    """Where there was nothing: the kernel does not give up the older interface's tables again."""
    before, rules = machine.snapshot(), saved(machine, variant)
    machine.up()
    machine.configure()
    machine.up()
    assert machine.status()["problems"] == []
    assert machine.journal()["filters"] == ["nftables"]
    assert "onionward" not in "".join(saved(machine, variant))
    assert "table inet onionward\n" in machine.tables()
    machine.configure(f'[firewall]\nbackend = "iptables-{variant}"\n')
    machine.up()
    assert machine.status()["problems"] == []
    assert "table inet onionward\n" not in machine.tables()
    machine.down()
    if variant == "nft":
        assert saved(machine, variant) == rules
        assert difference(before, machine.snapshot()) == ""
    else:
        # empty
        left = "".join(saved(machine, variant))
        assert "-A" not in left
        assert "onionward" not in left


def rules_that_are_put_in_front(machine: Machine, variant: str) -> None:
    """Named while nobody puts ours first again; the guard, and `up`, do."""
    tool = f"iptables-{variant}"
    text = "-p udp -m udp --dport 4433 -j ACCEPT"
    assert "firewall: table" not in machine.onionward("check").stdout
    machine.output(tool, "-I", "OUTPUT", *text.split())
    until("ours come first again", lambda: machine.status()["problems"] == [], 8)
    assert machine.output(tool, "-S", "OUTPUT").splitlines()[1] == "-A OUTPUT -j onionward-output"
    machine.end_guard()
    machine.output(tool, "-t", "mangle", "-I", "POSTROUTING", *text.split())
    words = f"table mangle of IPv4, chain POSTROUTING, rule 1: {text}"
    assert words in " ".join(machine.status()["problems"])
    assert words in machine.onionward("check").stdout
    machine.up()
    assert machine.status()["problems"] == []
    machine.output(tool, "-t", "mangle", "-D", "POSTROUTING", *text.split())
    machine.output(tool, "-D", "OUTPUT", *text.split())
