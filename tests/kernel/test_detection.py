"""The comparison sees a wrong rule: each of these rules is spoilt, and one packet tells.

A test that compares the rules with `explain` is worth what it notices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from onionward.config import parse
from onionward.explain import State
from onionward.policy import Policy, derive
from onionward.tables import remove
from tests.kernel.cases import Case, Send, send
from tests.kernel.machine import Machine
from tests.kernel.policies import GROUP, LINKS, TOR, facts_of
from tests.kernel.test_explain import mismatches, rules
from tests.support import addr


@dataclass(frozen=True)
class Spoilt:
    """A rule, what becomes of it, and a packet whose fate changes.

    Attributes:
        rule: text of the rules that are rendered.
        other: text in its place.
        packet: that shows it.
        kernel: what becomes of it then.
        config: of the machine.
        state: of the machine.

    """

    rule: str
    other: str
    packet: Send
    kernel: str
    config: str = "[bypass]\nnetworks = ['198.18.200.0/24', '10.1.0.0/16', '2001:db8:5::/48']"
    state: State = "routed"

    @property
    def case(self) -> Case:
        return Case(LINKS, self.policy, self.state, (self.packet,))

    @property
    def policy(self) -> Policy:
        facts = facts_of()
        return derive(parse(self.config, "spoilt.toml"), facts, tor_uid=TOR, tor_cgroup=GROUP)


def tcp(to: str, port: int = 443, account: str = "ordinary", *, raw: bool = False) -> Send:
    return send(account, addr(to), "tcp", port, raw=raw)


def udp(to: str, port: int, source_port: int | None = None, account: str = "ordinary") -> Send:
    return send(account, addr(to), "udp", port, source_port)


PRIVATE_VIRTUAL = "[tor]\nvirtual_networks = ['10.192.0.0/10']"
SPOILT = {
    "private addresses go to tor": Spoilt(
        "ip daddr @unroutable4 return", "", tcp("10.0.0.1"), "trans-port"
    ),
    "private IPv6 addresses go to tor": Spoilt(
        "ip6 daddr @unroutable6 return", "", tcp("fd00::1"), "trans-port"
    ),
    "bypassed networks go to tor": Spoilt(
        "ip daddr @bypass4 return", "", tcp("198.18.200.7"), "trans-port"
    ),
    "bypassed networks are asked for names": Spoilt(
        "meta l4proto { tcp, udp } th dport { 53, 137, 138, 853, 1900, 5353, 5355 } return",
        "",
        tcp("198.18.200.7", 853),
        "direct",
    ),
    "one port of names is forgotten": Spoilt(
        "138, 853, 1900", "138, 1900", tcp("2001:db8:5::7", 853), "direct"
    ),
    "any protocol is bypassed": Spoilt(
        "meta l4proto { tcp, udp, icmp, icmpv6 } accept",
        "accept",
        send("root", addr("10.1.0.1"), "gre"),
        "direct",
    ),
    "tor goes to itself": Spoilt(
        f"meta skuid {TOR} return", "", tcp("1.1.1.1", account="tor"), "trans-port"
    ),
    "tor's account is enough": Spoilt(
        f'socket cgroupv2 level {GROUP.level} "{GROUP.name}" ',
        "",
        tcp("1.1.1.1", account="not tor"),
        "direct",
    ),
    "tor's group is enough": Spoilt(
        f"meta skuid {TOR} meta l4proto tcp",
        "meta l4proto tcp",
        tcp("10.0.0.1", account="ordinary in the group"),
        "direct",
    ),
    "tor may send anything": Spoilt(
        f"meta skuid {TOR} meta l4proto tcp",
        f"meta skuid {TOR}",
        udp("1.1.1.1", 443, account="tor"),
        "direct",
    ),
    "link-local resolvers go to tor": Spoilt(
        "ip6 daddr fe80::/10 return", "", udp("fe80::5", 53), "dns-port"
    ),
    "loopback goes to tor": Spoilt(
        "fib daddr type { local, broadcast, multicast, anycast } return",
        "",
        tcp("127.0.0.1", 80),
        "trans-port",
    ),
    "broadcast goes to tor": Spoilt(
        "fib daddr type { local, broadcast, multicast, anycast } return",
        "fib daddr type local return",
        tcp("198.18.0.255", 80, raw=True),
        "trans-port",
    ),
    "names are not for tor": Spoilt("udp dport 53 ct", "udp dport 54 ct", udp("::1", 53), "local"),
    "names go to another port": Spoilt(
        "redirect to :941", "redirect to :942", udp("1.1.1.1", 53), "on loopback to port 942"
    ),
    ".onion names are addresses of the machine": Spoilt(
        "ip daddr 10.192.0.0/10 meta l4proto tcp",
        "ip daddr 10.192.0.0/11 meta l4proto tcp",
        tcp("10.255.255.1"),
        "local",
        config=PRIVATE_VIRTUAL,
    ),
    "everybody speaks DHCP": Spoilt(
        "udp sport 68 udp dport 67 meta skuid @dhcp_accounts jump",
        "udp sport 68 udp dport 67 jump",
        udp("255.255.255.255", 67, 68),
        "direct",
    ),
    "DHCP with the whole world": Spoilt(
        "ip daddr @link4 accept", "accept", udp("1.1.1.1", 67, 68, "dhcp"), "direct"
    ),
    "refused in silence": Spoilt(
        "reject with tcp reset", "drop", tcp("192.168.0.1", 80), "silence"
    ),
    "nothing is bypassed": Spoilt("ip daddr @bypass4 jump bypass", "", tcp("10.1.0.1"), "refused"),
    "the block leaves TCP waiting": Spoilt(
        "meta l4proto tcp counter name refused reject with tcp reset",
        "meta l4proto tcp accept",
        tcp("1.1.1.1"),
        "silence",
        state="blocked",
    ),
    "the block lets everybody answer": Spoilt(
        "jump answers", "accept", udp("2001:db8:ff::1", 443), "direct", state="blocked"
    ),
}


def spoil(spoilt: Spoilt) -> str:
    text = rules(spoilt.case)
    assert spoilt.rule in text, text
    return text.replace(spoilt.rule, spoilt.other)


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_rule_is_seen(machine: Machine, name: str) -> None:
    spoilt = SPOILT[name]
    assert mismatches(machine, spoilt.case, rules(spoilt.case), Counter()) == []
    wrong = mismatches(machine, spoilt.case, spoil(spoilt), Counter())
    assert len(wrong) == 1
    assert f"kernel:  {spoilt.kernel}" in wrong[0]


def test_without_rules_everything_leaves(machine: Machine) -> None:
    sends = (
        tcp("1.1.1.1"),
        tcp("2001:db8:ff::1"),
        udp("1.1.1.1", 53),
        udp("ff02::fb", 5353),
        udp("255.255.255.255", 9),
        send("root", addr("1.1.1.1"), "icmp", kind=8),
        send("root", addr("fe80::5"), "gre"),
        tcp("10.0.0.1", account="not tor"),
    )
    case = Case(LINKS, SPOILT["nothing is bypassed"].policy, "routed", sends)
    assert mismatches(machine, case, rules(case), Counter()) == []
    wrong = mismatches(machine, case, remove(), Counter())
    assert ["kernel:  direct\n" in words for words in wrong] == [True] * len(sends)
