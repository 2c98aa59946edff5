"""What is said of other programs' rules, held against what the kernel does with tor's packets.

tor's account ─► their rules ─► counter in postrouting ─► up0
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from onionward.config import parse
from onionward.facts import Account
from onionward.foreign_rules import limits
from onionward.foreign_rules.walk import Obstacle
from onionward.system import System
from tests.kernel import namespaces
from tests.support import FACTS

UID = 61947
FAR = "198.18.9.9"
COUNTER = f"""
table inet test_count {{
	chain last {{
		type filter hook postrouting priority 2000;
		meta skuid {UID} tcp flags syn counter
	}}
}}
"""
# FAR's neighbours are not asked for: what is sent leaves at once
LINK = f"""
link set lo up
link add up0 type veth peer name far0
link set far0 arp off up
link set up0 arp off up
address add 198.18.9.1/24 dev up0
route add default via {FAR} dev up0
"""
CONNECT = f"""
import os, socket
os.setuid({UID})
with socket.socket() as one:
    one.setblocking(False)
    try:
        one.connect(("{FAR}", 9001))
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Case:
    """Rules, and what becomes of a packet of tor's.

    Attributes:
        said: "stopped", "may", or "" for nothing.
        passes: whether it leaves.
        rules: of the base chain.
        policy: of the base chain.
        hook: and priority.
        more: other chains of the table.

    """

    said: str
    passes: bool
    rules: str
    policy: str = "accept"
    hook: str = "output priority 0"
    more: str = ""

    @property
    def text(self) -> str:
        lines = "\n".join(f"\t\t{rule}" for rule in self.rules.split(";") if rule.strip())
        return (
            f"table inet theirs {{\n{self.more}\n\tchain base {{\n"
            f"\t\ttype filter hook {self.hook}; policy {self.policy};\n{lines}\n\t}}\n}}\n"
        )


SUB = "\tchain sub {{\n\t\t{}\n\t}}"
CASES = (
    Case("", True, ""),
    Case("stopped", False, "", "drop"),
    Case("stopped", False, "drop"),
    Case("stopped", False, "drop", hook="postrouting priority 0"),
    Case("stopped", False, "", "drop", hook="output priority -300"),
    Case("", True, "oifname lo accept; meta skuid 61947 accept", "drop"),
    Case("stopped", False, "oifname lo accept; meta skuid 0 accept", "drop"),
    Case("", True, "meta skuid 61000-61999 accept; reject"),
    Case("stopped", False, "meta skuid != { 0, 101 } reject with icmpx admin-prohibited"),
    Case("", True, "ct state established,related accept; ct state new accept; drop"),
    Case("stopped", False, "ct state established,related accept; drop"),
    Case("", True, "ct state vmap { established : accept, related : accept, invalid : drop }"),
    Case("stopped", False, "ct state vmap { established : accept, new : drop }"),
    Case("", True, 'oifname { "lo", "up*" } accept; drop'),
    Case("", True, "oif up0 accept; drop"),
    Case("stopped", False, 'oifname "wlan*" accept; drop'),
    Case("", True, 'iifname != "lo" accept; drop'),
    Case("stopped", False, 'iifname "lo" accept; drop'),
    Case("stopped", False, "udp dport != 53 accept; drop"),
    Case("stopped", False, "ip6 daddr != ::1 accept; drop"),
    Case("", True, "ip protocol tcp accept; drop"),
    Case("", True, "meta l4proto { tcp, udp } accept; drop"),
    Case("", True, "meta nfproto vmap { ipv4 : accept, ipv6 : drop }", "drop"),
    Case("stopped", False, "tcp flags & (fin | syn | rst | ack) == syn drop"),
    Case("", True, "tcp flags & (fin | syn | rst | ack) != syn drop"),
    Case("stopped", False, "tcp flags syn drop"),
    Case("", True, "tcp flags syn / syn,ack accept; drop"),
    Case("", True, "ct status dnat drop"),
    Case("stopped", False, "ct status dnat accept; drop"),
    Case("", True, "ct direction original accept; drop"),
    Case("", True, "fib daddr type local drop"),
    Case("stopped", False, "fib daddr type != local drop"),
    Case("stopped", False, "meta l4proto tcp reject with tcp reset"),
    Case("", True, "reject with icmpv6 type no-route"),
    Case("stopped", False, "counter log jump sub; accept", more=SUB.format("drop")),
    Case("stopped", False, "goto sub; accept", "drop", more=SUB.format("meta skuid 0 accept")),
    Case("", True, "jump sub; drop", more=SUB.format("meta skuid >= 0 ct state new accept; drop")),
    Case("", True, "meta skuid 0 jump sub; accept", more=SUB.format("drop")),
    Case("", True, "meta skuid 0 return; accept", "drop"),
    # what depends on the relay, or on what is not known of it
    Case("may", True, "tcp dport { 443, 9001 } accept; drop"),
    Case("may", False, "tcp dport { 80, 443 } accept; drop"),
    Case("may", False, "ip daddr 10.0.0.0/8 accept; drop"),
    Case("may", True, "limit rate 5/second accept; drop"),
    Case("may", False, "meta mark 1 accept; drop"),
    Case("may", True, "tcp dport 9001 jump sub; drop", more=SUB.format("accept")),
    Case("", False, "tcp dport != 443 drop"),
    Case("", True, "ip daddr 192.0.2.0/24 drop"),
)


class Inside(System):
    """Runs every command in a network namespace."""

    def __init__(self, namespace: int) -> None:
        super().__init__()
        self._enter = ["nsenter", f"--net={namespaces.path(namespace)}"]

    def run(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*self._enter, *argv], input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}\n{stdin}"
        return done.stdout


@pytest.fixture(scope="module")
def inside() -> Inside:
    namespace = namespaces.create()
    found = Inside(namespace)
    found.run("ip", "-batch", "-", stdin=LINK.strip() + "\n")
    return found


def said(inside: Inside) -> str:
    (link,) = FACTS.links
    account = Account("onionward-tor", UID, UID, Path("/nonexistent"))
    facts = replace(FACTS, links=(link._replace(name="up0"),), tor_account=account)
    traffic = limits.traffics(parse("", "x"), facts)[0]
    text = inside.run("nft", "--json", "--terse", "list", "ruleset")

    class Printed(System):
        def query(self, *_arguments: object, **_named: object) -> str:
            return text

    obstacles: tuple[Obstacle, ...] = limits.stopping(limits.read(Printed()), traffic, facts)
    assert len(obstacles) <= 1
    return "" if not obstacles else "stopped" if obstacles[0].certain else "may"


def leaves(inside: Inside) -> bool:
    inside.run(sys.executable, "-I", "-S", "-c", CONNECT)
    listed = inside.run("nft", "list", "chain", "inet", "test_count", "last")
    return "packets 0" not in listed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rules or case.policy)
def test_the_kernel_does_what_is_said(inside: Inside, case: Case) -> None:
    inside.run("nft", "-f", "-", stdin="flush ruleset\n" + COUNTER + case.text)
    assert said(inside) == case.said
    assert leaves(inside) == case.passes
