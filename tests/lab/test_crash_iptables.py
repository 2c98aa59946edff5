"""onionward killed between the families of iptables, whose states are not one transaction.

    up:      [iptables blocked] † [ip6tables blocked] … [iptables routed] † [ip6tables routed]
    reload:                                             [iptables routed] † [ip6tables routed]
    down:    [iptables remove] † [ip6tables remove]

Some of these deaths with either variant, all of them on request (ONIONWARD_SWEEP). All others are
died with ONIONWARD_TEST_BACKEND, see the Makefile: `make report BACKEND=iptables-legacy`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_effects import Effect, completed, reached
from tests.lab.lifecycle_machine import empty_tables
from tests.lab.lifecycle_stage import OTHER_RULES, Stage, host_stage
from tests.lab.lifecycle_truth import assert_status_is_true, in_force
from tests.report import Faults

DEATHS = {
    "legacy": [("up", "blocked"), ("down", "remove")],
    "nft": [("reload", "routed")],
}
if "ONIONWARD_SWEEP" in os.environ:
    every = [("up", "blocked"), ("up", "routed"), ("reload", "routed"), ("down", "remove")]
    DEATHS = {variant: [*every] for variant in DEATHS}


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with host_stage(lab) as opened:
        try:
            yield opened
        finally:
            opened.machine.onionward("down", "--force")
            empty_tables(opened.machine.host, "legacy", "nft")


def second_family(effects: Sequence[Effect], variant: str, state: str) -> int:
    """The number of the change that completes a state."""
    words = f"ip6tables-{variant}-restore --noflush  # {state}"
    return next(n for n, effect in enumerate(effects, 1) if effect.words.startswith(words))


@pytest.mark.parametrize("variant", DEATHS)
def test_killed_between_the_families(stage: Stage, faults: Faults, variant: str) -> None:
    machine, backend = stage.machine, f"iptables-{variant}"
    config = f'[firewall]\nbackend = "{backend}"\n'
    removed = f"{backend}-restore --noflush  # remove"

    def down() -> float:
        effects = stage.whole("down")
        opened = reached(effects, removed)
        assert opened is not None
        return opened

    machine.configure(config)
    # the kernel keeps the tables of the older interface
    seen = {"up": stage.whole("up")}
    machine.configure(config + OTHER_RULES)
    seen["reload"] = stage.whole("up")
    seen["down"] = stage.whole("down")
    before = machine.snapshot()
    for verb, state in DEATHS[variant]:
        number = second_family(seen[verb], variant, state)
        words = f"{verb}: between the families of {backend}, {state}"
        with faults.tried("SIGKILL between the families of iptables", words) as fault:
            machine.configure(config)
            since = 0.0
            if verb != "up":
                machine.up()
                since = time.time()
            if verb == "reload":
                machine.configure(config + OTHER_RULES)
            status, effects = stage.onionward(number, "down" if verb == "down" else "up")
            assert status == -9, f"{words}: not killed"
            with fault.status():
                assert_status_is_true(machine, backend)
            if (verb, state) == ("up", "blocked"):
                # IPv6 is open still, and nothing has been promised
                assert in_force(machine, backend) == "none"
                machine.up()
                since = time.time()
            elif verb == "up":
                since = completed(effects, f"ip6tables-{variant}-restore --noflush  # blocked") or 0
            # from here on nobody needs to know that somebody has died
            if verb == "down":
                opened = reached(effects, removed)
                assert opened is not None
                machine.down()
            else:
                stage.works()
                opened = down()
            assert since
            fault.saw(stage.wire.packets(since, opened))
            stage.restored(before, fault)
