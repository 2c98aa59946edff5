"""The real firehol takes what is shown for it, and its rules do what `explain` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from onionward.config import Config, parse
from onionward.errors import RefusedError
from onionward.policy import Policy, derive
from onionward.render import firehol as render
from tests.kernel import firehol
from tests.kernel.cases import Case, send
from tests.kernel.clients import client
from tests.kernel.machine import Machine
from tests.kernel.policies import LINKS, TOR, facts_of
from tests.kernel.test_explain import mismatches
from tests.kernel.test_explain_iptables import untold
from tests.support import addr

BYPASSED = "[bypass]\nnetworks = ['198.18.200.0/24', '2001:db8:5::/48']\n"
LAN = "[[lan]]\ninterface = 'lan1'\nservices = ['ping', 'tcp/8080']\n"
CONFIGS = {
    "host": BYPASSED,
    "LAN": f"[host]\nroute = 'direct'\n{LAN}",
    "both": f"[host]\nroute = 'tor'\n{LAN}{BYPASSED}",
}


@pytest.fixture(scope="module")
def walls() -> Iterator[Machine]:
    defaults = Config().tor
    built = Machine(defaults.trans_port, defaults.dns_port, loader="sh -eu")
    try:
        yield built
    finally:
        built.close()


def policy_of(config: str) -> Policy:
    # what is shown names no control group, and firehol watches no frames
    policy = derive(parse(config, "walls.toml"), facts_of(), tor_uid=TOR, tor_cgroup=None)
    return replace(policy, devices=())


def case_of(policy: Policy) -> Case:
    public = map(addr, ("1.1.1.1", "2606:4700::1111", "198.18.200.1", "2001:db8:5::1"))
    sends = []
    for to in public:
        sends += [send("ordinary", to, "tcp", port, raw=False) for port in (443, 53, 853)]
        sends += [send("ordinary", to, "udp", port) for port in (53, 443, 137)]
        sends += [send("root", to, "icmp" if to.version == 4 else "ipv6-icmp", kind=8)]
        source = addr("192.168.44.9" if to.version == 4 else "fd00:44::9")
        if policy.lans:
            sends += [client("lan1", source, to, "tcp", port) for port in (443, 53)]
            sends += [client("lan1", source, to, "udp", port) for port in (53, 443)]
    if policy.lans:
        sends += [client("lan1", addr("192.168.44.9"), addr("192.168.44.1"), "tcp", 8080)]
        sends += [client("lan1", addr("192.168.44.9"), addr("192.168.44.1"), "tcp", 22)]
        sends += [client("lan1", addr("1.1.1.1"), addr("198.18.200.1"), "tcp", 443)]
    return Case(LINKS, policy, "routed", tuple(sends))


@pytest.mark.parametrize("name", CONFIGS)
def test_firehol_agrees(walls: Machine, name: str) -> None:
    policy = policy_of(CONFIGS[name])
    case = case_of(policy)
    tally: Counter[str] = Counter()
    wrong = mismatches(walls, case, firehol.script(render.render(policy)), tally, untold)
    assert not wrong, f"{len(wrong)} of {len(case.sends)} packets\n\n{wrong[0]}"
    assert tally.total() == len(case.sends) >= 28


def test_it_is_the_rules_that_decide(walls: Machine) -> None:
    """Without ours firehol lets everything pass, as its file says."""
    policy = policy_of(CONFIGS["host"])
    text = "\n".join(
        line for line in render.render(policy).splitlines() if not line.startswith("ip")
    )
    wrong = mismatches(walls, case_of(policy), firehol.script(text), Counter(), untold)
    assert any("kernel:  direct" in words for words in wrong)


def test_what_it_cannot_express_is_refused() -> None:
    for config in ("onion = true\n", "[[user]]\nname = 'bob'\n[host]\nroute = 'onion'\n"):
        with pytest.raises(RefusedError, match="firehol: ") as caught:
            render.render(policy_of(config))
        assert 'backend = "iptables"' in caught.value.hint
