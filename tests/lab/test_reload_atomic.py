"""Rules that take the place of themselves leave no moment in which an account's packets pass.

    bob, and an id subordinate to him, send without a pause ── gateway ── witness

The guard is ended, so that nothing but the policy's own rules stands in the way.
"""

from __future__ import annotations

import time

import pytest

from onionward.lab import Lab, topology
from tests.lab.lifecycle_machine import open_machine, until
from tests.lab.lifecycle_scopes import BOB, ONION
from tests.lab.lifecycle_wire import Wire

TIMES = 100
RULES = "/run/onionward/rules.nft"
FLOODED = ".4433: UDP"
FLOOD = """
import select, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("sending", flush=True)
while not select.select([0], [], [], 0)[0]:
    for _ in range(5):
        try: s.sendto(b"flood", (sys.argv[1], 4433))
        except OSError: pass
    time.sleep(0.0002)
"""


@pytest.mark.parametrize("offset", [None, 7], ids=["bob", "subordinate"])
def test_nothing_of_an_account_passes_while_rules_are_replaced(
    lab: Lab, offset: int | None
) -> None:
    bob = next(account for account in topology.ACCOUNTS if account.name == "bob")
    assert bob.subordinate is not None
    uid = "bob" if offset is None else str(bob.subordinate + offset)
    with open_machine(lab, "gateway") as machine, Wire(machine) as wire:
        become = ("setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups")
        flood = machine.spawn(*become, "/usr/bin/python3", "-I", "-c", FLOOD, lab.web4)
        assert flood.stdout is not None
        assert flood.stdout.readline() == "sending\n"
        until("the witness sees it", lambda: bool(wire.packets()))
        machine.configure(ONION + BOB)
        machine.up()
        machine.end_guard()
        since = time.time()
        for _ in range(TIMES):
            machine.output("nft", "-f", RULES)
        passed = [p for p in wire.packets(since) if FLOODED in p.words]
        assert not passed, f"{len(passed)} packets left in clear, the first: {passed[0]}"
        gone = time.time()
        machine.output("nft", "flush", "ruleset")
        until(
            "the witness sees it without rules",
            lambda: any(FLOODED in packet.words for packet in wire.packets(gone)),
        )
        machine.down()
