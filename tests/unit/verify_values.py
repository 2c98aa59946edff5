"""Values that the tests of `verify` share."""

from __future__ import annotations

import random
from dataclasses import replace

from onionward.leaks.vectors import CATALOGUE
from onionward.verify import aims, plan
from onionward.verify.conduct import Surroundings
from onionward.verify.judge import Evidence, Key, judge
from onionward.verify.report import FORMAT, Marks, Report, Result, Sighting

UPLINK = aims.Uplink(
    device="eth0",
    hardware="02:00:00:00:00:02",
    address4="198.18.0.2/24",
    address6="2001:db8::2/64",
    broadcast4="198.18.0.255",
    router4="198.18.0.1",
    router6="2001:db8::1",
    router6_local="fe80::1",
    router_hardware="02:00:00:00:00:01",
    routes4=True,
    routes6=True,
)
EPHEMERAL = 32768


def drawn(seed: int, numbers: int, ephemeral: int) -> aims.Canaries:
    dice = random.Random(seed)  # noqa: S311  chance that a test can repeat
    return aims.draw(dice, numbers, ephemeral)


CANARIES = drawn(7, 3 * len(CATALOGUE), EPHEMERAL)
TARGETS = replace(
    aims.targets(UPLINK, CANARIES, ("127.192.0.7", "fd5a:7011::7"), (940, 941)),
    user_account="nobody",
)
SEEN = Sighting(1, 1000.05, "IP 198.18.0.2.20001 > 192.0.2.7.443: UDP", "eth0")


def people(
    route: str = "tor", users: tuple[tuple[str, int], ...] = (), rights: plan.Rights = "root"
) -> tuple[plan.Who, ...]:
    return plan.people(
        route=route, users=users, rights=rights, ordinary="nobody", tor="onionward-tor"
    )


def planned(*whos: plan.Who, rights: plan.Rights = "root") -> plan.Plan:
    around = Surroundings()
    return plan.plan(whos or people(), TARGETS, CANARIES, around, beyond=EPHEMERAL, rights=rights)


def evidence(made: plan.Plan, **changes: object) -> Evidence:
    """Of a run in which the detector works and nothing leaves."""
    keys = [trial.key for trial in made.trials]
    found = Evidence(
        control=dict.fromkeys(keys, SEEN),
        uplink={},
        said=dict.fromkeys(keys, "refused: [Errno 1] Operation not permitted"),
        said_in_control=dict.fromkeys(keys, "sent"),
        routes4=True,
        routes6=True,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def result_of(results: tuple[Result, ...], key: Key) -> Result:
    return next(result for result in results if (result.id, result.who) == key)


def report(**changes: object) -> Report:
    made = planned()
    found = Report(
        format=FORMAT,
        onionward="0.1.0",
        machine="laptop",
        kernel="6.18",
        state="routed",
        scopes=("host: everything this machine sends goes through Tor",),
        policy=("host: everything", "  TCP to loopback port 940"),
        interface="eth0",
        watched=("eth0",),
        began=1000.0,
        seconds=12.0,
        canaries={"web4": CANARIES.web4},
        first=CANARIES.first,
        tools=("tcpdump version 4.99",),
        control=(1000.0, 1005.0),
        trial=(1006.0, 1012.0),
        results=judge(made, evidence(made)),
        traffic=(
            Marks("canary", ()),
            Marks("tor", ((1006.5, 40), (1011.0, 3))),
            Marks("link", ((1007.0, 1),)),
            Marks("other", ()),
            Marks("control", ((1001.0, 12), (1004.0, 2))),
        ),
    )
    return replace(found, **changes)  # type: ignore[arg-type]
